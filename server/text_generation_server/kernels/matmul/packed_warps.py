"""Up to 32 rows times weights of 4 bits: each warp of a program takes units of its own, for all of its outputs.

Twin: `packed.multiply`, and `gated_activation` of it. So weights go from the memory to the registers from which tensor
cores multiply, with one instruction for a shift and one for a mask in between, and warps meet once, at the end. Codes
are multiplied with an offset that their numbers have, and their zeros, still in them: it is the same for all codes of a
group, so its product with the rows, for all outputs at once, is what sums begin with. Programs share inputs, and wait
for kernels, as in `dot`.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from text_generation_server.kernels.dependent_launch import overlaps
from text_generation_server.kernels.matmul.config import KernelConfig
from text_generation_server.kernels.matmul.dot import fetch
from text_generation_server.kernels.matmul.gate import let_through
from text_generation_server.kernels.matmul.gemv import no_tensors, one_more
from text_generation_server.kernels.matmul.packed import PackedWeight
from text_generation_server.kernels.matmul.packed_tile import bytes_of_table, constants, of_four_bits
from text_generation_server.specs.activation import Activation

BYTES_AHEAD = 1 << 15
"""Of weights, that a program asks for before it waits."""

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
        found = tl.join(found, odd)  # [S, 16, half, which of it]
        found = tl.permute(found, (2, 3, 0, 1))
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
def _tile_start(block: tl.tensor, at: tl.constexpr, outputs: int, TILES: tl.constexpr, KIND: tl.constexpr) -> tl.tensor:
    """The first row of weights of a program's tile: with gates these come first, then what they let through.

    What would reach over the last row is moved to before it: outputs that others compute too, to the same.
    """
    if KIND is None:
        start = tl.minimum((block * TILES + at) * TILE, outputs - TILE)
    else:
        half: tl.constexpr = TILES // 2
        start = tl.minimum((block * half + at % half) * TILE, outputs - TILE) + at // half * outputs
    return start


@triton.jit(do_not_specialize=["rows", "units", "group_stride", "splits"])
def _packed_warps(
    x: tl.tensor,
    words: tl.tensor,
    scales: tl.tensor,
    zeros: tl.tensor,
    table: tl.tensor,
    bias: tl.tensor,
    y: tl.tensor,
    parts: tl.tensor,
    arrived: tl.tensor,
    x_stride: int,
    rows: int,
    outputs: int,
    inputs: int,
    units: int,
    unit_stride: int,
    group_stride: int,
    splits: int,
    TAIL: tl.constexpr,
    UNEVEN: tl.constexpr,
    PARTS: tl.constexpr,
    ZERO: tl.constexpr,
    MAGIC: tl.constexpr,
    SPLIT: tl.constexpr,
    BLOCK_M: tl.constexpr,
    TILES: tl.constexpr,
    WARPS: tl.constexpr,
    STAGES: tl.constexpr,
    AHEAD: tl.constexpr,
    KIND: tl.constexpr,
    PAIRS: tl.constexpr,
    PDL: tl.constexpr,
) -> None:
    UNIT: tl.constexpr = 128
    WIDTH: tl.constexpr = 32
    dtype: tl.constexpr = y.dtype.element_ty
    block = tl.program_id(0)
    steps = (units + WARPS - 1) // WARPS
    first = tl.program_id(1) * steps // splits
    last = (tl.program_id(1) + 1) * steps // splits
    warp, n, m = tl.arange(0, WARPS), tl.arange(0, TILE), tl.arange(0, BLOCK_M)
    half, eighth, word = tl.arange(0, 2), tl.arange(0, 8), tl.arange(0, WIDTH)
    of_w = (half * 8)[:, None, None, None] * WIDTH + eighth[None, None, :, None] * WIDTH + word[None, None, None, :]
    of_x = (m * x_stride)[None, :, None] + tl.arange(0, UNIT)[None, None, :]
    if not UNEVEN:
        of_w += (warp * unit_stride)[None, :, None, None]
        of_x += (warp * UNIT)[:, None, None]
    row_of_w = words + of_w
    row_of_x = x + of_x
    if PDL:
        for at in tl.static_range(0, TILES, TILES if KIND is None else TILES // 2):
            ahead = tl.minimum(first * WARPS + tl.arange(0, AHEAD), tl.minimum(last * WARPS, units) - 1) * unit_stride
            start = _tile_start(block, at, outputs, TILES, KIND) * WIDTH
            fetch(words + start + ahead[:, None], 2 * WIDTH * TILE * (TILES if KIND is None else TILES // 2), 1)
        gdc_launch_dependents()
        gdc_wait()
    in_bytes = bytes_of_table(table if PAIRS else None, rows)
    totals = no_tensors()
    scale = no_tensors()
    unit = first * WARPS + warp
    if UNEVEN:
        unit = tl.minimum(unit, units - 1)
    for at in tl.static_range(TILES):
        totals = one_more(totals, tl.zeros((PARTS * WARPS, TILE, BLOCK_M), tl.float32))
        of_scale = (unit * PARTS * group_stride)[:, None] + _tile_start(block, at, outputs, TILES, KIND) + n[None, :]
        scale = one_more(scale, _of_groups(scales, of_scale, group_stride, PARTS))
    begin = tl.full((PARTS * WARPS, TILE, UNIT // PARTS), -MAGIC - ZERO if zeros is None else 1, dtype)
    for step in tl.range(first, last, num_stages=STAGES):
        unit = step * WARPS + warp
        held = (m < rows)[None, :, None]
        if TAIL:
            place = unit[:, None, None] * UNIT + tl.arange(0, UNIT)[None, None, :]
            held &= place < inputs
        elif UNEVEN:
            held &= (unit < units)[:, None, None]
        following = tl.minimum(step + 1, last - 1) * WARPS + warp
        if UNEVEN:
            unit = tl.minimum(unit, units - 1)
            following = tl.minimum(following, units - 1)
            row_of_unit = row_of_w + (unit * unit_stride)[None, :, None, None]
            row_of_values = row_of_x + (unit * UNIT)[:, None, None]
        else:
            row_of_unit = row_of_w + step * WARPS * unit_stride
            row_of_values = row_of_x + step * WARPS * UNIT
        values = _values(tl.load(row_of_values, mask=held, other=0.0), table, PARTS)
        if zeros is not None or MAGIC + ZERO != 0:
            offsets = tl.dot(begin, values)
        sums_so_far = no_tensors()
        next_scale = no_tensors()
        for at in tl.static_range(TILES):
            start = _tile_start(block, at, outputs, TILES, KIND)
            of_next = (following * PARTS * group_stride)[:, None] + start + n[None, :]
            next_scale = one_more(next_scale, _of_groups(scales, of_next, group_stride, PARTS))
            packed = tl.load(row_of_unit + start * WIDTH, eviction_policy="evict_first")
            numbers = _numbers(packed, table, in_bytes, dtype, PARTS, PAIRS)
            if zeros is not None:
                of_zero = (unit * PARTS * group_stride)[:, None] + start + n[None, :]
                zero = _of_groups(zeros, of_zero, group_stride, PARTS)
                sums = tl.dot(numbers, values, offsets * (-MAGIC - zero)[:, :, None])
            elif MAGIC + ZERO != 0:
                sums = tl.dot(numbers, values, offsets)
            else:
                sums = tl.dot(numbers, values)
            sums_so_far = one_more(sums_so_far, totals[at] + sums * scale[at][:, :, None])
        totals = sums_so_far
        scale = next_scale
    sums = no_tensors()
    for at in tl.static_range(TILES):
        sums = one_more(sums, tl.sum(totals[at], 0))
    held = (m < rows)[None, :] & (n >= 0)[:, None]
    if SPLIT:
        size: tl.constexpr = TILES * TILE * BLOCK_M
        own = parts + block.to(tl.int64) * splits * size + n[:, None] * BLOCK_M + m[None, :]
        for at in tl.static_range(TILES):
            tl.store(own + tl.program_id(1) * size + at * TILE * BLOCK_M, sums[at], mask=held)
        tl.debug_barrier()
        is_last = tl.atomic_add(arrived + block, 1, sem="acq_rel") == splits - 1
        tl.debug_barrier()
        if is_last:
            tl.store(arrived + block, 0)
        held &= is_last
        sums = no_tensors()
        for _ in tl.static_range(TILES):
            sums = one_more(sums, tl.zeros((TILE, BLOCK_M), tl.float32))
        for split in range(splits):
            more = no_tensors()
            for at in tl.static_range(TILES):
                part = own + split * size + at * TILE * BLOCK_M
                more = one_more(more, sums[at] + tl.load(part, mask=held, other=0.0, cache_modifier=".cg"))
            sums = more
    if bias is not None:
        biased = no_tensors()
        for at in tl.static_range(TILES):
            added = tl.load(bias + _tile_start(block, at, outputs, TILES, KIND) + n).to(tl.float32)
            biased = one_more(biased, sums[at] + added[:, None])
        sums = biased
    for at in tl.static_range(TILES if KIND is None else TILES // 2):
        result = sums[at]
        if KIND is not None:
            result = let_through(result, sums[at + TILES // 2], dtype, KIND)
        start = _tile_start(block, at, outputs, TILES, KIND)
        tl.store(y + m[None, :] * outputs + start + n[:, None], result.to(dtype), mask=held)


def packed_warps(
    x: Tensor,
    weight: PackedWeight,
    bias: Tensor | None,
    choice: KernelConfig,
    arrived: Tensor,
    kind: Activation | None = None,
) -> Tensor:
    """x [m, K], rows each contiguous, of a 16-bit type, times weight [N, K] of 4 bits in groups of 32 or more.

    bias: [N]. With an activation act(gate) · other [m, N / 2], see `gate`; at least 16 outputs. arrived: see `dot`.
    """
    rows, (sums, inputs) = x.shape[0], weight.shape
    outputs, made = (sums, choice.block_n) if kind is None else (sums // 2, choice.block_n // 2)
    blocks, splits = triton.cdiv(outputs, made), choice.splits
    block_m = max(8, triton.next_power_of_2(rows))
    y = torch.empty((rows, outputs), dtype=x.dtype, device=x.device)
    partial = None
    if splits > 1:
        partial = torch.empty(blocks * splits * choice.block_n * block_m, dtype=torch.float32, device=x.device)
    units, one_scale, pdl = weight.words.shape[0], len(weight.scales) == 1, overlaps(x.device)
    compiled = constants(weight)
    of_unit = made * 64  # bytes that lie together
    _packed_warps[(blocks, splits)](
        *(x, weight.words, weight.scales, weight.zeros, weight.table, bias, y),
        *(partial, arrived if splits > 1 else None, x.stride(0), rows, outputs, inputs, units),
        *(weight.words.stride(0), 0 if one_scale else sums, splits),
        UNEVEN=units % choice.warps != 0,
        PARTS=128 // compiled["SIZE"],
        **{name: compiled[name] for name in ("TAIL", "ZERO", "MAGIC", "PAIRS")},
        SPLIT=splits > 1,
        BLOCK_M=block_m,
        TILES=choice.block_n // TILE.value,
        WARPS=choice.warps,
        STAGES=choice.stages,
        AHEAD=max(1, triton.next_power_of_2(BYTES_AHEAD // of_unit)),
        KIND=None if kind is None else kind.value,
        PDL=pdl,
        launch_pdl=pdl,
        num_warps=choice.warps,
    )
    return y
