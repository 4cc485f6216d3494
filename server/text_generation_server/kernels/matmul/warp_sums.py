"""Sums of rows times weights of 4 bits where each warp takes units of its own: a program's loop. Knows no launch.

Weights go from the memory to the registers that tensor cores multiply from, with a shift and a mask for two of them in
between, and warps wait for nothing of each other's. Codes are multiplied with what their numbers have on top, and their
zeros, still in them: as that is the same for all codes of a group, it is multiplied once for all of a tile, or all
tiles, and is what sums begin with.

A program's outputs are tiles of 16, as tensor cores take them, each with sums of its own.
"""

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from text_generation_server.kernels.matmul.gemv import no_tensors, one_more
from text_generation_server.kernels.matmul.packed_tile import bytes_of_table, of_four_bits

TILE = tl.constexpr(16)
"""Outputs that tensor cores take at a time."""


@triton.jit
def _of_groups(values: tl.tensor, place: tl.tensor, stride: int, PARTS: tl.constexpr) -> tl.tensor:
    """Scales or zeros [PARTS · S, 16] float32; place [S, 16]: of the units' first groups."""
    found = tl.load(values + place)
    if PARTS >= 2:
        found = tl.join(found, tl.load(values + place + (PARTS // 2) * stride))
    if PARTS == 4:
        odd = tl.join(tl.load(values + place + stride), tl.load(values + place + 3 * stride))
        found = tl.permute(tl.join(found, odd), (2, 3, 0, 1))
    elif PARTS == 2:
        found = tl.permute(found, (2, 0, 1))
    return tl.reshape(found, (PARTS * place.shape[0], place.shape[1])).to(tl.float32)


@triton.jit
def _numbers(
    words: tl.tensor,
    table: tl.tensor,
    in_bytes: tl.tuple,
    dtype: tl.constexpr,
    PARTS: tl.constexpr,
    PAIRS: tl.constexpr,
) -> tl.tensor:
    """Words [2, S, 8, 32] of 16 outputs in S units to [PARTS · S, 16, 128 / PARTS], see `_values`."""
    S: tl.constexpr = words.shape[1]
    numbers = of_four_bits(tl.reshape(words, (TILE * S, 4, 4, 2)), table, in_bytes, dtype, PAIRS, False)
    numbers = tl.reshape(numbers, (2, S, 8, 4, PARTS, 4 // PARTS, 2, 2, 2))
    if table is None:
        numbers = tl.permute(numbers, (4, 1, 0, 2, 5, 6, 7, 3, 8))
    else:
        numbers = tl.permute(numbers, (4, 1, 0, 2, 5, 6, 3, 7, 8))
    return tl.reshape(numbers, (PARTS * S, TILE, 128 // PARTS))


@triton.jit
def _values(values: tl.tensor, table: tl.tensor, PARTS: tl.constexpr) -> tl.tensor:
    """Rows [S, M, 128] to [PARTS · S, 128 / PARTS, M].

    With a table the inputs of a part are in the order in which Triton multiplies what was put together in threads.
    """
    S: tl.constexpr = values.shape[0]
    M: tl.constexpr = values.shape[1]
    values = tl.reshape(values, (S, M, PARTS, 4 // PARTS, 2, 2, 4, 2))
    if table is None:
        values = tl.permute(values, (2, 0, 3, 4, 5, 6, 7, 1))
    else:
        values = tl.permute(values, (2, 0, 3, 4, 6, 5, 7, 1))
    return tl.reshape(values, (PARTS * S, 128 // PARTS, M))


@triton.jit
def tile_starts(block: tl.tensor, outputs: int, TILES: tl.constexpr, KIND: tl.constexpr) -> tl.tuple:
    """The first rows of weights of a program's tiles: with gates these come first, then what they let through.

    A tile that would reach over the last row is moved to before it: others compute some of its outputs too, to the
    same.
    """
    OUTPUTS: tl.constexpr = TILES if KIND is None else TILES // 2
    starts = no_tensors()
    for at in tl.static_range(TILES):
        start = tl.minimum((block * OUTPUTS + at % OUTPUTS) * TILE, outputs - TILE) + at // OUTPUTS * outputs
        starts = one_more(starts, start)
    return starts


@triton.jit
def _of_tiles(
    values: tl.tensor,
    starts: tl.tuple,
    unit: tl.tensor,
    group_stride: int,
    PARTS: tl.constexpr,
    TILES: tl.constexpr,
) -> tl.tuple:
    """Scales or zeros of each tile's units [S]."""
    found = no_tensors()
    for at in tl.static_range(TILES):
        place = (unit * PARTS * group_stride)[:, None] + starts[at] + tl.arange(0, TILE)[None, :]
        found = one_more(found, _of_groups(values, place, group_stride, PARTS))
    return found


@triton.jit
def sums_of_warps(
    x: tl.tensor,
    words: tl.tensor,
    scales: tl.tensor,
    zeros: tl.tensor,
    table: tl.tensor,
    starts: tl.tuple,
    first: tl.tensor,
    last: tl.tensor,
    x_stride: int,
    rows: int,
    inputs: int,
    units: int,
    unit_stride: int,
    group_stride: int,
    dtype: tl.constexpr,
    TAIL: tl.constexpr,
    UNEVEN: tl.constexpr,
    PARTS: tl.constexpr,
    ZERO: tl.constexpr,
    MAGIC: tl.constexpr,
    BLOCK_M: tl.constexpr,
    TILES: tl.constexpr,
    WARPS: tl.constexpr,
    STAGES: tl.constexpr,
    PAIRS: tl.constexpr,
    MINIMA: tl.constexpr,
    PDL: tl.constexpr,
) -> tl.tuple:
    """[16, BLOCK_M] float32 of each tile, over units from WARPS · first to before WARPS · last."""
    UNIT: tl.constexpr = 128
    WIDTH: tl.constexpr = 32
    SHIFTED: tl.constexpr = zeros is not None or MAGIC + ZERO != 0
    warp, m = tl.arange(0, WARPS), tl.arange(0, BLOCK_M)
    half, eighth, word, k = tl.arange(0, 2), tl.arange(0, 8), tl.arange(0, WIDTH), tl.arange(0, UNIT)
    row_of_w = words + half[:, None, None, None] * (8 * WIDTH) + eighth[None, None, :, None] * WIDTH
    row_of_w += (warp * (0 if UNEVEN else unit_stride))[None, :, None, None] + word[None, None, None, :]
    row_of_x = x + (m * x_stride)[None, :, None] + k[None, None, :]
    row_of_x += (warp * (0 if UNEVEN else UNIT))[:, None, None]
    in_bytes = bytes_of_table(table if PAIRS else None, rows)
    on_top = tl.full((PARTS * WARPS, TILE, UNIT // PARTS), -MAGIC - ZERO if zeros is None else 1, dtype)
    totals = no_tensors()
    for _ in tl.static_range(TILES):
        totals = one_more(totals, tl.zeros((PARTS * WARPS, TILE, BLOCK_M), tl.float32))
    unit = tl.minimum(first * WARPS + warp, units - 1)
    scale = _of_tiles(scales, starts, unit, group_stride, PARTS, TILES)
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    for step in tl.range(first, last, num_stages=STAGES):
        unit = step * WARPS + warp
        following = tl.minimum(step + 1, last - 1) * WARPS + warp
        held = (m < rows)[None, :, None]
        if TAIL:
            held &= unit[:, None, None] * UNIT + k[None, None, :] < inputs
        elif UNEVEN:
            held &= (unit < units)[:, None, None]
        if UNEVEN:
            unit = tl.minimum(unit, units - 1)
            following = tl.minimum(following, units - 1)
            row_of_unit = row_of_w + (unit * unit_stride)[None, :, None, None]
            row_of_values = row_of_x + (unit * UNIT)[:, None, None]
        else:
            row_of_unit = row_of_w + step * WARPS * unit_stride
            row_of_values = row_of_x + step * WARPS * UNIT
        values = _values(tl.load(row_of_values, mask=held, other=0.0), table, PARTS)
        before = tl.zeros((PARTS * WARPS, TILE, BLOCK_M), tl.float32)
        if SHIFTED:
            before = tl.dot(on_top, values)
        more = no_tensors()
        next_scale = _of_tiles(scales, starts, following, group_stride, PARTS, TILES)
        if zeros is not None:
            zero = _of_tiles(zeros, starts, unit, group_stride, PARTS, TILES)
        for at in tl.static_range(TILES):
            packed = tl.load(row_of_unit + starts[at] * WIDTH, eviction_policy="evict_first")
            numbers = _numbers(packed, table, in_bytes, dtype, PARTS, PAIRS)
            begin = before
            if MINIMA:
                begin *= -MAGIC - ZERO
            elif zeros is not None:
                begin *= (-MAGIC - zero[at])[:, :, None]
            total = totals[at] + tl.dot(numbers, values, begin) * scale[at][:, :, None]
            if MINIMA:
                total -= before * zero[at][:, :, None]
            more = one_more(more, total)
        totals = more
        scale = next_scale
    sums = no_tensors()
    for at in tl.static_range(TILES):
        sums = one_more(sums, tl.sum(totals[at], 0))
    return sums
