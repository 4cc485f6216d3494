"""Makes one rank of a model of recurrences from a spec and a checkpoint. Knows no architecture and no form of weights.

Channels are cut over ranks: time steps, B and C, which follow from all of them, are summed over ranks.
"""

import torch

from text_generation_server.cache.recurrent import RecurrentStateSpec
from text_generation_server.distributed.group import TensorParallel
from text_generation_server.layers.causal_conv import causal_conv
from text_generation_server.layers.norm import Norm, Rounded
from text_generation_server.layers.selective_scan import ScanWeights, selective_scan
from text_generation_server.models.build_ends import EndsBuilder, build_norm
from text_generation_server.models.layerwise import build_layers
from text_generation_server.models.recurrent import RecurrentBlock, RecurrentModel, Selection, SsmMixer
from text_generation_server.models.tensors import StoredLinear, TensorReader
from text_generation_server.specs.recurrent import RecurrentSpec
from text_generation_server.weights.layout import Place, partition_of, up_places


class RecurrentBuilder:
    """Builds the model of one rank."""

    def __init__(self, spec: RecurrentSpec, reader: TensorReader, group: TensorParallel) -> None:
        self._spec = spec
        self._reader = reader
        self._group = group
        self._mine = partition_of(spec.ssm.inner_size, group.rank, group.world_size)
        self._residual_dtype = torch.float32 if spec.wide_residual else reader.dtype

    def build(self) -> RecurrentModel:
        """Read this rank's part of every tensor.

        Raises:
            UnsupportedModel: the checkpoint is not what the spec says.
        """
        spec, reader, names = self._spec, self._reader, self._spec.names
        sizes = {"vocab_size": spec.vocab_size, "width": spec.hidden_size}
        ends = EndsBuilder(reader, self._group, **sizes, embedding=names.embedding, head=names.head)
        table = ends.table()
        return RecurrentModel(
            state=RecurrentStateSpec(
                num_layers=spec.num_layers,
                channels=self._mine.padded,
                numbers=spec.ssm.state_size,
                window=spec.ssm.conv_width - 1,
                dtype=reader.dtype,
                device=reader.device,
            ),
            vocab_size=spec.vocab_size,
            max_positions=None if spec.max_positions is None else spec.max_positions.tokens,
            embedding=ends.embedding(table),
            blocks=build_layers(self._block, spec.num_layers),
            linears=reader.linears,
            final_norm=self._norm(names.final_norm),
            head=ends.head(table, spec.head),
            residual_dtype=self._residual_dtype,
        )

    def _block(self, layer: int) -> RecurrentBlock:
        prefix = self._spec.names.layer.format(layer) + "."
        return RecurrentBlock(self._norm(prefix + self._spec.names.norm), self._mixer(prefix, layer))

    def _norm(self, name: str) -> Norm:
        reader, spec, hidden = self._reader, self._spec.norm, self._spec.hidden_size
        if self._residual_dtype is reader.dtype:
            return build_norm(reader, spec, name, hidden)
        norm = build_norm(reader.widened(), spec, name, hidden)
        # Kernels round what they add to a wide stream.
        return norm if reader.device.type == "cuda" else Rounded(norm, reader.dtype)

    def _mixer(self, prefix: str, layer: int) -> SsmMixer:
        spec, names, reader, mine = self._spec.ssm, self._spec.names, self._reader, self._mine
        hidden, inner, place = self._spec.hidden_size, spec.inner_size, [Place(0, mine.rows, mine.padded)]
        into = StoredLinear(prefix + names.projection_in, 2 * inner, hidden)
        sizes = spec.step_rank, spec.state_size, spec.state_size
        parts = StoredLinear(prefix + names.selection, sum(sizes), inner)
        steps = StoredLinear(prefix + names.time_step, inner, spec.step_rank)
        out = StoredLinear(prefix + names.projection_out, hidden, inner)
        conv_name = prefix + names.conv
        conv_weight = reader.part(f"{conv_name}.weight", (inner, 1, spec.conv_width), mine)
        return SsmMixer(
            reader.column([into], up_places(1, True, inner, mine), spec.bias),
            causal_conv(
                conv_weight[:, 0].T.contiguous(),
                reader.part(f"{conv_name}.bias", (inner,), mine) if spec.conv_bias else None,
                spec.activation,
            ),
            Selection(
                reader.row(parts, place, False, self._group),
                reader.column([steps], place, False),
                sizes,
                spec.parts_eps,
            ),
            selective_scan(
                ScanWeights(
                    decay=-reader.part(prefix + names.decay, (inner, spec.state_size), mine).exp(),
                    skip=reader.part(prefix + names.skip, (inner,), mine),
                    step_bias=reader.part(f"{prefix}{names.time_step}.bias", (inner,), mine),
                )
            ),
            reader.row(out, place, spec.bias, self._group),
            layer,
        )
