"""Products of pairs with their experts' weights, each expert's read once for all its tokens.

Twin: `torch.nn.functional.linear` of each expert by itself, and `gated_activation` of it.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from text_generation_server.kernels.dependent_launch import overlaps
from text_generation_server.kernels.matmul.gate import gated, weight_row
from text_generation_server.specs.activation import Activation

MOST_PAIRS = 1 << 10
"""All of them are looked through by every program."""

BLOCK_N, BLOCK_K, STAGES, WARPS = 64, 128, 4, 4
"""Outputs and inputs of a program's tile, and how it streams them."""

LEAST_BLOCK, MOST_BLOCK = 16, 64
"""Pairs that a program multiplies at once."""


@triton.jit(do_not_specialize=["pairs"])
def _product(
    x: tl.tensor,
    w: tl.tensor,
    y: tl.tensor,
    experts: tl.tensor,
    x_stride: int,
    pairs: int,
    outputs: int,
    of_expert: int,
    K: tl.constexpr,
    PADDED: tl.constexpr,
    SHARED: tl.constexpr,
    BY_PAIR: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    STAGES: tl.constexpr,
    KIND: tl.constexpr,
    PDL: tl.constexpr,
) -> None:
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    number = tl.arange(0, PADDED)
    chosen = tl.load(experts + number, mask=number < pairs, other=-1).to(tl.int32)
    expert = tl.program_id(1)
    if BY_PAIR:  # a program for each pair, which is there for the first of its expert
        expert = tl.sum(tl.where(number == tl.program_id(1), chosen, 0), 0)
    mine = chosen == expert
    count = tl.sum(mine.to(tl.int32), 0)
    if BY_PAIR:
        count = tl.where(tl.min(tl.where(mine, number, PADDED), 0) == tl.program_id(1), count, 0)
    place = tl.cumsum(mine.to(tl.int32), 0) - 1
    of_w = weight_row(tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N), outputs, BLOCK_N // 2, KIND)
    row_of_w = w + (expert.to(tl.int64) * of_expert + of_w)[:, None] * K
    k = tl.arange(0, BLOCK_K)[None, :]
    for start in range(0, count, BLOCK_M):
        at = start + tl.arange(0, BLOCK_M)
        pair = tl.sum(tl.where(mine[None, :] & (place[None, :] == at[:, None]), number[None, :], 0), 1)
        is_pair = (at < count)[:, None]
        row_of_x = x + (pair // SHARED).to(tl.int64)[:, None] * x_stride
        total = tl.zeros((BLOCK_N, BLOCK_M), tl.float32)
        for offset in tl.range(0, K, BLOCK_K, num_stages=STAGES):
            if K % BLOCK_K == 0:
                tile = tl.load(row_of_w + offset + k)
                values = tl.load(row_of_x + offset + k, mask=is_pair, other=0.0)
            else:
                tile = tl.load(row_of_w + offset + k, mask=offset + k < K, other=0.0)
                values = tl.load(row_of_x + offset + k, mask=is_pair & (offset + k < K), other=0.0)
            total = tl.dot(tile, values.T, total)
        sums = total.T
        if KIND is not None:
            sums = gated(sums, y.dtype.element_ty, BLOCK_N // 2, KIND)
        n = tl.program_id(0) * sums.shape[1] + tl.arange(0, sums.shape[1])
        held = is_pair & (n < outputs)[None, :]
        tl.store(y + pair.to(tl.int64)[:, None] * outputs + n[None, :], sums.to(y.dtype.element_ty), mask=held)


def product(x: Tensor, weight: Tensor, experts: Tensor, shared: int, kind: Activation | None = None) -> Tensor:
    """[P, N] of all pairs, or with an activation act(gate) · other [P, N / 2], see `matmul/gate.py`.

    Args:
        x: [P / shared, K] of a 16-bit type, rows each contiguous: pair p has row p // shared.
        weight: [E, N, K], contiguous. experts: [P] int64, contiguous, each pair's; at most `MOST_PAIRS`.
    """
    pairs, (number, every, inputs) = experts.numel(), weight.shape
    outputs, made = (every, BLOCK_N) if kind is None else (every // 2, BLOCK_N // 2)
    y = torch.empty((pairs, outputs), dtype=x.dtype, device=x.device)
    pdl, by_pair = overlaps(x.device), pairs <= number
    _product[(triton.cdiv(outputs, made), pairs if by_pair else number)](
        *(x, weight, y, experts, x.stride(0), pairs, outputs, every),
        K=inputs,
        PADDED=triton.next_power_of_2(pairs),
        SHARED=shared,
        BY_PAIR=by_pair,
        BLOCK_M=_block(pairs, number),
        BLOCK_N=BLOCK_N,
        BLOCK_K=BLOCK_K,
        STAGES=STAGES,
        KIND=None if kind is None else kind.value,
        PDL=pdl,
        launch_pdl=pdl,
        num_warps=WARPS,
    )
    return y


def _block(pairs: int, experts: int) -> int:
    """Twice what an expert has if all are liked alike."""
    return min(MOST_BLOCK, max(LEAST_BLOCK, triton.next_power_of_2(2 * pairs // experts)))
