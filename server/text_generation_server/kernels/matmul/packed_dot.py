"""Up to 128 rows times weights of 4 or 8 bits, on tensor cores: codes become numbers on their way to the product.

Twin: `packed.multiply`, and `gated_activation` of it. Programs share inputs, and wait for kernels, as in `dot`.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from text_generation_server.kernels.dependent_launch import overlaps
from text_generation_server.kernels.matmul.config import KernelConfig, block_rows
from text_generation_server.kernels.matmul.dot import sum_of_splits
from text_generation_server.kernels.matmul.fetch import fetch
from text_generation_server.kernels.matmul.gate import gated, weight_row
from text_generation_server.kernels.matmul.packed import PackedWeight
from text_generation_server.kernels.matmul.packed_sums import of_groups, sums_of_units
from text_generation_server.kernels.matmul.packed_tile import constants
from text_generation_server.specs.activation import Activation

UNITS_AHEAD = 4
"""Whose weights a program asks for before it waits."""


@triton.jit(do_not_specialize=["rows", "units", "group_stride"])
def _packed_dot(
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
    weights: int,
    inputs: int,
    units: int,
    unit_stride: int,
    row_stride: int,
    group_stride: int,
    TAIL: tl.constexpr,
    SIZE: tl.constexpr,
    WIDTH: tl.constexpr,
    CODE: tl.constexpr,
    ZERO: tl.constexpr,
    MAGIC: tl.constexpr,
    SPLITS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    STAGES: tl.constexpr,
    AHEAD: tl.constexpr,
    KIND: tl.constexpr,
    PAIRS: tl.constexpr,
    MINIMA: tl.constexpr,
    PDL: tl.constexpr,
) -> None:
    UNIT: tl.constexpr = 128
    PARTS: tl.constexpr = UNIT // SIZE
    dtype: tl.constexpr = y.dtype.element_ty
    block = tl.program_id(0)
    first = tl.program_id(1) * units // SPLITS
    last = (tl.program_id(1) + 1) * units // SPLITS
    of_w = weight_row(block * BLOCK_N + tl.arange(0, BLOCK_N), outputs, BLOCK_N // 2, KIND)
    m = tl.arange(0, BLOCK_M)
    row_of_w = words + of_w.to(tl.int64)[:, None] * row_stride
    row_of_x = x + m[:, None] * x_stride
    scale = of_groups(scales, first, of_w, group_stride, PARTS)
    zero = scale if zeros is None else of_groups(zeros, first, of_w, group_stride, PARTS)
    if PDL:
        if CODE == "int4":  # rows of a unit are side by side, in each half of those that are gated
            half: tl.constexpr = BLOCK_N // 2
            start = weight_row(block * BLOCK_N + tl.arange(0, 2) * half, outputs, half, KIND)
            start = tl.minimum(start, weights - half)[:, None] * row_stride
            for ahead in tl.static_range(AHEAD):
                fetch(words + (first + ahead) * unit_stride + start, 2 * half * WIDTH, 1)
        else:
            fetch(row_of_w + first * unit_stride, 2 * AHEAD * WIDTH, 1)
        gdc_launch_dependents()
        gdc_wait()
    total = sums_of_units(
        *(row_of_x, m < rows, row_of_w, scales, zeros, table, scale, zero, of_w, first, last, inputs, unit_stride),
        *(group_stride, dtype, TAIL, SIZE, WIDTH, CODE, ZERO, MAGIC, BLOCK_M, BLOCK_N, STAGES, PAIRS, MINIMA),
    )
    stored = rows
    if SPLITS > 1:
        total, is_last = sum_of_splits(total, parts, arrived, block, tl.program_id(1), SPLITS)
        stored = tl.where(is_last, rows, 0)
    total = total.T
    if bias is not None:
        total += tl.load(bias + of_w).to(tl.float32)[None, :]
    if KIND is not None:
        total = gated(total, dtype, BLOCK_N // 2, KIND)
    n = block * total.shape[1] + tl.arange(0, total.shape[1])
    held = (m < stored)[:, None] & (n < outputs)[None, :]
    tl.store(y + m[:, None] * outputs + n[None, :], total.to(dtype), mask=held)


def packed_dot(
    x: Tensor,
    weight: PackedWeight,
    bias: Tensor | None,
    choice: KernelConfig,
    arrived: Tensor,
    kind: Activation | None = None,
) -> Tensor:
    """x [m, K], rows each contiguous, of a 16-bit type, times weight [N, K] in groups of `LEAST_SIZE`. bias: [N].

    With an activation act(gate) · other [m, N / 2], see `gate`. arrived: see `dot`.
    """
    rows, (sums, inputs) = x.shape[0], weight.shape
    outputs, made = (sums, choice.block_n) if kind is None else (sums // 2, choice.block_n // 2)
    blocks, splits, block_m = triton.cdiv(outputs, made), choice.splits, block_rows(rows)
    y = torch.empty((rows, outputs), dtype=x.dtype, device=x.device)
    parts = None
    if splits > 1:
        parts = torch.empty(blocks * splits * choice.block_n * block_m, dtype=torch.float32, device=x.device)
    units, one_scale, pdl = weight.words.shape[0], len(weight.scales) == 1, overlaps(x.device)
    _packed_dot[(blocks, splits)](
        *(x, weight.words, weight.scales, weight.zeros, weight.table, bias, y, parts, arrived if splits > 1 else None),
        *(x.stride(0), rows, outputs, sums, inputs, units, *weight.words.stride()[:2], 0 if one_scale else sums),
        **constants(weight),
        SPLITS=splits,
        BLOCK_M=block_m,
        BLOCK_N=choice.block_n,
        STAGES=choice.stages,
        AHEAD=min(UNITS_AHEAD, units // splits),
        KIND=None if kind is None else kind.value,
        PDL=pdl,
        launch_pdl=pdl,
        num_warps=choice.warps,
    )
    return y
