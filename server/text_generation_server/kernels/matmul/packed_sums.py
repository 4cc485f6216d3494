"""Sums of rows times weights of few bits: the loop that every product with such weights has. Knows not whose rows.

Codes less their zeros are whole numbers, which 16-bit types hold exactly; products of one group are summed before its
scale is applied, in float32, and so are the rows that its minimum is multiplied with. The weights are the left operand,
straight from registers; scales are read one unit ahead.
"""

from typing import Any

import triton
import triton.language as tl

from text_generation_server.kernels.dependent_launch import overlaps
from text_generation_server.kernels.matmul.gemv import no_tensors, one_more
from text_generation_server.kernels.matmul.packed import UNIT, Code, PackedWeight
from text_generation_server.kernels.matmul.packed_tile import MAGIC, tile


@triton.jit
def of_groups(values: tl.tensor, first: tl.tensor, of_w: tl.tensor, stride: int, PARTS: tl.constexpr) -> tl.tuple:
    """Scales or zeros [N] of the groups of a unit."""
    found = no_tensors()
    for part in tl.static_range(PARTS):
        found = one_more(found, tl.load(values + (first * PARTS + part) * stride + of_w))
    return found


@triton.jit
def sums_of_units(
    row_of_x: tl.tensor,
    is_row: tl.tensor,
    row_of_w: tl.tensor,
    scales: tl.tensor,
    zeros: tl.tensor,
    table: tl.tensor,
    scale: tl.tuple,
    zero: tl.tuple,
    of_w: tl.tensor,
    first: tl.tensor,
    last: tl.tensor,
    inputs: int,
    unit_stride: int,
    group_stride: int,
    dtype: tl.constexpr,
    TAIL: tl.constexpr,
    SIZE: tl.constexpr,
    WIDTH: tl.constexpr,
    CODE: tl.constexpr,
    ZERO: tl.constexpr,
    MAGIC: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    STAGES: tl.constexpr,
    PAIRS: tl.constexpr,
    MINIMA: tl.constexpr,
) -> tl.tensor:
    """[BLOCK_N, BLOCK_M] float32 over units from `first` to before `last`.

    row_of_x [m, 1], is_row [m], row_of_w [n, 1]: where rows and outputs are; scale, zero: `of_groups` of unit `first`.
    """
    UNIT: tl.constexpr = 128
    PARTS: tl.constexpr = UNIT // SIZE
    SLABS: tl.constexpr = SIZE // WIDTH if SIZE > WIDTH else 1  # of a group
    OF_SLAB: tl.constexpr = WIDTH // SIZE if SIZE < WIDTH else 1  # groups in one
    k = tl.arange(0, SIZE)[None, :]
    total = tl.zeros((BLOCK_N, BLOCK_M), tl.float32)
    for unit in tl.range(first, last, num_stages=STAGES):
        following = tl.minimum(unit + 1, last - 1)
        next_scale = of_groups(scales, following, of_w, group_stride, PARTS)
        next_zero = next_scale if zeros is None else of_groups(zeros, following, of_w, group_stride, PARTS)
        row_of_unit = row_of_w + unit * unit_stride
        for beside in tl.static_range(OF_SLAB):
            word = tl.arange(0, WIDTH // OF_SLAB)[None, :] + beside * SIZE
            packed = tl.load(row_of_unit + word, eviction_policy="evict_first")
            for slab in tl.static_range(PARTS // OF_SLAB):
                of_group = zero[slab * OF_SLAB + beside].to(tl.float32)[:, None]
                if zeros is None or MINIMA:
                    offset = tl.full((BLOCK_N, 1), -ZERO - MAGIC, dtype)
                else:
                    offset = (-MAGIC - of_group).to(dtype)
                place = unit * UNIT + (slab * OF_SLAB + beside) * SIZE + k
                held = is_row[:, None] & (place < inputs) if TAIL else is_row[:, None]
                values = tl.load(row_of_x + place, mask=held, other=0.0)
                numbers = tile(packed, tl.broadcast_to(offset, packed.shape), table, slab, SLABS, CODE, PAIRS)
                if CODE != "int4" and ((zeros is not None and not MINIMA) or ZERO != 0):
                    numbers += offset
                total += tl.dot(numbers, values.T) * scale[slab * OF_SLAB + beside].to(tl.float32)[:, None]
                if MINIMA:
                    total -= tl.sum(values.to(tl.float32), 1)[None, :] * of_group
        scale = next_scale
        zero = next_zero
    return total


def constants(weight: PackedWeight) -> dict[str, Any]:
    """What the sums over units are compiled for."""
    pairs = overlaps(weight.device)
    return {
        "TAIL": weight.inputs % UNIT != 0,
        "SIZE": min(weight.size, UNIT),
        "WIDTH": weight.words.shape[2],
        "CODE": weight.code.value,
        "ZERO": weight.zero,
        "MAGIC": MAGIC[weight.dtype] if pairs and weight.code is Code.INT4 else 0,
        "PAIRS": pairs,
        "MINIMA": weight.minima,
    }
