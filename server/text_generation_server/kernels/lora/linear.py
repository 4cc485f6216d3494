"""Which programs multiply by the adapters of one linear: how its parts and its tokens are cut.

Dimensions: T tokens, P places, R the rank that places are made for.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import triton
from torch import Tensor

from text_generation_server.kernels.dependent_launch import overlaps
from text_generation_server.kernels.lora.expand import expand
from text_generation_server.kernels.lora.segments import FEW, SHORT, Segments
from text_generation_server.kernels.lora.shrink import shrink
from text_generation_server.kernels.matmul.config import GEMV_ROWS, NARROW_ROWS
from text_generation_server.kernels.matmul.low_rank import LowRank, pitch_of

WIDE = 8192
"""Outputs of a linear from which a program has 256 of them, else 128."""

SPLITS = ((4, 16), (FEW, 4), (1024, 4))
"""Up to so many tokens, at least so many parts of the inputs: programs that share the work of few blocks."""

TOGETHER = 128
"""Rows of the parts' first matrices, at most, that a program multiplies by, where tokens are many."""

SHARE = 1024
"""Inputs of a program where tokens are few, unless that makes fewer parts."""


LEAST_SHARE = 256
"""The same where programs are so small that more of them wait for less."""


FEW_PLACES = 8
"""Places that a step's tokens may have, up to which the product's own kernel is faster than two more kernels.

With 32 of them in 32 rows it was slower by 11 %, and with 128 rows by 10 % and more, on an H200.
"""


LOW_RANK = 16
"""Of places, at most, likewise: larger ones were not measured."""


def are_few(tokens: int, places: int, rank: int) -> bool:
    """Whether the product's own kernel may add what so many tokens have of so many places."""
    return tokens <= NARROW_ROWS and min(tokens, places) <= FEW_PLACES and rank <= LOW_RANK


def splits_of_few(tokens: int, inputs: int) -> int:
    """In how many parts inputs are multiplied where a product's own kernel does so."""
    wanted = max(SPLITS[0][0], inputs // (SHARE if tokens > GEMV_ROWS else LEAST_SHARE))
    return power_of_2(max(1, min(wanted, SPLITS[0][1], inputs // LEAST_SHARE)))


def power_of_2(number: int) -> int:
    """The largest that is not above."""
    return 1 << (number.bit_length() - 1)


@dataclass(frozen=True, slots=True)
class UpPart:
    """Where a part's second matrices [count, pitch] begin in a row of numbers; outputs [column, column + count)."""

    start: int
    column: int
    count: int


class LoraKernel:
    """The kernels for one linear.

    numbers: [P, row size], adapters' matrices. down: where a row has the first ones [parts, R, inputs]. ups: the second
    ones. ranks: [P, all parts] int32, of each adapter's pairs; the linear's begin at `first_part`.
    """

    def __init__(
        self,
        numbers: Tensor,
        ranks: Tensor,
        rank: int,
        inputs: int,
        down: int,
        ups: Sequence[UpPart],
        first_part: int,
    ) -> None:
        self._numbers, self._ranks = numbers, ranks
        self._rank = rank
        self._inputs = inputs
        self._down_start = down
        self._down = numbers[:, down:]
        self._ups = tuple(ups)
        self._first_part = first_part
        self._aligned = all(up.column % 16 == 0 and up.count % 16 == 0 for up in ups)
        self._block_n = 256 if sum(up.count for up in ups) >= WIDE else 128
        self._table, self._blocks = self._table_of(self._block_n)
        rows = [[first_part + at, up.start, up.column, up.count] for at, up in enumerate(ups)]
        self._parts = torch.tensor(rows, dtype=torch.int32, device=numbers.device)

    def low_rank(self, adapters: Tensor, segments: Segments) -> LowRank:
        """The same for a product's own kernel, which must be the next that is launched of these segments.

        adapters: of the segments, which have `present`.
        """
        assert segments.present is not None and segments.inner is not None
        inner, following = segments.inner[segments.turn], segments.inner[1 - segments.turn]
        segments.turn = 1 - segments.turn
        after, segments.read = segments.read, True
        return LowRank(
            *(self._numbers, self._ranks, self._parts, adapters, segments.order, segments.table, segments.present),
            *(inner, following, self._down_start, self._rank, pitch_of(self._rank), self._inputs),
            splits=splits_of_few(len(adapters), self._inputs),
            overlaps=after,
        )

    def __call__(self, x: Tensor, segments: Segments) -> Callable[[Tensor], Tensor]:
        """What adds to outputs [T, out], in place, what comes of x [T, inputs or more]; both with contiguous rows.

        The narrow half is launched now, in front of the product whose outputs those are.
        """
        tokens, parts, few = len(x), len(self._ups), segments.size == SHORT
        block_k = 256 if few and self._rank <= 32 else 64 if self._rank > 64 else 128
        together = parts if not few and parts * self._rank <= TOGETHER else 1
        splits = self._splits(tokens, block_k)
        inner = torch.empty(splits, tokens, parts * self._rank, dtype=torch.float32, device=x.device)
        pdl = overlaps(x.device)
        after, segments.read = pdl and segments.read, True
        shrink[(len(segments.table), parts // together * splits)](
            *(x, segments.order, segments.table, self._down, self._ranks, inner, tokens, self._first_part),
            *(x.stride(0), self._numbers.stride(0), self._ranks.shape[1], self._inputs),
            RANK=self._rank,
            PARTS=parts,
            TOGETHER=together,
            ROWS=max(16, triton.next_power_of_2(together * self._rank)),
            SPLITS=splits,
            BLOCK_T=segments.size,
            BLOCK_K=block_k,
            AHEAD=few,
            PDL=after,
            launch_pdl=after,
            num_warps=4,
        )
        return partial(self._expand, segments=segments, inner=inner)

    def _expand(self, out: Tensor, segments: Segments, inner: Tensor) -> Tensor:
        splits, tokens, _ = inner.shape
        pdl = overlaps(out.device)
        expand[(len(segments.table), self._blocks)](
            *(out, segments.order, segments.table, self._numbers, self._table, self._ranks, inner),
            *(tokens, self._first_part, out.stride(0), self._numbers.stride(0), self._ranks.shape[1]),
            RANK=self._rank,
            PITCH=pitch_of(self._rank),
            PARTS=len(self._ups),
            ROWS=max(16, triton.next_power_of_2(self._rank)),
            SPLITS=splits,
            BLOCK_T=segments.size,
            BLOCK_N=self._block_n,
            ALIGNED=self._aligned and out.stride(0) % 16 == 0,
            PDL=pdl,
            launch_pdl=pdl,
            num_warps=4 if segments.size == SHORT else 8,
        )
        return out

    def _splits(self, tokens: int, block_k: int) -> int:
        """In how many parts inputs are multiplied; few different numbers, as kernels are compiled for each."""
        least = next((splits for most, splits in SPLITS if tokens <= most), 1)
        wanted = max(least, self._inputs // SHARE) if tokens <= FEW else least
        most = max(1, min(wanted, -(-self._inputs // block_k), SPLITS[0][1]))
        return power_of_2(most)

    def _table_of(self, block_n: int) -> tuple[Tensor, int]:
        """Of each part: its first block, and its `UpPart`; and the number of all blocks."""
        rows, blocks = [], 0
        for up in self._ups:
            rows.append([blocks, up.start, up.column, up.count])
            blocks += -(-up.count // block_n)
        return torch.tensor(rows, dtype=torch.int32, device=self._numbers.device), blocks
