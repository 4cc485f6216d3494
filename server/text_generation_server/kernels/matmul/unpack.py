"""Makes weights of few bits plain, for products of many rows. Twin: `PackedWeight.plain`."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from text_generation_server.kernels.matmul.packed import UNIT, PackedWeight

BLOCK_N = 32
"""Outputs of a program, each of one unit's inputs."""


@triton.jit
def _unpack(
    words: tl.tensor,
    scales: tl.tensor,
    zeros: tl.tensor,
    table: tl.tensor,
    y: tl.tensor,
    outputs: int,
    unit_stride: int,
    row_stride: int,
    inputs: int,
    SIZE: tl.constexpr,
    WIDTH: tl.constexpr,
    CODE: tl.constexpr,
    ZERO: tl.constexpr,
    MINIMA: tl.constexpr,
    BLOCK_N: tl.constexpr,
) -> None:
    UNIT: tl.constexpr = 128
    unit = tl.program_id(1)
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)[:, None]
    c = tl.arange(0, WIDTH)[None, :]
    inside = n < outputs
    packed = tl.load(words + unit * unit_stride + n.to(tl.int64) * row_stride + c, mask=inside)
    for slab in tl.static_range(UNIT // WIDTH):
        k = unit * UNIT + slab * WIDTH + c
        group = k // SIZE * outputs + n
        if CODE == "int4":
            codes = (packed >> 4 * slab) & 15
            values = codes.to(tl.float32) if table is None else tl.load(table + codes).to(tl.float32)
        elif CODE == "int8":
            values = (packed >> 8 * slab).to(tl.int8).to(tl.float32)
        else:
            values = (packed >> 8 * slab).to(tl.int8).to(tl.float8e4nv, bitcast=True).to(tl.float32)
        zero = ZERO if zeros is None else tl.load(zeros + group, mask=inside).to(tl.float32)
        values -= ZERO if MINIMA else zero
        values *= tl.load(scales + group, mask=inside).to(tl.float32)
        if MINIMA:
            values -= zero
        tl.store(y + n.to(tl.int64) * inputs + k, values.to(y.dtype.element_ty), mask=inside & (k < inputs))


def unpack(weight: PackedWeight) -> Tensor:
    """[N, K] of the weight's type."""
    outputs, inputs = weight.shape
    y = torch.empty(outputs, inputs, dtype=weight.dtype, device=weight.device)
    _unpack[(triton.cdiv(outputs, BLOCK_N), triton.cdiv(inputs, UNIT))](
        *(weight.words, weight.scales, weight.zeros, weight.table, y, outputs, *weight.words.stride()[:2], inputs),
        SIZE=weight.size,
        WIDTH=weight.words.shape[2],
        CODE=weight.code.value,
        ZERO=weight.zero,
        MINIMA=weight.minima,
        BLOCK_N=BLOCK_N,
        num_warps=4,
    )
    return y
