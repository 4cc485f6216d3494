"""What kernels see in a logit: its place in the order, and its probability mass in fixed point. Knows no row.

Twin of the masses: `sampling/mass.py`. There they are shares of the whole, here of the best token's mass, which is 1:
nothing has to be added up before they are known, and they are cut to 2**-40 after fewer roundings.
"""

import triton
import triton.language as tl

LAST_KEY = tl.constexpr(0x7FFFFFFF)
"""The key of NaN, behind that of infinity."""

ONE = tl.constexpr(2.0**40)

WEIGHTLESS = tl.constexpr(28.0)
"""A token whose score is this far below the best one has no mass: exp(−28) < 2**-40."""


@triton.jit
def ordered(value: tl.tensor) -> tl.tensor:
    """int32 keys in the order of fp32 values: the bits, those behind the sign flipped where it is negative."""
    bits = tl.where(value == 0.0, 0.0, value).to(tl.int32, bitcast=True)
    return tl.where(value == value, bits ^ ((bits >> 31) & LAST_KEY), LAST_KEY)


@triton.jit
def value_of(key: tl.tensor) -> tl.tensor:
    """The fp32 value with this key."""
    return (key ^ ((key >> 31) & LAST_KEY)).to(tl.float32, bitcast=True)


@triton.jit
def surplus(value: tl.tensor, best: tl.tensor, temperature: tl.tensor) -> tl.tensor:
    """The score of a logit minus that of the best one."""
    return (value - best) * (1.0 / temperature)


@triton.jit
def mass(value: tl.tensor, best: tl.tensor, temperature: tl.tensor) -> tl.tensor:
    """exp(surplus) in multiples of 2**-40 as int64; nothing where that is NaN."""
    score = surplus(value, best, temperature)
    return tl.where(score <= 0.0, tl.exp(score) * ONE, 0.0).to(tl.int64)
