"""Makes one rank's selective state space layers from a spec and a checkpoint. Knows no architecture.

Channels are cut over ranks: time steps, B and C, which follow from all of them, are summed over ranks.
"""

from text_generation_server.cache.recurrent import RecurrentStateSpec
from text_generation_server.distributed.group import TensorParallel
from text_generation_server.layers.causal_conv import causal_conv
from text_generation_server.layers.selective_scan import ScanWeights, selective_scan
from text_generation_server.models.recurrent import Selection, SsmMixer
from text_generation_server.models.tensors import StoredLinear, TensorReader
from text_generation_server.specs.recurrent import SsmSpec
from text_generation_server.weights.layout import Place, partition_of, up_places


class SsmBuilder:
    """hidden: numbers of a layer's input. layers: that keep a state."""

    def __init__(self, spec: SsmSpec, hidden: int, layers: int, reader: TensorReader, group: TensorParallel) -> None:
        self._spec, self._hidden, self._reader, self._group = spec, hidden, reader, group
        self._mine = partition_of(spec.inner_size, group.rank, group.world_size)
        self.state = RecurrentStateSpec(
            num_layers=layers,
            channels=self._mine.padded,
            numbers=spec.state_size,
            windowed=self._mine.padded,
            window=spec.conv_width - 1,
            dtype=reader.dtype,
            device=reader.device,
        )
        """Of all layers."""

    def layer(self, prefix: str, place: int) -> SsmMixer:
        """The layer whose tensors' names start with `prefix`. place: among those that keep a state."""
        spec, names, reader, mine = self._spec, self._spec.names, self._reader, self._mine
        inner, own = spec.inner_size, [Place(0, mine.rows, mine.padded)]
        into = StoredLinear(prefix + names.projection_in, 2 * inner, self._hidden)
        sizes = spec.step_rank, spec.state_size, spec.state_size
        parts = StoredLinear(prefix + names.selection, sum(sizes), inner)
        steps = StoredLinear(prefix + names.time_step, inner, spec.step_rank)
        out = StoredLinear(prefix + names.projection_out, self._hidden, inner)
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
                reader.row(parts, own, False, self._group),
                reader.column([steps], own, False),
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
            reader.row(out, own, spec.bias, self._group),
            place,
        )
