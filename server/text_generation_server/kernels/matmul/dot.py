"""Up to 128 rows on tensor cores: a program streams blocks of weights through a pipeline in shared memory.

Twin: `torch.nn.functional.linear`, and `gated_activation` of it. While the kernel in front still runs, the first
weights are fetched into the L2 cache. Where several programs share the inputs of one block of outputs, the one that
ends last adds up their sums, in a fixed order: no sum is made by atomic additions, so equal inputs give equal results.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from text_generation_server.kernels.dependent_launch import overlaps
from text_generation_server.kernels.matmul.config import (
    WARP_GROUP_OUTPUTS,
    KernelConfig,
    beside_each_other,
    block_rows,
)
from text_generation_server.kernels.matmul.fetch import fetch
from text_generation_server.kernels.matmul.gate import gated, weight_row
from text_generation_server.kernels.matmul.low_rank import LowRank
from text_generation_server.kernels.matmul.low_rank_sums import first_halves, given, leads, near, second_halves
from text_generation_server.specs.activation import Activation

BYTES_AHEAD = 1 << 16
"""What a program asks for before it waits. One or two on each multiprocessor keep the memory busy for 3 to 6 us."""

REGISTERS = 1 << 16
"""Of a multiprocessor."""

MOST_REGISTERS = 255
"""Of a thread."""

MOST_BLOCKS = 1 << 12
"""Blocks of outputs whose inputs may be split: only matrices with few blocks need it."""


@triton.jit
def sum_of_splits(
    total: tl.tensor, parts: tl.tensor, arrived: tl.tensor, block: tl.tensor, split: tl.tensor, SPLITS: tl.constexpr
) -> tuple[tl.tensor, tl.tensor]:
    """The sum of all programs of a block, and whether this one came last and has it; leaves the counter at zero."""
    size: tl.constexpr = total.shape[0] * total.shape[1]
    place = tl.arange(0, total.shape[0])[:, None] * total.shape[1] + tl.arange(0, total.shape[1])[None, :]
    parts += block.to(tl.int64) * SPLITS * size + place
    tl.store(parts + split * size, total)
    tl.debug_barrier()
    last = tl.atomic_add(arrived + block, 1, sem="acq_rel") == SPLITS - 1
    tl.debug_barrier()
    if last:
        total = tl.zeros_like(total)
        for other in tl.static_range(SPLITS):
            total += tl.load(parts + other * size, cache_modifier=".cg")
        tl.store(arrived + block, 0)
    return total, last


@triton.jit(do_not_specialize=["rows", "leads"])
def _dot(
    x: tl.tensor,
    w: tl.tensor,
    bias: tl.tensor,
    y: tl.tensor,
    parts: tl.tensor,
    arrived: tl.tensor,
    x_stride: int,
    rows: int,
    outputs: int,
    low: tl.tuple,
    leads: int,
    K: tl.constexpr,
    SPLITS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    STAGES: tl.constexpr,
    BYTES: tl.constexpr,
    PIECES: tl.constexpr,
    UNIT_PIECES: tl.constexpr,
    SWAPPED: tl.constexpr,
    KIND: tl.constexpr,
    PDL: tl.constexpr,
) -> None:
    tl.static_assert(K % (SPLITS * BLOCK_K) == 0)
    program = tl.program_id(0) - leads
    if low is not None and program < 0:
        first_halves(x, x_stride, rows, low, program + leads, leads, 4, UNIT_PIECES, PDL)
        return
    blocks = (tl.num_programs(0) - leads) // SPLITS
    block, split = program % blocks, program // blocks
    start = split * (K // SPLITS)
    of_w = weight_row(block * BLOCK_N + tl.arange(0, BLOCK_N), outputs, BLOCK_N // 2, KIND)
    m = tl.arange(0, BLOCK_M)
    k = tl.arange(0, BLOCK_K)[None, :]
    row_of_w = w + of_w.to(tl.int64)[:, None] * K + start
    row_of_x = x + m[:, None] * x_stride + start
    if PDL:
        fetch(row_of_w, BYTES, PIECES)
        if low is not None:
            near(low, m, rows)
        gdc_launch_dependents()
        gdc_wait()
    # The weights are the left operand, or the right one.
    total = tl.zeros((BLOCK_N, BLOCK_M) if SWAPPED else (BLOCK_M, BLOCK_N), tl.float32)
    for offset in tl.range(0, K // SPLITS, BLOCK_K, num_stages=STAGES):
        values = tl.load(row_of_x + offset + k, mask=(m < rows)[:, None], other=0.0)
        tile = tl.load(row_of_w + offset + k, eviction_policy="evict_first")
        total = tl.dot(tile, values.T, total) if SWAPPED else tl.dot(values, tile.T, total)
    if low is not None:
        total = second_halves(total, of_w, m, rows, low, split, x.dtype.element_ty, SPLITS, SWAPPED)
    stored = rows
    if SPLITS > 1:
        total, last = sum_of_splits(total, parts, arrived, block, split, SPLITS)
        stored = tl.where(last, rows, 0)
    if SWAPPED:
        total = total.T
    if bias is not None:
        total += tl.load(bias + of_w).to(tl.float32)[None, :]
    if KIND is not None:
        total = gated(total, y.dtype.element_ty, BLOCK_N // 2, KIND)
    n = block * total.shape[1] + tl.arange(0, total.shape[1])
    held = (m < stored)[:, None] & (n < outputs)[None, :]
    tl.store(y + m[:, None] * outputs + n[None, :], total.to(y.dtype.element_ty), mask=held)


def arrivals(device: torch.device) -> Tensor:
    """How many programs of a block have stored their sums; zero between kernels. For one stream at a time."""
    return torch.zeros(MOST_BLOCKS, dtype=torch.int32, device=device)


def dot(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    choice: KernelConfig,
    arrived: Tensor,
    kind: Activation | None = None,
    low: LowRank | None = None,
) -> Tensor:
    """x [m, K], rows each contiguous, times weight [N, K], contiguous; K in whole blocks for each split. bias: [N].

    With an activation act(gate) · other [m, N / 2], see `gate`. low: what is added before that.
    arrived: the `arrivals` of the caller's stream, left as found.
    """
    rows, (sums, inputs) = x.shape[0], weight.shape
    outputs, made = (sums, choice.block_n) if kind is None else (sums // 2, choice.block_n // 2)
    blocks, splits = triton.cdiv(outputs, made), choice.splits
    block_m = block_rows(rows)
    y = torch.empty((rows, outputs), dtype=x.dtype, device=x.device)
    parts = None
    if splits > 1:
        parts = torch.empty(blocks * splits * choice.block_n * block_m, dtype=torch.float32, device=x.device)
    pdl = overlaps(x.device) and (low is None or low.overlaps)
    beside = beside_each_other(choice, rows)
    in_front = 0 if low is None else leads(low, blocks * splits, beside)
    _dot[(in_front + blocks * splits,)](
        *(x, weight, bias, y, parts, arrived if splits > 1 else None, x.stride(0), rows, outputs),
        *(None if low is None else given(low), in_front),
        K=inputs,
        SPLITS=splits,
        BLOCK_M=block_m,
        BLOCK_N=choice.block_n,
        BLOCK_K=choice.block_k,
        STAGES=choice.stages,
        BYTES=min(BYTES_AHEAD // choice.block_n, inputs // splits * weight.element_size()),
        PIECES=max(1, choice.warps * 32 // choice.block_n),
        UNIT_PIECES=choice.warps,
        SWAPPED=choice.block_n >= WARP_GROUP_OUTPUTS,
        KIND=None if kind is None else kind.value,
        PDL=pdl,
        launch_pdl=pdl,
        num_warps=choice.warps,
        # What comes after the sums must not keep programs from running beside each other.
        maxnreg=None if low is None else min(MOST_REGISTERS, REGISTERS // (32 * choice.warps * beside) // 8 * 8),
    )
    return y
