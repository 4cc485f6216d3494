"""Products of pairs with their experts' weights, each expert's read once for all its tokens.

Twin: `torch.nn.functional.linear` of each expert by itself, and `gated_activation` of it.
"""

from dataclasses import dataclass
from typing import Self

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from text_generation_server.kernels.dependent_launch import overlaps
from text_generation_server.kernels.matmul.config import WARP_GROUP_OUTPUTS
from text_generation_server.kernels.matmul.gate import gated, weight_row
from text_generation_server.specs.activation import Activation

LEAST_BLOCK, MOST_BLOCK = 16, 128
"""Pairs that a program multiplies at once."""


@dataclass(frozen=True, slots=True)
class ExpertTile:
    """Pairs, outputs and inputs of a program's tile, how many tiles of inputs are in flight, and its warps."""

    pairs: int
    outputs: int = 64
    inputs: int = 128
    stages: int = 4
    warps: int = 4

    @classmethod
    def of(cls, pairs: int, experts: int) -> Self:
        """Room for twice what an expert has if all are liked alike: see docs/benchmarks.md.

        All fit the 99 KiB of shared memory that a program has on the smaller GPUs.
        """
        block = min(MOST_BLOCK, max(LEAST_BLOCK, triton.next_power_of_2(2 * pairs // experts)))
        if block < WARP_GROUP_OUTPUTS:
            return cls(block)
        return cls(block, 128, 64, 4 if block < MOST_BLOCK else 3, 8)


@triton.jit
def _product(
    x: tl.tensor,
    w: tl.tensor,
    bias: tl.tensor,
    y: tl.tensor,
    experts: tl.tensor,
    order: tl.tensor,
    ends: tl.tensor,
    x_stride: int,
    outputs: int,
    of_expert: int,
    K: tl.constexpr,
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
    expert = tl.program_id(1)
    if BY_PAIR:  # a program for each pair, which is there for the first of its expert
        expert = tl.load(experts + tl.load(order + expert)).to(tl.int32)
    end = tl.load(ends + expert)
    first = tl.load(ends + tl.maximum(expert, 1) - 1)
    first = tl.where(expert == 0, 0, first)
    if BY_PAIR:
        end = tl.where(first == tl.program_id(1), end, first)
    of_w = weight_row(tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N), outputs, BLOCK_N // 2, KIND)
    row_of_w = w + (expert.to(tl.int64) * of_expert + of_w)[:, None] * K
    k = tl.arange(0, BLOCK_K)[None, :]
    for start in range(first + tl.program_id(2) * BLOCK_M, end, tl.num_programs(2) * BLOCK_M):
        at = start + tl.arange(0, BLOCK_M)
        is_pair = (at < end)[:, None]
        pair = tl.load(order + at, mask=at < end, other=0)
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
        if bias is not None:
            sums += tl.load(bias + expert * of_expert + of_w).to(tl.float32)[None, :]
        if KIND is not None:
            sums = gated(sums, y.dtype.element_ty, BLOCK_N // 2, KIND)
        n = tl.program_id(0) * sums.shape[1] + tl.arange(0, sums.shape[1])
        held = is_pair & (n < outputs)[None, :]
        tl.store(y + pair.to(tl.int64)[:, None] * outputs + n[None, :], sums.to(y.dtype.element_ty), mask=held)


def product(
    x: Tensor,
    weight: Tensor,
    experts: Tensor,
    order: Tensor,
    ends: Tensor,
    shared: int,
    kind: Activation | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """[P, N] of all pairs, or with an activation act(gate) · other [P, N / 2], see `matmul/gate.py`.

    Args:
        x: [P / shared, K] of a 16-bit type, rows each contiguous: pair p has row p // shared.
        weight: [E, N, K], contiguous. experts: [P] int64, contiguous, each pair's.
        order, ends: [P] and [E] int32, see `ordered`.
        bias: [E, N], contiguous; None for none.
    """
    pairs, (number, every, inputs) = experts.numel(), weight.shape
    tile = ExpertTile.of(pairs, number)
    outputs, made = (every, tile.outputs) if kind is None else (every // 2, tile.outputs // 2)
    y = torch.empty((pairs, outputs), dtype=x.dtype, device=x.device)
    pdl, by_pair = overlaps(x.device), pairs <= number
    spread = triton.cdiv(2 * pairs, number * tile.pairs)
    _product[(triton.cdiv(outputs, made), pairs if by_pair else number, spread)](
        *(x, weight, bias, y, experts, order, ends, x.stride(0), outputs, every),
        K=inputs,
        SHARED=shared,
        BY_PAIR=by_pair,
        BLOCK_M=tile.pairs,
        BLOCK_N=tile.outputs,
        BLOCK_K=tile.inputs,
        STAGES=tile.stages,
        KIND=None if kind is None else kind.value,
        PDL=pdl,
        launch_pdl=pdl,
        num_warps=tile.warps,
    )
    return y
