"""Both halves of low-rank products, as parts of a kernel that multiplies the same rows by its own weights.

Twin: `adapters/bank.py::LoraAddend`. The first halves are made in units, each of one segment's tokens, one part and a
share of the inputs, by the first programs of the grid: hardware starts programs in order, so that whoever waits for a
unit waits for a program that runs. Their sums need no signal: a number that is not there yet is `EMPTY`, and whoever
needs it reads until it is there; each kernel empties the place of the next one. Nothing is summed by atomic additions.
"""

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from text_generation_server.kernels.matmul.fetch import fetch, fetch_run, to_l1
from text_generation_server.kernels.matmul.low_rank import EMPTY, LowRank

_EMPTY = tl.constexpr(EMPTY)

_CLEARED = tl.constexpr(256)
"""Numbers that a program empties at a time."""

LEAST_LEADS = 32
"""Programs that make first halves, unless there are fewer units."""

UNIT_TOKENS = tl.constexpr(16)
"""Of a segment, at most."""


class Low(NamedTuple):
    """What kernels are given of a `LowRank`."""

    numbers: Any
    down: Any
    ranks: Any
    parts: Any
    adapters: Any
    order: Any
    table: Any
    present: Any
    inner: Any
    following: Any
    row_size: Any
    all_parts: Any
    following_size: Any
    RANK: Any
    ROWS: Any
    PITCH: Any
    INPUTS: Any
    PARTS: Any
    SPLITS: Any
    BLOCK_K: Any
    TOGETHER: Any


TOGETHER = 128
"""Rows of second matrices that a program multiplies by at once, from as many places as that takes."""


def given(low: LowRank) -> Low:
    """What kernels are given."""
    rows = max(16, triton.next_power_of_2(low.rank))
    together = max(1, TOGETHER // rows)
    block_k = 256 if rows <= 32 and low.inputs % (256 * low.splits) == 0 else 128
    constants = rows, low.pitch, low.inputs, len(low.parts), low.splits, block_k, together
    return Low(
        *(low.numbers, low.numbers[:, low.down :], low.ranks, low.parts, low.adapters, low.order, low.table),
        *(low.present, low.inner, low.following, low.numbers.stride(0), low.ranks.shape[1], low.following.numel()),
        *(tl.constexpr(number) for number in (low.rank, *constants)),
    )


def leads(low: LowRank, programs: int, beside: int) -> int:
    """How many programs make first halves, in front of `programs` others, `beside` of which a multiprocessor holds.

    As many as there is room for while the others run, too.
    """
    if low.numbers.device.type != "cuda":
        return 1
    multiprocessors = torch.cuda.get_device_properties(low.numbers.device).multi_processor_count
    return min(low.units, max(LEAST_LEADS, -programs % (beside * multiprocessors)))


@triton.jit
def first_halves(
    x: tl.tensor,
    x_stride: int,
    rows: int,
    low: tl.tuple,
    program: int,
    programs: int,
    STAGES: tl.constexpr,
    PIECES: tl.constexpr,
    PDL: tl.constexpr,
) -> None:
    """The units of one of so many programs, and its share of what the next kernel must find empty."""
    RANK: tl.constexpr = low.RANK.value
    ROWS: tl.constexpr = low.ROWS.value
    INPUTS: tl.constexpr = low.INPUTS.value
    PARTS: tl.constexpr = low.PARTS.value
    SPLITS: tl.constexpr = low.SPLITS.value
    BLOCK_K: tl.constexpr = low.BLOCK_K.value
    SHARE: tl.constexpr = (INPUTS + SPLITS * BLOCK_K - 1) // (SPLITS * BLOCK_K) * BLOCK_K
    if PDL:
        gdc_launch_dependents()
    units = tl.load(low.present) * (PARTS * SPLITS)
    row = tl.arange(0, ROWS)
    k = tl.arange(0, BLOCK_K)
    for unit in tl.range(program, units, programs, num_stages=1):
        split, part, segment = unit % SPLITS, unit // SPLITS % PARTS, unit // (SPLITS * PARTS)
        row_of_table, of_part = low.table + segment * 3, low.parts + part * 4
        place, start, end = tl.load(row_of_table), tl.load(row_of_table + 1), tl.load(row_of_table + 2)
        rank = tl.load(low.ranks + place * low.all_parts + tl.load(of_part))
        t = start + tl.arange(0, UNIT_TOKENS)
        token = tl.load(low.order + t, mask=t < end, other=0)
        begin, of_place = split * SHARE, place.to(tl.int64) * low.row_size
        matrix = low.down + of_place + begin + (part * RANK + tl.minimum(row, RANK - 1))[:, None] * INPUTS
        source = x + token.to(tl.int64)[:, None] * x_stride + begin
        if PDL:
            if SPLITS * SHARE == INPUTS:
                fetch(matrix, SHARE * 2, PIECES)
            count = tl.load(of_part + 3) // SPLITS * low.PITCH.value
            fetch_run(low.numbers + of_place + tl.load(of_part + 1) + split * count, count * 2, 32 * PIECES)
            gdc_wait()
        total = tl.zeros((UNIT_TOKENS, ROWS), tl.float32)
        for offset in tl.range(0, SHARE, BLOCK_K, num_stages=STAGES):
            there = offset + k < INPUTS - begin
            if SPLITS * SHARE == INPUTS:
                there = k >= 0
            weights = tl.load(matrix + offset + k[None, :], mask=(row < rank)[:, None] & there[None, :], other=0.0)
            values = tl.load(source + offset + k[None, :], mask=(t < end)[:, None] & there[None, :], other=0.0)
            total = tl.dot(values, weights.T, total)
        bits = total.to(tl.int32, bitcast=True)
        bits = tl.where(bits == _EMPTY, 0x7FFFFFFF, bits)
        target = low.inner + ((split * rows + token) * PARTS + part)[:, None] * RANK + row[None, :]
        tl.store(target, bits, mask=(t < end)[:, None] & (row < RANK)[None, :])
    if PDL:
        gdc_wait()
    place = tl.arange(0, _CLEARED)
    for start in range(program * _CLEARED, low.following_size, programs * _CLEARED):
        there = start + place < low.following_size
        tl.store(low.following + start + place, tl.full((_CLEARED,), _EMPTY, tl.int32), mask=there)


@triton.jit
def _sums_so_far(place: tl.tensor, held: tl.tensor, stride: int, SPLITS: tl.constexpr) -> tuple[tl.tensor, tl.tensor]:
    """Over splits, and whether any is still to come."""
    total, empty = tl.zeros(place.shape, tl.float32), tl.zeros(place.shape, tl.int32)
    for split in tl.static_range(SPLITS):
        bits = tl.load(place + split * stride, mask=held, other=0, volatile=True)
        empty |= (bits == _EMPTY).to(tl.int32)
        total += bits.to(tl.float32, bitcast=True)
    return total, tl.max(empty)


@triton.jit
def arrived_sums(place: tl.tensor, held: tl.tensor, stride: int, SPLITS: tl.constexpr) -> tl.tensor:
    """The sums over splits of what is or comes to be at these places, where held."""
    total, missing = _sums_so_far(place, held, stride, SPLITS)
    if missing > 0:
        while missing > 0:  # of which no tensor may be a result, or Triton 3.6 fails
            missing = _sums_so_far(place, held, stride, SPLITS)[1]
        total = _sums_so_far(place, held, stride, SPLITS)[0]
    return total


@triton.jit
def _second(
    low: tl.tuple, start: int, n: tl.tensor, mine: tl.tensor, at: int, last: int, column: tl.tensor
) -> tl.tensor:
    """Second matrices [n, columns] of the places from `at` on, one beside the other."""
    ROWS: tl.constexpr = low.ROWS.value
    slot, r = at + column // ROWS, column % ROWS
    place = tl.max_constancy(tl.load(low.present + 2 + slot, mask=slot < last, other=0), [ROWS])
    there = tl.max_constancy((slot < last) & (r // 8 * 8 < low.PITCH.value), [8])
    matrix = low.numbers + (place.to(tl.int64) * low.row_size + start + r)[None, :] + n[:, None] * low.PITCH.value
    return tl.load(matrix, mask=mine[:, None] & there[None, :], other=0.0)


@triton.jit
def second_halves(
    total: tl.tensor,
    of_w: tl.tensor,
    m: tl.tensor,
    rows: int,
    low: tl.tuple,
    share: int,
    dtype: tl.constexpr,
    SHARES: tl.constexpr,
    SWAPPED: tl.constexpr,
) -> tl.tensor:
    """Sums [m, n], SWAPPED [n, m], with those of a program that has one of SHARES of the places present.

    of_w: [n], which outputs.
    """
    RANK: tl.constexpr = low.RANK.value
    ROWS: tl.constexpr = low.ROWS.value
    PARTS: tl.constexpr = low.PARTS.value
    TOGETHER: tl.constexpr = low.TOGETHER.value
    COLUMNS: tl.constexpr = TOGETHER * ROWS
    r, column = tl.arange(0, ROWS), tl.arange(0, COLUMNS)
    of_row = tl.load(low.adapters + m, mask=m < rows, other=0).to(tl.int32) - 1
    first, places = share * TOGETHER, tl.load(low.present + 1)
    for part in tl.range(0, PARTS, num_stages=1):
        start = tl.multiple_of(tl.load(low.parts + part * 4 + 1), 64)
        n = of_w - tl.load(low.parts + part * 4 + 2)
        mine = (n >= 0) & (n < tl.load(low.parts + part * 4 + 3))
        last = tl.where(tl.max(mine.to(tl.int32), 0) > 0, places, 0)
        if first < last:
            ups = _second(low, start, n, mine, first, last, column)
            source = low.inner + m[:, None] * (PARTS * RANK) + part * RANK + r[None, :]
            held = (of_row >= 0)[:, None] & (r < RANK)[None, :]
            inner = arrived_sums(source, held, rows * (PARTS * RANK), low.SPLITS.value).to(dtype)
            spread = tl.reshape(tl.broadcast_to(inner[:, None, :], (m.shape[0], TOGETHER, ROWS)), (m.shape[0], COLUMNS))
            for at in tl.range(first, last, SHARES * TOGETHER, num_stages=1):
                following = _second(low, start, n, mine, at + SHARES * TOGETHER, last, column)
                slot = at + column // ROWS
                place = tl.load(low.present + 2 + slot, mask=slot < last, other=-2)
                own = tl.where(of_row[:, None] == place[None, :], spread, 0.0)
                total = tl.dot(ups, own.T, total) if SWAPPED else tl.dot(own, ups.T, total)
                ups = following
    return total


@triton.jit
def near(low: tl.tuple, m: tl.tensor, rows: int) -> None:
    """Let what `second_halves` reads first be near."""
    to_l1(low.adapters + tl.minimum(m, rows - 1))
    to_l1(low.present + tl.arange(0, 32))
    to_l1(low.parts + tl.arange(0, 4))


@triton.jit
def own_ups(of_w: tl.tensor, m: tl.tensor, rows: int, low: tl.tuple) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """For sums [m, n] of few rows: each one's second matrix [m, n, r]; where factors [m, n, splits, r] are, if held.

    May be called before the kernel in front has ended.
    """
    RANK: tl.constexpr = low.RANK.value
    ROWS: tl.constexpr = low.ROWS.value
    PARTS: tl.constexpr = low.PARTS.value
    SPLITS: tl.constexpr = low.SPLITS.value
    r = tl.arange(0, ROWS)[None, None, :]
    place = tl.load(low.adapters + m, mask=m < rows, other=0)[:, None] - 1
    part, start, n = tl.zeros_like(of_w) - 1, tl.zeros_like(of_w), of_w
    for other in tl.static_range(PARTS):
        column = of_w - tl.load(low.parts + other * 4 + 2)
        mine = (column >= 0) & (column < tl.load(low.parts + other * 4 + 3))
        part, n = tl.where(mine, other, part), tl.where(mine, column, n)
        start = tl.where(mine, tl.load(low.parts + other * 4 + 1), start)
    there = ((place >= 0) & (part >= 0)[None, :])[:, :, None]
    matrix = place * low.row_size + tl.multiple_of(start + n * low.PITCH.value, [8])[None, :]
    ups = tl.load(low.numbers + matrix[:, :, None] + r, mask=there & (r // 8 * 8 < low.PITCH.value), other=0.0)
    split = tl.arange(0, SPLITS)[None, None, :, None] * rows * (PARTS * RANK)
    source = low.inner + ((m[:, None] * PARTS + part[None, :])[:, :, None] * RANK + r)[:, :, None, :] + split
    return ups, source, (there & (r < RANK))[:, :, None, :]


@triton.jit
def own_sums(ups: tl.tensor, bits: tl.tensor, source: tl.tensor, held: tl.tensor) -> tl.tensor:
    """Sums [m, n] of what `own_ups` found. bits: of the factors, as far as they had come."""
    missing = tl.max((bits == _EMPTY).to(tl.int32))
    if missing > 0:
        bits = arrived_sums(source, held, 0, 1).to(tl.int32, bitcast=True)
    return tl.sum(tl.sum(bits.to(tl.float32, bitcast=True), 2) * ups.to(tl.float32), 2)
