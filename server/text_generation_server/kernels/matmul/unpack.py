"""Makes weights of few bits plain, for products of many rows. Twin: `PackedWeight.plain`."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from text_generation_server.kernels.matmul.packed import UNIT, PackedWeight
from text_generation_server.kernels.matmul.packed_tile import (
    beside,
    bytes_of_table,
    constants,
    of_eight_bits,
    of_four_bits,
)

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
    TAIL: tl.constexpr,
    SIZE: tl.constexpr,
    WIDTH: tl.constexpr,
    CODE: tl.constexpr,
    ZERO: tl.constexpr,
    MAGIC: tl.constexpr,
    PAIRS: tl.constexpr,
    MINIMA: tl.constexpr,
    BLOCK_N: tl.constexpr,
) -> None:
    UNIT: tl.constexpr = 128
    dtype: tl.constexpr = y.dtype.element_ty
    unit = tl.program_id(1)
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)[:, None]
    inside = n < outputs
    row = words + unit * unit_stride + n.to(tl.int64) * row_stride
    packed = tl.load(row + tl.arange(0, WIDTH)[None, :], mask=inside, other=0)
    if CODE == "int4":
        in_bytes = bytes_of_table(table if PAIRS else None, inputs)
        packed = tl.reshape(packed, (BLOCK_N, 4, 4, 2))
        numbers = of_four_bits(packed, table, in_bytes, dtype, PAIRS)
        numbers = tl.reshape(tl.permute(numbers, (0, 2, 3, 1, 4)), (BLOCK_N, UNIT))
    else:
        left = of_eight_bits(packed, 0, CODE, dtype, PAIRS)
        numbers = beside(left, of_eight_bits(packed, 1, CODE, dtype, PAIRS))
    k = unit * UNIT + tl.arange(0, UNIT)[None, :]
    group = k // SIZE * outputs + n
    values = numbers.to(tl.float32)
    zero = ZERO if zeros is None else tl.load(zeros + group, mask=inside).to(tl.float32)
    values -= (ZERO if MINIMA else zero) + MAGIC
    values *= tl.load(scales + group, mask=inside).to(tl.float32)
    if MINIMA:
        values -= zero
    held = inside & (k < inputs) if TAIL else inside
    tl.store(y + n.to(tl.int64) * inputs + k, values.to(dtype), mask=held)


def unpack(weight: PackedWeight) -> Tensor:
    """[N, K] of the weight's type."""
    outputs, inputs = weight.shape
    y = torch.empty(outputs, inputs, dtype=weight.dtype, device=weight.device)
    _unpack[(triton.cdiv(outputs, BLOCK_N), triton.cdiv(inputs, UNIT))](
        *(weight.words, weight.scales, weight.zeros, weight.table, y, outputs, *weight.words.stride()[:2], inputs),
        **constants(weight) | {"SIZE": weight.size},
        BLOCK_N=BLOCK_N,
        num_warps=4,
    )
    return y
