"""Up to 32 rows times weights of 4 bits: each warp of a program takes units of its own, for all of its outputs.

Twin: `packed.multiply`, and `gated_activation` of it. Programs share inputs, and wait for kernels, as in `dot`.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from text_generation_server.kernels.dependent_launch import overlaps
from text_generation_server.kernels.matmul.config import KernelConfig
from text_generation_server.kernels.matmul.dot import fetch
from text_generation_server.kernels.matmul.gate import let_through
from text_generation_server.kernels.matmul.gemv import no_tensors, one_more
from text_generation_server.kernels.matmul.packed import UNIT, PackedWeight
from text_generation_server.kernels.matmul.packed_sums import fetch_groups
from text_generation_server.kernels.matmul.packed_tile import constants
from text_generation_server.kernels.matmul.warp_sums import TILE, sums_of_warps, tile_starts
from text_generation_server.specs.activation import Activation

BYTES_AHEAD = 1 << 15
"""Of weights, that a program asks for before it waits."""

LEAST_ROWS = 8
"""That tensor cores multiply at a time."""


@triton.jit
def _fetch_ahead(
    words: tl.tensor,
    scales: tl.tensor,
    zeros: tl.tensor,
    starts: tl.tuple,
    first: tl.tensor,
    end: tl.tensor,
    unit_stride: int,
    group_stride: int,
    PARTS: tl.constexpr,
    AHEAD: tl.constexpr,
    TILES: tl.constexpr,
    KIND: tl.constexpr,
) -> None:
    """The weights of AHEAD units from the first on, and four times as many scales; of none from the end on."""
    SIDE: tl.constexpr = TILES if KIND is None else TILES // 2  # tiles that lie side by side
    units = tl.minimum(first + tl.arange(0, AHEAD), end - 1)[:, None]
    for at in tl.static_range(0, TILES, SIDE):
        fetch(words + units * unit_stride + starts[at] * 32, SIDE * TILE * 64, 1)
        fetch_groups(scales, first * PARTS, end * PARTS, starts[at], group_stride, SIDE * TILE, 4 * AHEAD * PARTS)
        fetch_groups(zeros, first * PARTS, end * PARTS, starts[at], group_stride, SIDE * TILE, 4 * AHEAD * PARTS)


@triton.jit
def _of_all_splits(
    sums: tl.tuple, parts: tl.tensor, arrived: tl.tensor, block: tl.tensor, splits: int, held: tl.tensor
) -> tuple[tl.tuple, tl.tensor]:
    """As `dot.sum_of_splits`, of tiles [16, m], with what this program has to store of them."""
    TILES: tl.constexpr = len(sums)
    size: tl.constexpr = held.shape[0] * held.shape[1]
    place = tl.arange(0, held.shape[0])[:, None] * held.shape[1] + tl.arange(0, held.shape[1])[None, :]
    parts += block.to(tl.int64) * splits * TILES * size + place
    for at in tl.static_range(TILES):
        tl.store(parts + (tl.program_id(1) * TILES + at) * size, sums[at], mask=held)
    tl.debug_barrier()
    is_last = tl.atomic_add(arrived + block, 1, sem="acq_rel") == splits - 1
    tl.debug_barrier()
    if is_last:
        tl.store(arrived + block, 0)
    held &= is_last
    totals = no_tensors()
    for _ in tl.static_range(TILES):
        totals = one_more(totals, tl.zeros(held.shape, tl.float32))
    for split in range(splits):
        more = no_tensors()
        for at in tl.static_range(TILES):
            part = parts + (split * TILES + at) * size
            more = one_more(more, totals[at] + tl.load(part, mask=held, other=0.0, cache_modifier=".cg"))
        totals = more
    return totals, held


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
    MINIMA: tl.constexpr,
    PDL: tl.constexpr,
) -> None:
    dtype: tl.constexpr = y.dtype.element_ty
    block = tl.program_id(0)
    steps = (units + WARPS - 1) // WARPS
    first = tl.program_id(1) * steps // splits
    last = (tl.program_id(1) + 1) * steps // splits
    end = tl.minimum(last * WARPS, units)
    starts = tile_starts(block, outputs, TILES, KIND)
    if PDL:
        _fetch_ahead(
            *(words, scales, zeros, starts, first * WARPS, end, unit_stride, group_stride),
            *(PARTS, AHEAD, TILES, KIND),
        )
    sums = sums_of_warps(
        *(x, words, scales, zeros, table, starts, first, last, x_stride, rows, inputs, units, unit_stride),
        *(group_stride, y.dtype.element_ty, TAIL, UNEVEN, PARTS, ZERO, MAGIC, BLOCK_M, TILES, WARPS, STAGES, PAIRS),
        *(MINIMA, PDL),
    )
    n, m = tl.arange(0, TILE), tl.arange(0, BLOCK_M)
    held = (m < rows)[None, :] & (n >= 0)[:, None]
    if SPLIT:
        sums, held = _of_all_splits(sums, parts, arrived, block, splits, held)
    if bias is not None:
        biased = no_tensors()
        for at in tl.static_range(TILES):
            biased = one_more(biased, sums[at] + tl.load(bias + starts[at] + n).to(tl.float32)[:, None])
        sums = biased
    for at in tl.static_range(TILES if KIND is None else TILES // 2):
        result = sums[at]
        if KIND is not None:
            result = let_through(result, sums[at + TILES // 2], dtype, KIND)
        tl.store(y + m[None, :] * outputs + starts[at] + n[:, None], result.to(dtype), mask=held)


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
    block_m = max(LEAST_ROWS, triton.next_power_of_2(rows))
    y = torch.empty((rows, outputs), dtype=x.dtype, device=x.device)
    parts = None
    if splits > 1:
        parts = torch.empty(blocks * splits * choice.block_n * block_m, dtype=torch.float32, device=x.device)
    units, one_scale, pdl = weight.words.shape[0], len(weight.scales) == 1, overlaps(x.device)
    compiled = constants(weight)
    _packed_warps[(blocks, splits)](
        *(x, weight.words, weight.scales, weight.zeros, weight.table, bias, y),
        *(parts, arrived if splits > 1 else None, x.stride(0), rows, outputs, inputs, units),
        *(weight.words.stride(0), 0 if one_scale else sums, splits),
        **{name: compiled[name] for name in ("TAIL", "ZERO", "MAGIC", "PAIRS", "MINIMA")},
        UNEVEN=units % choice.warps != 0,
        PARTS=UNIT // compiled["SIZE"],
        SPLIT=splits > 1,
        BLOCK_M=block_m,
        TILES=choice.block_n // TILE.value,
        WARPS=choice.warps,
        STAGES=choice.stages,
        AHEAD=max(1, BYTES_AHEAD // (choice.block_n * UNIT // 2)),
        KIND=None if kind is None else kind.value,
        PDL=pdl,
        launch_pdl=pdl,
        num_warps=choice.warps,
    )
    return y
