"""Adds to the outputs of a linear what each token's own adapter makes of its inputs: y += up[a] · (down[a] · x).

Twin: `adapters/bank.py::LoraAddend`. Tokens are put in order of their adapters once a step; a program then multiplies
by the matrices of one adapter for a block of its tokens. What is read are the matrices of adapters that are there, as
far as their ranks go; tokens without adapter are nobody's. Everything is found on the device, so that a recorded step
serves every mixture. No sum is made by atomic additions: equal inputs give equal results.

What a step's tokens have, and the matrices, are read while the kernel in front still runs: the step's first kernel that
reads them starts when all before it have ended, and so every later one after that.

Dimensions: T tokens, P places, K inputs, R the rank that places are made for.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from text_generation_server.kernels.dependent_launch import overlaps

FEW = 256
"""Tokens up to which blocks are small: each has few of an adapter's."""

COMPARED = 128
"""Tokens up to which one program orders them, by comparing each with each."""

WIDE = 8192
"""Outputs of a linear from which a program has 256 of them, else 128."""

SPLITS = ((4, 16), (FEW, 4), (1024, 4))
"""Up to so many tokens, at least so many parts of the inputs: programs that share the work of few blocks."""

SHARE = 1024
"""Inputs of a program where tokens are few, unless that makes fewer parts."""


@dataclass(slots=True)
class Segments:
    """Which tokens have which adapter.

    order: [T] int32, tokens by adapter, those without last.
    table: [S, 3] int32, of each adapter that is there its place, from 0, and where its tokens begin and end in `order`;
    then rows without tokens. S is the smaller of T and P.
    read: whether a kernel that reads them has been launched.
    """

    order: Tensor
    table: Tensor
    read: bool = False


@triton.jit(do_not_specialize=["tokens", "places", "most"])
def _segments(
    adapters: tl.tensor,
    order: tl.tensor,
    table: tl.tensor,
    tokens: int,
    places: int,
    most: int,
    T_BLOCK: tl.constexpr,
    P_BLOCK: tl.constexpr,
    PDL: tl.constexpr,
) -> None:
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    t = tl.arange(0, T_BLOCK)
    mine = tl.load(adapters + t, mask=t < tokens, other=0).to(tl.int32)
    mine = tl.where(mine == 0, places + 1, mine)
    before = (mine[None, :] < mine[:, None]) | ((mine[None, :] == mine[:, None]) & (t[None, :] < t[:, None]))
    tl.store(order + tl.sum(before.to(tl.int32), 1), t, mask=t < tokens)
    p = 1 + tl.arange(0, P_BLOCK)
    first = tl.sum((mine[None, :] < p[:, None]).to(tl.int32), 1)
    end = tl.sum((mine[None, :] <= p[:, None]).to(tl.int32), 1)
    there = ((end > first) & (p <= places)).to(tl.int32)
    row = table + (tl.cumsum(there, 0) - 1) * 3
    tl.store(row, p - 1, mask=there > 0)
    tl.store(row + 1, first, mask=there > 0)
    tl.store(row + 2, end, mask=there > 0)
    empty = (p > tl.sum(there, 0)) & (p <= most)
    rest = table + (p - 1) * 3
    for field in tl.static_range(3):
        tl.store(rest + field, tl.zeros_like(p), mask=empty)


def segments_of(adapters: Tensor, places: int) -> Segments:
    """The segments of a step. adapters: [T] int64, the place of each token's adapter, from 1; 0 for none."""
    tokens, device = len(adapters), adapters.device
    most = min(tokens, places)
    if tokens > COMPARED:
        return _sorted_segments(adapters, places, most)
    order = torch.empty(tokens, dtype=torch.int32, device=device)
    table = torch.empty(most, 3, dtype=torch.int32, device=device)
    pdl = overlaps(device)
    _segments[(1,)](
        *(adapters, order, table, tokens, places, most),
        T_BLOCK=triton.next_power_of_2(tokens),
        P_BLOCK=triton.next_power_of_2(places),
        PDL=pdl,
        launch_pdl=pdl,
        num_warps=8,
    )
    return Segments(order, table)


def _sorted_segments(adapters: Tensor, places: int, most: int) -> Segments:
    """The same of many tokens."""
    last = torch.where(adapters == 0, places + 1, adapters)
    ordered, order = last.sort(stable=True)
    numbers = torch.arange(1, places + 2, device=adapters.device)
    bounds = torch.searchsorted(ordered, numbers)
    first, end = bounds[:-1], bounds[1:]
    there = end > first
    # Those that are not there all go to a row of their own, behind the others.
    at = torch.where(there, there.cumsum(0) - 1, most)
    table = torch.zeros(most + 1, 3, dtype=torch.int32, device=adapters.device)
    found = torch.stack((numbers[:-1] - 1, first, end), 1).to(torch.int32)
    table[at] = found * there[:, None]
    return Segments(order.to(torch.int32), table[:most])


@triton.jit(do_not_specialize=["tokens", "first_part"])
def _shrink(
    x: tl.tensor,
    order: tl.tensor,
    table: tl.tensor,
    down: tl.tensor,
    ranks: tl.tensor,
    inner: tl.tensor,
    tokens: int,
    first_part: int,
    x_stride: int,
    row_size: int,
    part_size: int,
    all_parts: int,
    inputs: int,
    RANK: tl.constexpr,
    PARTS: tl.constexpr,
    SPLITS: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PDL: tl.constexpr,
) -> None:
    part, split = tl.program_id(1) % PARTS, tl.program_id(1) // PARTS
    if PDL:
        gdc_launch_dependents()
    segment = table + tl.program_id(0) * 3
    place = tl.load(segment).to(tl.int64)
    end = tl.load(segment + 2)
    start = tl.load(segment + 1) + tl.program_id(2) * BLOCK_T
    rank = tl.load(ranks + place * all_parts + first_part + part)
    end = tl.where(rank > 0, end, start)
    r, k = tl.arange(0, RANK), tl.arange(0, BLOCK_K)
    matrix = down + place * row_size + part * part_size + r[:, None] * inputs
    if PDL:
        gdc_wait()
    while start < end:
        t = start + tl.arange(0, BLOCK_T)
        token = tl.load(order + t, mask=t < end, other=0).to(tl.int64)
        values_of = x + token[:, None] * x_stride
        total = tl.zeros((BLOCK_T, RANK), tl.float32)
        for chunk in range(split * BLOCK_K, inputs, SPLITS * BLOCK_K):
            held = (chunk + k < inputs)[None, :]
            values = tl.load(values_of + chunk + k[None, :], mask=(t < end)[:, None] & held, other=0.0)
            weights = tl.load(matrix + chunk + k[None, :], mask=(r < rank)[:, None] & held, other=0.0)
            total = tl.dot(values, weights.T, total, input_precision="ieee")
        target = inner + ((split * PARTS + part) * tokens + t)[:, None] * RANK + r[None, :]
        tl.store(target, total, mask=(t < end)[:, None])
        start += tl.num_programs(2) * BLOCK_T


@triton.jit(do_not_specialize=["tokens", "first_part"])
def _expand(
    out: tl.tensor,
    order: tl.tensor,
    table: tl.tensor,
    numbers: tl.tensor,
    ups: tl.tensor,
    ranks: tl.tensor,
    inner: tl.tensor,
    tokens: int,
    first_part: int,
    out_stride: int,
    row_size: int,
    all_parts: int,
    RANK: tl.constexpr,
    PARTS: tl.constexpr,
    SPLITS: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_N: tl.constexpr,
    ALIGNED: tl.constexpr,
    PDL: tl.constexpr,
) -> None:
    if PDL:
        gdc_launch_dependents()
    block = tl.program_id(1)
    part = 0
    for other in tl.static_range(1, PARTS):
        part += (block >= tl.load(ups + other * 4)).to(tl.int32)
    up = tl.multiple_of(tl.load(ups + part * 4 + 1), 16)
    column, count = tl.load(ups + part * 4 + 2), tl.load(ups + part * 4 + 3)
    if ALIGNED:
        column, count = tl.multiple_of(column, 16), tl.multiple_of(count, 16)
    n = (block - tl.load(ups + part * 4)) * BLOCK_N + tl.arange(0, BLOCK_N)
    segment = table + tl.program_id(0) * 3
    place = tl.load(segment).to(tl.int64)
    end = tl.load(segment + 2)
    start = tl.load(segment + 1) + tl.program_id(2) * BLOCK_T
    rank = tl.load(ranks + place * all_parts + first_part + part)
    end = tl.where(rank > 0, end, start)
    r = tl.arange(0, RANK)
    matrix = numbers + place * row_size + up + r[:, None] * count + n[None, :]
    weights = tl.load(matrix, mask=(start < end) & (r < rank)[:, None] & (n < count)[None, :], other=0.0)
    if PDL:
        gdc_wait()
    while start < end:
        t = start + tl.arange(0, BLOCK_T)
        held = (t < end)[:, None]
        token = tl.load(order + t, mask=t < end, other=0).to(tl.int64)
        total = tl.zeros((BLOCK_T, RANK), tl.float32)
        for split in tl.static_range(SPLITS):
            source = inner + ((split * PARTS + part) * tokens + t)[:, None] * RANK + r[None, :]
            total += tl.load(source, mask=held, other=0.0)
        added = tl.dot(total.to(weights.dtype), weights, input_precision="ieee")
        target = out + token[:, None] * out_stride + column + n[None, :]
        held = held & (n < count)[None, :]
        tl.store(target, (tl.load(target, mask=held, other=0.0).to(tl.float32) + added).to(out.dtype.element_ty), held)
        start += tl.num_programs(2) * BLOCK_T


@dataclass(frozen=True, slots=True)
class UpPart:
    """Where a part's second matrices [R, count] begin in a row of numbers, and the outputs [column, column + count)."""

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
        self._down = numbers[:, down:]
        self._ups = tuple(ups)
        self._first_part = first_part
        self._aligned = all(up.column % 16 == 0 and up.count % 16 == 0 for up in ups)
        self._block_n = 256 if sum(up.count for up in ups) >= WIDE else 128
        self._table, self._blocks = self._table_of(self._block_n)

    def __call__(self, out: Tensor, x: Tensor, segments: Segments) -> Tensor:
        """Add to `out` [T, outputs], in place, what comes of x [T, inputs or more]; both with contiguous rows."""
        tokens, few = len(x), len(x) <= FEW
        block_t = 16 if few else 64
        block_k = 256 if few and self._rank <= 32 else 64 if self._rank > 64 else 128
        block_rank = max(16, triton.next_power_of_2(self._rank))
        count, parts = len(segments.table), len(self._ups)
        chunks = min(triton.cdiv(tokens, block_t), 4 if few else 64)
        splits = self._splits(tokens, block_k)
        inner = torch.empty(splits, parts, tokens, block_rank, dtype=torch.float32, device=x.device)
        pdl = overlaps(x.device)
        after, segments.read = pdl and segments.read, True
        order, table, places = segments.order, segments.table, self._ranks.shape[1]
        _shrink[(count, parts * splits, chunks)](
            *(x, order, table, self._down, self._ranks, inner, tokens, self._first_part),
            *(x.stride(0), self._numbers.stride(0), self._rank * self._inputs, places, self._inputs),
            RANK=block_rank,
            PARTS=parts,
            SPLITS=splits,
            BLOCK_T=block_t,
            BLOCK_K=block_k,
            PDL=after,
            launch_pdl=after,
            num_warps=4,
        )
        _expand[(count, self._blocks, chunks)](
            *(out, order, table, self._numbers, self._table, self._ranks, inner, tokens, self._first_part),
            *(out.stride(0), self._numbers.stride(0), places),
            RANK=block_rank,
            PARTS=parts,
            SPLITS=splits,
            BLOCK_T=block_t,
            BLOCK_N=self._block_n,
            ALIGNED=self._aligned and out.stride(0) % 16 == 0,
            PDL=pdl,
            launch_pdl=pdl,
            num_warps=4 if few else 8,
        )
        return out

    def _splits(self, tokens: int, block_k: int) -> int:
        """In how many parts inputs are multiplied; few different numbers, as kernels are compiled for each."""
        least = next((splits for most, splits in SPLITS if tokens <= most), 1)
        wanted = max(least, self._inputs // SHARE) if tokens <= FEW else least
        most = min(wanted, -(-self._inputs // block_k), SPLITS[0][1])
        return int(1 << (most.bit_length() - 1))

    def _table_of(self, block_n: int) -> tuple[Tensor, int]:
        """Of each part: its first block, and its `UpPart`; and the number of all blocks."""
        rows, blocks = [], 0
        for up in self._ups:
            rows.append([blocks, up.start, up.column, up.count])
            blocks += -(-up.count // block_n)
        return torch.tensor(rows, dtype=torch.int32, device=self._numbers.device), blocks
