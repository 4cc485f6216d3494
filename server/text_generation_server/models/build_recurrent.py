"""Makes one rank of a model of recurrences from a spec and a checkpoint. Knows no architecture and no kind of layer."""

from typing import Protocol

import torch

from text_generation_server.cache.recurrent import RecurrentStateSpec
from text_generation_server.distributed.group import TensorParallel
from text_generation_server.layers.norm import Norm, Rounded
from text_generation_server.models.build_ends import EndsBuilder, build_norm
from text_generation_server.models.build_ssd import SsdBuilder
from text_generation_server.models.build_ssm import SsmBuilder
from text_generation_server.models.layerwise import build_layers
from text_generation_server.models.recurrent import RecurrentBlock, RecurrentModel, SsdMixer, SsmMixer
from text_generation_server.models.tensors import TensorReader
from text_generation_server.specs.recurrent import RecurrentSpec
from text_generation_server.specs.ssd import SsdSpec


class MixerBuilder(Protocol):
    """Builds the layers of one kind, and says what they keep."""

    state: RecurrentStateSpec

    def layer(self, prefix: str, place: int) -> SsmMixer | SsdMixer:
        """The layer whose tensors' names start with `prefix`. place: among those that keep a state."""


class RecurrentBuilder:
    """Builds the model of one rank.

    Raises:
        UnsupportedModel: these ranks cannot divide the model.
    """

    def __init__(self, spec: RecurrentSpec, reader: TensorReader, group: TensorParallel) -> None:
        self._spec = spec
        self._reader = reader
        self._group = group
        self._mixers = _mixers(spec, reader, group)
        self._residual_dtype = torch.float32 if spec.wide_residual else reader.dtype

    def build(self) -> RecurrentModel:
        """Read this rank's part of every tensor.

        Raises:
            UnsupportedModel: the checkpoint is not what the spec says.
        """
        spec, reader, names = self._spec, self._reader, self._spec.names
        ends = EndsBuilder(
            reader,
            self._group,
            vocab_size=spec.vocab_size,
            width=spec.hidden_size,
            embedding=names.embedding,
            head=names.head,
        )
        table = ends.table()
        return RecurrentModel(
            state=self._mixers.state,
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
        return RecurrentBlock(self._norm(prefix + self._spec.names.norm), self._mixers.layer(prefix, layer))

    def _norm(self, name: str) -> Norm:
        reader, spec, hidden = self._reader, self._spec.norm, self._spec.hidden_size
        if self._residual_dtype is reader.dtype:
            return build_norm(reader, spec, name, hidden)
        norm = build_norm(reader.widened(), spec, name, hidden)
        # Kernels round what they add to a wide stream.
        return norm if reader.device.type == "cuda" else Rounded(norm, reader.dtype)


def _mixers(spec: RecurrentSpec, reader: TensorReader, group: TensorParallel) -> MixerBuilder:
    sizes = spec.hidden_size, spec.num_layers, reader, group
    if isinstance(spec.ssm, SsdSpec):
        return SsdBuilder(spec.ssm, *sizes)
    return SsmBuilder(spec.ssm, *sizes)
