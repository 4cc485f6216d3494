"""Products of tokens with their experts' weights of few bits, each expert's read once for all its tokens.

Twin: `packed.multiply` of each expert by itself. Pairs of a token and a choice are sorted by expert; a program takes a
few of one expert's, whose it finds by itself from where each expert's end. Nothing here waits for the device.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from text_generation_server.kernels.matmul.gate import gated, weight_row
from text_generation_server.kernels.matmul.packed import PackedWeight
from text_generation_server.kernels.matmul.packed_sums import constants, of_groups, sums_of_units
from text_generation_server.specs.activation import Activation

BLOCK_M, BLOCK_N, STAGES, WARPS = 16, 64, 4, 4
"""Pairs and outputs of a program, and how it reads: not measured yet."""


@triton.jit(do_not_specialize=["pairs", "units", "group_stride"])
def _packed_experts(
    x: tl.tensor,
    words: tl.tensor,
    scales: tl.tensor,
    zeros: tl.tensor,
    table: tl.tensor,
    bias: tl.tensor,
    y: tl.tensor,
    order: tl.tensor,
    ends: tl.tensor,
    x_stride: int,
    pairs: int,
    outputs: int,
    of_expert: int,
    inputs: int,
    units: int,
    unit_stride: int,
    row_stride: int,
    group_stride: int,
    EXPERTS: tl.constexpr,
    PADDED: tl.constexpr,
    SHARED: tl.constexpr,
    TAIL: tl.constexpr,
    SIZE: tl.constexpr,
    WIDTH: tl.constexpr,
    CODE: tl.constexpr,
    ZERO: tl.constexpr,
    MAGIC: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    STAGES: tl.constexpr,
    KIND: tl.constexpr,
    PAIRS: tl.constexpr,
    MINIMA: tl.constexpr,
) -> None:
    PARTS: tl.constexpr = 128 // SIZE
    number = tl.arange(0, PADDED)
    end = tl.load(ends + number, mask=number < EXPERTS, other=pairs)
    start = tl.load(ends + number - 1, mask=(number > 0) & (number < EXPERTS), other=0)
    start = tl.where(number < EXPERTS, start, pairs)
    blocks = (end - start + BLOCK_M - 1) // BLOCK_M
    past = tl.cumsum(blocks, 0)
    block_m = tl.program_id(1)
    mine = (block_m < past) & (block_m >= past - blocks)
    expert = tl.sum(tl.where(mine, number, 0), 0)
    at = tl.sum(tl.where(mine, start + (block_m - past + blocks) * BLOCK_M, 0), 0) + tl.arange(0, BLOCK_M)
    is_pair = at < tl.sum(tl.where(mine, end, 0), 0)  # none where there are no more blocks
    pair = tl.load(order + at, mask=is_pair, other=0)
    of_w = weight_row(tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N), outputs, BLOCK_N // 2, KIND)
    of_w += expert * of_expert
    last = tl.where(tl.sum(mine.to(tl.int32), 0) > 0, units, 0)
    scale = of_groups(scales, 0, of_w, group_stride, PARTS)
    zero = scale if zeros is None else of_groups(zeros, 0, of_w, group_stride, PARTS)
    total = sums_of_units(
        *(x + (pair // SHARED * x_stride)[:, None], is_pair, words + of_w.to(tl.int64)[:, None] * row_stride),
        *(scales, zeros, table, scale, zero, of_w, 0, last, inputs, unit_stride, group_stride, y.dtype.element_ty),
        *(TAIL, SIZE, WIDTH, CODE, ZERO, MAGIC, BLOCK_M, BLOCK_N, STAGES, PAIRS, MINIMA),
    )
    total = total.T
    if bias is not None:
        total += tl.load(bias + of_w).to(tl.float32)[None, :]
    if KIND is not None:
        total = gated(total, y.dtype.element_ty, BLOCK_N // 2, KIND)
    n = tl.program_id(0) * total.shape[1] + tl.arange(0, total.shape[1])
    held = is_pair[:, None] & (n < outputs)[None, :]
    tl.store(y + pair[:, None] * outputs + n[None, :], total.to(y.dtype.element_ty), mask=held)


def packed_experts(
    x: Tensor,
    weight: PackedWeight,
    order: Tensor,
    ends: Tensor,
    shared: int,
    kind: Activation | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """[P, N] of pairs of a token and an expert, or half of it with an activation, see `gate`.

    Args:
        x: [P / shared, K] of a 16-bit type, rows each contiguous: pair p has row p // shared.
        weight: [E · N, K], all experts' one above the other, in groups of `LEAST_SIZE` or more.
        order: [P] int64, the pairs sorted by expert. ends: [E] int32, where each expert's end.
        bias: [E, N], contiguous; None for none.
    """
    pairs, experts, (every, inputs) = len(order), len(ends), weight.shape
    of_expert = every // experts
    outputs, made = (of_expert, BLOCK_N) if kind is None else (of_expert // 2, BLOCK_N // 2)
    y = torch.empty((pairs, outputs), dtype=x.dtype, device=x.device)
    most = min(pairs, experts + pairs // BLOCK_M)
    _packed_experts[(triton.cdiv(outputs, made), most)](
        *(x, weight.words, weight.scales, weight.zeros, weight.table, bias, y),
        *(order, ends, x.stride(0), pairs, outputs),
        *(of_expert, inputs, weight.words.shape[0], *weight.words.stride()[:2]),
        0 if len(weight.scales) == 1 else every,
        EXPERTS=experts,
        PADDED=triton.next_power_of_2(experts),
        SHARED=shared,
        **constants(weight),
        BLOCK_M=BLOCK_M,
        BLOCK_N=BLOCK_N,
        STAGES=STAGES,
        KIND=None if kind is None else kind.value,
        num_warps=WARPS,
    )
    return y
