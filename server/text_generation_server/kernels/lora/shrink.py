"""The first product of adapters, with parts of the inputs apart: few blocks of tokens are work for many programs.

Dimensions: T tokens, R the rank that places are made for.
"""

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait


@triton.jit(do_not_specialize=["tokens", "first_part"])
def shrink(
    x: tl.tensor,
    order: tl.tensor,
    table: tl.tensor,
    down: tl.tensor,
    ranks: tl.tensor,
    inner: tl.tensor,
    tokens: int,
    first_part: int,
    x_stride: int,
    row_size: int,
    part_size: int,
    all_parts: int,
    inputs: int,
    RANK: tl.constexpr,
    PARTS: tl.constexpr,
    SPLITS: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PDL: tl.constexpr,
) -> None:
    part, split = tl.program_id(1) % PARTS, tl.program_id(1) // PARTS
    if PDL:
        gdc_launch_dependents()
    segment = table + tl.program_id(0) * 3
    place = tl.load(segment).to(tl.int64)
    end = tl.load(segment + 2)
    start = tl.load(segment + 1) + tl.program_id(2) * BLOCK_T
    rank = tl.load(ranks + place * all_parts + first_part + part)
    end = tl.where(rank > 0, end, start)
    r, k = tl.arange(0, RANK), tl.arange(0, BLOCK_K)
    matrix = down + place * row_size + part * part_size + r[:, None] * inputs
    if PDL:
        gdc_wait()
    while start < end:
        t = start + tl.arange(0, BLOCK_T)
        token = tl.load(order + t, mask=t < end, other=0).to(tl.int64)
        values_of = x + token[:, None] * x_stride
        total = tl.zeros((BLOCK_T, RANK), tl.float32)
        for chunk in range(split * BLOCK_K, inputs, SPLITS * BLOCK_K):
            held = (chunk + k < inputs)[None, :]
            values = tl.load(values_of + chunk + k[None, :], mask=(t < end)[:, None] & held, other=0.0)
            weights = tl.load(matrix + chunk + k[None, :], mask=(r < rank)[:, None] & held, other=0.0)
            total = tl.dot(values, weights.T, total, input_precision="ieee")
        target = inner + ((split * PARTS + part) * tokens + t)[:, None] * RANK + r[None, :]
        tl.store(target, total, mask=(t < end)[:, None])
        start += tl.num_programs(2) * BLOCK_T
