"""Up to 128 rows times weights of 4 or 8 bits, on tensor cores: codes become numbers on their way to the product.

Twin: `packed.multiply`, and `gated_activation` of it. Codes less their zeros are whole numbers, which 16-bit types hold
exactly; products of one group are summed before its scale is applied, in float32. The weights are the left operand,
straight from registers; scales are read one unit ahead. Programs share inputs, and wait for kernels, as in `dot`.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from text_generation_server.kernels.dependent_launch import overlaps
from text_generation_server.kernels.matmul.config import KernelConfig, block_rows
from text_generation_server.kernels.matmul.dot import fetch, sum_of_splits
from text_generation_server.kernels.matmul.gate import gated, weight_row
from text_generation_server.kernels.matmul.gemv import no_tensors, one_more
from text_generation_server.kernels.matmul.packed import UNIT, Code, PackedWeight
from text_generation_server.specs.activation import Activation

UNITS_AHEAD = 4
"""Whose weights a program asks for before it waits."""

MAGIC = {torch.bfloat16: 128, torch.float16: 1024}
"""Numbers whose last four bits count ones, so that a code in their place is added to them."""

_AND_OR, _AND_XOR = "0xEA", "0x6A"
"""Tables of `lop3` for (a & b) | c and (a & b) ^ c."""


@triton.constexpr_function
def pair_instructions(code: str, slab: int, dtype: Any) -> str:
    """Instructions that make two numbers of the codes at one place of two words, $1; integers of 4 bits plus $2."""
    brain = dtype == tl.bfloat16
    kind = "bf16x2" if brain else "f16x2"
    begin, end = "{ .reg .b32 t, u, v; ", " }"
    if code == "int4":
        magic, one = ("0x43004300", "0x3F803F80") if brain else ("0x64006400", "0x3C003C00")
        body = f"shr.b32 t, $1, {4 * slab}; mov.b32 u, {one}; lop3.b32 t, t, 0x000f000f, {magic}, {_AND_OR}; "
        return f"{begin}{body}fma.rn.{kind} $0, t, u, $2;{end}"
    shifted = f"shr.b32 t, $1, {8 * slab}; "
    if code == "int8" and brain:  # 128 + seven bits, less 128 or 256
        body = f"lop3.b32 u, t, 0x007f007f, 0x43004300, {_AND_OR}; lop3.b32 v, t, 0x00800080, 0x43004300, {_AND_OR}; "
        return f"{begin}{shifted}{body}sub.rn.bf16x2 $0, u, v;{end}"
    if code == "int8":  # 1024 + 128 + the code
        body = f"mov.b32 u, 0x64806480; lop3.b32 t, t, 0x00ff00ff, u, {_AND_XOR}; "
        return f"{begin}{shifted}{body}sub.rn.f16x2 $0, t, u;{end}"
    # The exponent's four bits are the last of a longer one's, which makes the number too small by a power of two.
    power, up = ("0x7B807B80", 4) if brain else ("0x5C005C00", 7)
    mask = "0x07f007f0" if brain else "0x3f803f80"
    to_place = f"shl.b32 t, $1, {up};" if slab == 0 else f"shr.b32 t, $1, {8 - up};"
    sign = "shl.b32 u, $1, 8;" if slab == 0 else "mov.b32 u, $1;"
    body = f"{to_place} {sign} and.b32 t, t, {mask}; lop3.b32 t, u, 0x80008000, t, {_AND_OR}; "
    return f"{begin}{body}mov.b32 v, {power}; mul.rn.{kind} $0, t, v;{end}"


@triton.jit
def _slab(
    words: tl.tensor, offset: tl.tensor, table: tl.tensor, AT: tl.constexpr, CODE: tl.constexpr, PAIRS: tl.constexpr
) -> tl.tensor:
    """The numbers [N, 32 or 64] of a slab; those of 4 bits plus an offset, or from a table."""
    if table is not None:
        numbers = tl.load(table + ((words >> 4 * AT) & 15).to(tl.int32))
    elif PAIRS:
        numbers = tl.inline_asm_elementwise(
            pair_instructions(CODE, AT, offset.dtype),
            "=r,r,r",
            [words, offset],
            dtype=offset.dtype,
            is_pure=True,
            pack=2,
        )
    elif CODE == "int4":
        numbers = ((words >> 4 * AT) & 15).to(offset.dtype) + offset
    elif CODE == "int8":
        numbers = (words >> 8 * AT).to(tl.int8).to(offset.dtype)
    else:
        numbers = (words >> 8 * AT).to(tl.int8).to(tl.float8e4nv, bitcast=True).to(offset.dtype)
    return numbers


@triton.jit
def _beside(left: tl.tensor, right: tl.tensor) -> tl.tensor:
    """[N, k] twice to [N, 2 k]."""
    return tl.reshape(tl.permute(tl.join(left, right), (0, 2, 1)), (left.shape[0], 2 * left.shape[1]))


@triton.jit
def _tile(
    words: tl.tensor,
    offset: tl.tensor,
    table: tl.tensor,
    PART: tl.constexpr,
    SLABS: tl.constexpr,
    CODE: tl.constexpr,
    PAIRS: tl.constexpr,
) -> tl.tensor:
    """The numbers of a group of 1, 2 or 4 slabs."""
    tile = _slab(words, offset, table, SLABS * PART, CODE, PAIRS)
    if SLABS >= 2:
        tile = _beside(tile, _slab(words, offset, table, SLABS * PART + 1, CODE, PAIRS))
    if SLABS == 4:
        right = _beside(_slab(words, offset, table, 2, CODE, PAIRS), _slab(words, offset, table, 3, CODE, PAIRS))
        tile = _beside(tile, right)
    return tile


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
) -> tl.tensor:
    """[BLOCK_N, BLOCK_M] float32 over units from `first` to before `last`.

    row_of_x [m, 1], is_row [m], row_of_w [n, 1]: where rows and outputs are; scale, zero: `of_groups` of unit `first`.
    """
    UNIT: tl.constexpr = 128
    PARTS: tl.constexpr = UNIT // SIZE
    k = tl.arange(0, SIZE)[None, :]
    total = tl.zeros((BLOCK_N, BLOCK_M), tl.float32)
    for unit in tl.range(first, last, num_stages=STAGES):
        following = tl.minimum(unit + 1, last - 1)
        next_scale = of_groups(scales, following, of_w, group_stride, PARTS)
        next_zero = next_scale if zeros is None else of_groups(zeros, following, of_w, group_stride, PARTS)
        row_of_unit = row_of_w + unit * unit_stride
        packed = tl.load(row_of_unit + tl.arange(0, WIDTH)[None, :], eviction_policy="evict_first")
        for part in tl.static_range(PARTS):
            if zeros is None:
                offset = tl.full((BLOCK_N, 1), -ZERO - MAGIC, dtype)
            else:
                offset = (-MAGIC - zero[part].to(tl.float32)).to(dtype)[:, None]
            place = unit * UNIT + part * SIZE + k
            held = is_row[:, None] & (place < inputs) if TAIL else is_row[:, None]
            values = tl.load(row_of_x + place, mask=held, other=0.0)
            tile = _tile(packed, tl.broadcast_to(offset, (BLOCK_N, WIDTH)), table, part, SIZE // WIDTH, CODE, PAIRS)
            if CODE != "int4" and (zeros is not None or ZERO != 0):
                tile += offset
            sums = tl.dot(tile, values.T)
            total += sums * scale[part].to(tl.float32)[:, None]
        scale = next_scale
        zero = next_zero
    return total


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
        *(group_stride, y.dtype.element_ty, TAIL, SIZE, WIDTH, CODE, ZERO, MAGIC, BLOCK_M, BLOCK_N, STAGES, PAIRS),
    )
    stored = rows
    if SPLITS > 1:
        total, is_last = sum_of_splits(total, parts, arrived, block, SPLITS)
        stored = tl.where(is_last, rows, 0)
    total = total.T
    if bias is not None:
        total += tl.load(bias + of_w).to(tl.float32)[None, :]
    if KIND is not None:
        total = gated(total, dtype, BLOCK_N // 2, KIND)
    n = block * total.shape[1] + tl.arange(0, total.shape[1])
    held = (m < stored)[:, None] & (n < outputs)[None, :]
    tl.store(y + m[:, None] * outputs + n[None, :], total.to(dtype), mask=held)


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
    }


def packed_dot(
    x: Tensor,
    weight: PackedWeight,
    bias: Tensor | None,
    choice: KernelConfig,
    arrived: Tensor,
    kind: Activation | None = None,
) -> Tensor:
    """x [m, K], rows each contiguous, of a 16-bit type, times weight [N, K] with groups of a slab or more. bias: [N].

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
