"""Codes of weights to numbers of a 16-bit type, two at a time where there are instructions for it. Knows no product."""

from typing import Any

import torch
import triton
import triton.language as tl

from text_generation_server.kernels.dependent_launch import overlaps
from text_generation_server.kernels.matmul.gemv import no_tensors, one_more
from text_generation_server.kernels.matmul.packed import UNIT, Code, PackedWeight

MAGIC = {torch.bfloat16: 128, torch.float16: 1024}
"""Numbers whose last four bits count ones, so that a code in their place is added to them."""

_AND_OR, _AND_XOR, _CHOOSE = "0xEA", "0x6A", "0xCA"
"""Tables of `lop3` for (a & b) | c, (a & b) ^ c, and b where a has ones, else c."""


@triton.constexpr_function
def pair_instructions(code: str, slab: int, dtype: Any) -> str:
    """Instructions that make two numbers of the codes of 8 bits at one place of two words, $1: those of a slab."""
    brain = dtype == tl.bfloat16
    kind = "bf16x2" if brain else "f16x2"
    begin, end = "{ .reg .b32 t, u, v; ", " }"
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


@triton.constexpr_function
def four_instructions(dtype: Any) -> str:
    """Instructions that make eight numbers plus `MAGIC` of the codes of two words, $4: pairs, one for each place."""
    magic = "0x43004300" if dtype == tl.bfloat16 else "0x64006400"
    body = "".join(
        f"shr.b32 t, $4, {4 * place}; lop3.b32 ${place}, t, 0x000f000f, {magic}, {_AND_OR}; " for place in range(4)
    )
    return "{ .reg .b32 t; " + body + "}"


@triton.constexpr_function
def table_instructions() -> str:
    """Instructions that look up the eight codes of two words, $4, in a table of 16-bit numbers.

    $5, $7, $9, $11: the numbers' first bytes, four a register; $13 and on: their second ones. The results are pairs of
    the words' numbers, one for each place. `prmt` chooses four of eight bytes at a time, by three bits; a code's fourth
    chooses between the results for both halves of the table.
    """
    body = "and.b32 s, $4, 0x77777777; shl.b32 u, $4, 4; "
    # Of places 0 and 1, and then of 2 and 3: three bits of four codes, and all bits of a byte as the fourth.
    for bytes_of, fourths, first in (("0x0020", "0xAE8C", 0), ("0x0031", "0xBF9D", 2)):
        body += f"prmt.b32 t, s, s, {bytes_of}; prmt.b32 m, $4, u, {fourths}; "
        for name, at in (("l", 5), ("h", 13)):
            body += f"prmt.b32 a, ${at}, ${at + 2}, t; prmt.b32 b, ${at + 4}, ${at + 6}, t; "
            body += f"lop3.b32 {name}, m, b, a, {_CHOOSE}; "
        body += f"prmt.b32 ${first}, l, h, 0x6240; prmt.b32 ${first + 1}, l, h, 0x7351; "
    return "{ .reg .b32 s, t, u, m, a, b, l, h; " + body + "}"


@triton.jit
def bytes_of_table(table: tl.tensor, rows: int) -> tl.tuple:
    """Of a table of 16 numbers the first and then the second bytes, four a word [1, 4, 1, 1]; nothing of none.

    rows: any number that is not negative. Were these the program's own numbers instead of each thread's, they would be
    copied to where threads need them before each use.
    """
    firsts = no_tensors()
    seconds = no_tensors()
    if table is not None:
        pairs = table.to(tl.pointer_type(tl.int32), bitcast=True)
        pairs += tl.reshape(tl.arange(0, 4), (1, 4, 1, 1)) * (rows >> 31)
        for four in tl.static_range(4):
            a = tl.load(pairs + 2 * four)
            b = tl.load(pairs + 2 * four + 1)
            first = (a & 0xFF) | ((a >> 8) & 0xFF00) | ((b & 0xFF) << 16) | ((b & 0xFF0000) << 8)
            second = ((a >> 8) & 0xFF) | ((a >> 16) & 0xFF00) | ((b & 0xFF00) << 8) | (b >> 24 << 24)
            firsts = one_more(firsts, first)
            seconds = one_more(seconds, second)
    return firsts + seconds


@triton.jit
def of_four_bits(
    words: tl.tensor, table: tl.tensor, in_bytes: tl.tuple, dtype: tl.constexpr, PAIRS: tl.constexpr
) -> tl.tensor:
    """Words [X, C, I, 2] to numbers [X, C, I, 4, 2], by place; not from a table plus `MAGIC` if by PAIRS.

    in_bytes: `bytes_of_table`, for PAIRS.
    """
    shape: tl.constexpr = words.shape
    if PAIRS:
        if table is None:
            a, b, c, d = tl.inline_asm_elementwise(
                four_instructions(dtype),
                "=r,=r,=r,=r,r",
                [words],
                dtype=(dtype.value, dtype.value, dtype.value, dtype.value),
                is_pure=True,
                pack=2,
            )
        else:
            a, b, c, d = tl.inline_asm_elementwise(
                table_instructions(),
                "=r,=r,=r,=r,r,r,r,r,r,r,r,r,r,r,r,r,r,r,r,r,r",
                (words,) + in_bytes,  # noqa: RUF005 (Triton unpacks no tuples)
                dtype=(dtype.value, dtype.value, dtype.value, dtype.value),
                is_pure=True,
                pack=2,
            )
        places = tl.permute(tl.join(tl.join(a, c), tl.join(b, d)), (0, 1, 2, 4, 5, 3))
        numbers = tl.reshape(places, (shape[0], shape[1], shape[2], 4, 2))
    else:
        every = tl.reshape(words, (shape[0], shape[1], shape[2], 1, 2)).to(tl.int32)
        codes = (every >> tl.reshape(tl.arange(0, 4) * 4, (1, 1, 1, 4, 1))) & 15
        numbers = codes.to(dtype) if table is None else tl.load(table + codes)
    return numbers


@triton.jit
def of_eight_bits(
    words: tl.tensor, AT: tl.constexpr, CODE: tl.constexpr, dtype: tl.constexpr, PAIRS: tl.constexpr
) -> tl.tensor:
    """The numbers [N, 64] of a slab of words [N, 64]."""
    if PAIRS:
        numbers = tl.inline_asm_elementwise(
            pair_instructions(CODE, AT, dtype), "=r,r", [words], dtype=dtype.value, is_pure=True, pack=2
        )
    elif CODE == "int8":
        numbers = (words >> 8 * AT).to(tl.int8).to(dtype)
    else:
        numbers = (words >> 8 * AT).to(tl.int8).to(tl.float8e4nv, bitcast=True).to(dtype)
    return numbers


@triton.jit
def beside(left: tl.tensor, right: tl.tensor) -> tl.tensor:
    """[N, k] twice to [N, 2 k]."""
    return tl.reshape(tl.permute(tl.join(left, right), (0, 2, 1)), (left.shape[0], 2 * left.shape[1]))


def constants(weight: PackedWeight) -> dict[str, Any]:
    """What kernels are compiled for."""
    pairs = overlaps(weight.device) and weight.dtype in MAGIC
    return {
        "TAIL": weight.inputs % UNIT != 0,
        "SIZE": min(weight.size, UNIT),
        "WIDTH": weight.words.shape[2],
        "CODE": weight.code.value,
        "ZERO": weight.zero,
        "MAGIC": MAGIC[weight.dtype] if pairs and weight.code is Code.INT4 and weight.table is None else 0,
        "PAIRS": pairs,
        "MINIMA": weight.minima,
    }
