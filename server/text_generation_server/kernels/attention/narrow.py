"""Keys and values of 8 bits on their way into products of 16. Knows no softmax.

Values are columns of a product whose rows are keys, and instructions that load such columns move 16 bits: two numbers
of a slot. So values are loaded as words of two, and their even and odd columns are products of their own.
"""

import triton
import triton.language as tl

INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)
"""Then there are no instructions for pairs."""

WORD_TO_PAIRS = tl.constexpr(
    "{ .reg .b16 a, b; .reg .b32 u, v; mov.b32 {a, b}, $2; cvt.rn.f16x2.e4m3x2 u, a; cvt.rn.f16x2.e4m3x2 v, b; "
    "prmt.b32 $0, u, v, 0x5410; prmt.b32 $1, u, v, 0x7632; }"
)
"""Words of two e4m3, of two slots, to the slots' first numbers and to their second ones, in float16."""

SHORT_WORD_TO_PAIRS = tl.constexpr("{ prmt.b32 $0, $2, 0, 0x2404; prmt.b32 $1, $2, 0, 0x3414; }")
"""The same of e5m2, which is the first half of float16."""


@triton.jit
def suited(query: tl.tensor, keys: tl.tensor) -> tl.tensor:
    """Queries in the type that products with a cache of `keys` are made in, which keys and values are converted to.

    Numbers of 8 bits are exact in float16, and become it in one instruction; bfloat16 takes several.
    """
    if keys.dtype.element_ty.primitive_bitwidth == 8 and query.dtype == tl.bfloat16:
        query = tl.clamp(query.to(tl.float32), -65504.0, 65504.0).to(tl.float16)
    return query


@triton.jit
def halves(numbers: tl.tensor) -> tuple[tl.tensor, tl.tensor]:
    """Even and odd columns [M, d / 2] of [M, d]."""
    even, odd = tl.split(tl.reshape(numbers, (numbers.shape[0], numbers.shape[1] // 2, 2)))
    return even, odd


@triton.jit
def load_halves(
    values: tl.tensor,
    slot: tl.tensor,
    SLOT: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    DTYPE: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor]:
    """Even and odd columns [N, BLOCK_D / 2] of values of slots [N], with zeros behind d numbers, which are even.

    SLOT: numbers of a slot. DTYPE: of the result.
    """
    column = tl.arange(0, BLOCK_D // 2)[None, :]
    words = tl.load(
        values.to(tl.pointer_type(tl.int16), bitcast=True) + slot[:, None] * (SLOT // 2) + column,
        mask=column < HEAD_DIM // 2,
        other=0,
    )
    held: tl.constexpr = values.dtype.element_ty
    if INTERPRETED or tl.float16 != DTYPE:
        even = words.to(tl.int8).to(held, bitcast=True).to(DTYPE)
        odd = (words >> 8).to(tl.int8).to(held, bitcast=True).to(DTYPE)
    else:
        to_pairs: tl.constexpr = WORD_TO_PAIRS if held == tl.float8e4nv else SHORT_WORD_TO_PAIRS
        even, odd = tl.inline_asm_elementwise(
            to_pairs, "=r,=r,r", [words], dtype=(tl.float16, tl.float16), is_pure=True, pack=2
        )
    return even, odd
