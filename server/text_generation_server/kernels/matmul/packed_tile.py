"""Codes of weights to numbers of a 16-bit type, two at a time where there are instructions for it. Knows no product."""

from typing import Any

import torch
import triton
import triton.language as tl

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
def tile(
    words: tl.tensor,
    offset: tl.tensor,
    table: tl.tensor,
    PART: tl.constexpr,
    SLABS: tl.constexpr,
    CODE: tl.constexpr,
    PAIRS: tl.constexpr,
) -> tl.tensor:
    """The numbers of a group of 1, 2 or 4 slabs, or of a part of one."""
    numbers = _slab(words, offset, table, SLABS * PART, CODE, PAIRS)
    if SLABS >= 2:
        numbers = _beside(numbers, _slab(words, offset, table, SLABS * PART + 1, CODE, PAIRS))
    if SLABS == 4:
        right = _beside(_slab(words, offset, table, 2, CODE, PAIRS), _slab(words, offset, table, 3, CODE, PAIRS))
        numbers = _beside(numbers, right)
    return numbers
