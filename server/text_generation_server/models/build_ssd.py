"""Makes one rank's state space layers of heads from a spec and a checkpoint. Knows no architecture.

Heads are cut over ranks; with fewer groups of heads than ranks, ranks hold copies of what a group shares.
"""

from text_generation_server.cache.recurrent import RecurrentStateSpec
from text_generation_server.distributed.group import TensorParallel
from text_generation_server.layers.causal_conv import causal_conv
from text_generation_server.layers.group_norm import GroupsRmsNorm, SpreadRmsNorm
from text_generation_server.layers.norm import Norm, rms_norm
from text_generation_server.layers.ssd import SsdWeights, ssd
from text_generation_server.models.recurrent import SsdMixer
from text_generation_server.models.tensors import StoredLinear, TensorReader
from text_generation_server.specs.ssd import SsdSpec
from text_generation_server.weights.layout import Place, heads_of


class SsdBuilder:
    """hidden: numbers of a layer's input. layers: that keep a state.

    Raises:
        UnsupportedModel: these ranks cannot divide the heads.
    """

    def __init__(self, spec: SsdSpec, hidden: int, layers: int, reader: TensorReader, group: TensorParallel) -> None:
        self._spec, self._hidden, self._reader, self._group = spec, hidden, reader, group
        names = "state space", "groups of state space"
        mine = heads_of(spec.heads, spec.groups, group.rank, group.world_size, names)
        self._heads, self._groups = mine.query, mine.kv
        inner, shared = len(self._heads) * spec.head_dim, len(self._groups) * spec.state_size
        self._sizes = inner, inner + 2 * shared, len(self._heads)
        self.state = RecurrentStateSpec(
            num_layers=layers,
            channels=inner,
            numbers=spec.state_size,
            windowed=self._sizes[1],
            window=spec.conv_width - 1,
            dtype=reader.dtype,
            device=reader.device,
        )
        """Of all layers."""

    def layer(self, prefix: str, place: int) -> SsdMixer:
        """The layer whose tensors' names start with `prefix`. place: among those that keep a state."""
        spec, reader, names = self._spec, self._reader, self._spec.names
        heads, inner = slice(self._heads.start, self._heads.stop), spec.inner_size
        channels, conv = self._channels, self._conv_rows
        shifted = [slice(rows.start + inner, rows.stop + inner) for rows in conv]
        steps = slice(heads.start + inner + spec.conv_channels, heads.stop + inner + spec.conv_channels)
        into = StoredLinear(prefix + names.projection_in, inner + spec.conv_channels + spec.heads, self._hidden)
        out = StoredLinear(prefix + names.projection_out, self._hidden, inner)
        name = prefix + names.conv
        kernel = reader.pieces(f"{name}.weight", (spec.conv_channels, 1, spec.conv_width), conv)
        bias = reader.pieces(f"{name}.bias", (spec.conv_channels,), conv) if spec.conv_bias else None
        decay, skip, least = (
            reader.pieces(prefix + each, (spec.heads,), [heads]) for each in (names.decay, names.skip, names.step_bias)
        )
        return SsdMixer(
            reader.column([into], [_place(rows) for rows in (channels, *shifted, steps)], spec.bias),
            causal_conv(kernel[:, 0].T.contiguous(), bias, spec.activation),
            ssd(SsdWeights(-decay.exp(), skip, least, spec.head_dim, len(self._groups), spec.step_limit)),
            self._norm(prefix + names.norm),
            reader.row(out, [_place(channels)], spec.bias, self._group),
            self._sizes,
            place,
        )

    @property
    def _channels(self) -> slice:
        first = self._heads.start * self._spec.head_dim
        return slice(first, first + self._sizes[0])

    @property
    def _conv_rows(self) -> list[slice]:
        """Of the convolution: channels, B and C."""
        spec = self._spec
        size, first = spec.groups * spec.state_size, self._groups.start * spec.state_size
        shared = slice(first + spec.inner_size, first + spec.inner_size + len(self._groups) * spec.state_size)
        return [self._channels, shared, slice(shared.start + size, shared.stop + size)]

    def _norm(self, name: str) -> "Norm | GroupsRmsNorm | SpreadRmsNorm":
        spec, group = self._spec, self._group
        weight = self._reader.vector(f"{name}.weight", spec.inner_size)[self._channels].contiguous()
        if spec.groups >= group.world_size:
            if len(self._groups) == 1:
                return rms_norm(weight, spec.norm_eps)
            return GroupsRmsNorm(weight, len(self._groups), spec.norm_eps)
        size = spec.inner_size // spec.groups
        return SpreadRmsNorm(weight, self._groups.start, spec.groups, size, spec.norm_eps, group)


def _place(rows: slice) -> Place:
    return Place(0, rows, rows.stop - rows.start)
