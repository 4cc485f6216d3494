"""The pairs of all adapters to one linear, side by side on the device, and the sum that they add. Knows no files.

Which adapter a token has is read on the device: a step may mix them, and be recorded once for every mixture. Kernels
that read only what a step uses belong here; `put` writes in place, for whatever changes adapters while serving.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from text_generation_server.adapters.pairs import LoraPair
from text_generation_server.layers.linear import ColumnParallelLinear, LinearSlice, LinearStep, ParallelLinear

GATHER_COST = 3
"""How often gathered matrices are moved: read, written, and read again."""


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

    def down(self, pair: LoraPair) -> Tensor:
        """A pair's first matrix for this rank's inputs, [r, inputs] fp32."""
        return pair.down.float() if self._by_outputs else self._taken(pair.down.float().T, self.inputs).T

    def up(self, pair: LoraPair) -> Tensor:
        """A pair's second matrix for this rank's outputs, its scale included, [outputs, r] fp32."""
        up = pair.up.float() * pair.scale
        return self._taken(up, self.outputs.stop - self.outputs.start) if self._by_outputs else up

    def _taken(self, rows: Tensor, count: int) -> Tensor:
        """These of the rows [n, r], each where it is computed, zeros between."""
        placed = rows.new_zeros(count, rows.shape[1])
        for piece in self._slices:
            start = piece.start - (self.outputs.start if self._by_outputs else 0)
            placed[start : start + _length(piece)] = rows[piece.taken]
        return placed


class LoraBank:
    """Satisfies `Addend` for the linear whose `parts` those are: y += up[a] · (down[a] · x) for a token with adapter a.

    Adapters are numbered from 1; 0 is none. All have room for the largest `rank` among them.
    """

    def __init__(
        self, parts: Sequence[AdaptedLinear], adapters: int, rank: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        self._parts = tuple(parts)
        self._inputs = parts[0].inputs
        self._adapters = torch.arange(1, adapters + 1, device=device)
        # [parts, adapters + 1, rank, inputs], and of each part [adapters + 1, rank, outputs]; adapter 0 is all zeros.
        self._down = torch.zeros(len(parts), adapters + 1, rank, self._inputs, dtype=dtype, device=device)
        self._up = [
            torch.zeros(adapters + 1, rank, part.outputs.stop - part.outputs.start, dtype=dtype, device=device)
            for part in parts
        ]

    @property
    def nbytes(self) -> int:
        """Device memory that it takes."""
        return self._down.nbytes + sum(up.nbytes for up in self._up)

    def put(self, number: int, pairs: Mapping[str, LoraPair]) -> None:
        """Make these pairs, by the checkpoint's names, the adapter of this number; it changes nothing else here."""
        for at, (part, up) in enumerate(zip(self._parts, self._up, strict=True)):
            self._down[at, number], up[number] = 0, 0
            if (pair := pairs.get(part.name)) is not None:
                self._down[at, number, : pair.rank] = part.down(pair)
                up[number, : pair.rank] = part.up(pair).T

    def __call__(self, out: Tensor, x: Tensor, step: LinearStep) -> Tensor:
        """See `Addend`; adds in place."""
        if step.adapters is None:
            return out
        x = x[:, : self._inputs]
        # By the number of tokens alone, which is also what recorded steps are recorded for.
        add = self._gathered if GATHER_COST * len(x) <= len(self._adapters) else self._masked
        add(out, x, step.adapters)
        return out

    def _gathered(self, out: Tensor, x: Tensor, adapters: Tensor) -> None:
        """Each token's own matrices."""
        inner = self._down[:, adapters] @ x[:, :, None]  # [parts, T, rank, 1]
        for part, up, of_part in zip(self._parts, self._up, inner, strict=True):
            out[:, part.outputs] += (of_part.mT @ up[adapters])[:, 0]

    def _masked(self, out: Tensor, x: Tensor, adapters: Tensor) -> None:
        """All tokens through all adapters, as one product, of which all but each token's own part is dropped."""
        down, others = self._down[:, 1:], (adapters[:, None] != self._adapters)[:, :, None]
        for part, to_inner, up in zip(self._parts, down, self._up, strict=True):
            inner = (x @ to_inner.flatten(0, 1).T).unflatten(1, to_inner.shape[:2])  # [T, adapters, rank]
            out[:, part.outputs].addmm_(inner.masked_fill_(others, 0).flatten(1), up[1:].flatten(0, 1))


def parts_of(linear: ParallelLinear) -> list[AdaptedLinear]:
    """The checkpoint's linears within this one, in order; of one that is cut along its inputs there is one."""
    slices: dict[str, list[LinearSlice]] = {}
    for piece in linear.slices:
        slices.setdefault(piece.name, []).append(piece)
    return [AdaptedLinear(pieces, isinstance(linear, ColumnParallelLinear)) for pieces in slices.values()]


def _length(piece: LinearSlice) -> int:
    taken = piece.taken
    return taken.stop - taken.start if isinstance(taken, slice) else len(taken)
