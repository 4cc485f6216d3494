"""Low-rank products that a kernel of few rows adds to its own: which, and where their halves meet. Imports no Triton.

y[m] += up[a] · (down[a] · x[m]) for a row m with pairs a. The first programs make down · x, all add up times that to
their sums (`low_rank_sums`).
"""

from dataclasses import dataclass

from torch import Tensor

EMPTY = -1
"""What a number that is still to come looks like, as int32: a NaN that no sum is."""


def pitch_of(rank: int) -> int:
    """Numbers of a row of the second matrices: whole vectors of 16 bytes."""
    return -(-rank // 8) * 8


@dataclass(frozen=True, slots=True)
class LowRank:
    """Products of few rows, P places with pairs, of which each row has one or none, for the parts of one product.

    numbers: [P, row size], pairs; from `down` on first matrices [parts, rank, inputs]; where `parts` [parts, 4] int32
    says second ones [outputs, pitch], see `pitch_of`: by part, which of `ranks` is its, where its matrix
    begins, its first output and the number of them. ranks: [P, all parts] int32, 0 for no pair.
    adapters: [m] int64, of each row its place, from 1, or 0.
    order, table: see `Segments`. present: [2 + places] int32, how many segments and how many places the rows have, and
    which, from 0.
    inner: int32, all `EMPTY`, room for [splits, m, parts, rank] in float32. following: of the next such product, to be
    made empty.
    overlaps: whether all this may be read before the kernel in front has ended.
    """

    numbers: Tensor
    ranks: Tensor
    parts: Tensor
    adapters: Tensor
    order: Tensor
    table: Tensor
    present: Tensor
    inner: Tensor
    following: Tensor
    down: int
    rank: int
    pitch: int
    inputs: int
    splits: int
    overlaps: bool

    @property
    def units(self) -> int:
        """The most pieces that first halves are made in."""
        return len(self.table) * len(self.parts) * self.splits
