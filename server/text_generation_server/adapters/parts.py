"""The checkpoint's linears within those that are computed, and what of an adapter's matrices belongs there."""

from collections.abc import Sequence

from torch import Tensor

from text_generation_server.adapters.pairs import LoraPair
from text_generation_server.layers.linear import Adaptable, LinearSlice


class AdaptedLinear:
    """One of the checkpoint's linears within one that is computed; see `LinearSlice`. outputs: where they are there."""

    def __init__(self, slices: Sequence[LinearSlice], by_outputs: bool) -> None:
        (self.name,) = {piece.name for piece in slices}
        outputs, inputs = slices[0].shape
        end = max(piece.start + _length(piece) for piece in slices)
        first = slices[0].start if by_outputs else 0
        self.outputs = slice(first, end) if by_outputs else slice(0, outputs)
        self.inputs = inputs if by_outputs else end
        self._slices = slices
        self._by_outputs = by_outputs

    @property
    def output_count(self) -> int:
        """How many of the computed outputs are between its first and its last."""
        return self.outputs.stop - self.outputs.start

    def down(self, pair: LoraPair) -> Tensor:
        """A pair's first matrix for this rank's inputs, [r, inputs] fp32."""
        return pair.down.float() if self._by_outputs else self._taken(pair.down.float().T, self.inputs).T

    def up(self, pair: LoraPair) -> Tensor:
        """A pair's second matrix for this rank's outputs, its scale included, [outputs, r] fp32."""
        up = pair.up.float() * pair.scale
        return self._taken(up, self.output_count) if self._by_outputs else up

    def _taken(self, rows: Tensor, count: int) -> Tensor:
        """These of the rows [n, r], each where it is computed, zeros between."""
        placed = rows.new_zeros(count, rows.shape[1])
        for piece in self._slices:
            start = piece.start - (self.outputs.start if self._by_outputs else 0)
            placed[start : start + _length(piece)] = rows[piece.taken]
        return placed


def parts_of(linear: Adaptable) -> list[AdaptedLinear]:
    """The checkpoint's linears within this one, in order; of one that is cut along its inputs there is one."""
    slices: dict[str, list[LinearSlice]] = {}
    for piece in linear.slices:
        slices.setdefault(piece.name, []).append(piece)
    return [AdaptedLinear(pieces, linear.by_outputs) for pieces in slices.values()]


def _length(piece: LinearSlice) -> int:
    taken = piece.taken
    return taken.stop - taken.start if isinstance(taken, slice) else len(taken)
