"""The second product of adapters: sums up the parts of the first, and adds to the outputs.

Dimensions: as in `shrink`.
"""

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait


@triton.jit(do_not_specialize=["tokens", "first_part"])
def expand(
    out: tl.tensor,
    order: tl.tensor,
    table: tl.tensor,
    numbers: tl.tensor,
    ups: tl.tensor,
    ranks: tl.tensor,
    inner: tl.tensor,
    tokens: int,
    first_part: int,
    out_stride: int,
    row_size: int,
    all_parts: int,
    RANK: tl.constexpr,
    PARTS: tl.constexpr,
    SPLITS: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_N: tl.constexpr,
    ALIGNED: tl.constexpr,
    PDL: tl.constexpr,
) -> None:
    if PDL:
        gdc_launch_dependents()
    block = tl.program_id(1)
    part = 0
    for other in tl.static_range(1, PARTS):
        part += (block >= tl.load(ups + other * 4)).to(tl.int32)
    up = tl.multiple_of(tl.load(ups + part * 4 + 1), 16)
    column, count = tl.load(ups + part * 4 + 2), tl.load(ups + part * 4 + 3)
    if ALIGNED:
        column, count = tl.multiple_of(column, 16), tl.multiple_of(count, 16)
    n = (block - tl.load(ups + part * 4)) * BLOCK_N + tl.arange(0, BLOCK_N)
    segment = table + tl.program_id(0) * 3
    place = tl.load(segment).to(tl.int64)
    end = tl.load(segment + 2)
    start = tl.load(segment + 1) + tl.program_id(2) * BLOCK_T
    rank = tl.load(ranks + place * all_parts + first_part + part)
    end = tl.where(rank > 0, end, start)
    r = tl.arange(0, RANK)
    matrix = numbers + place * row_size + up + r[:, None] * count + n[None, :]
    weights = tl.load(matrix, mask=(start < end) & (r < rank)[:, None] & (n < count)[None, :], other=0.0)
    if PDL:
        gdc_wait()
    while start < end:
        t = start + tl.arange(0, BLOCK_T)
        held = (t < end)[:, None]
        token = tl.load(order + t, mask=t < end, other=0).to(tl.int64)
        total = tl.zeros((BLOCK_T, RANK), tl.float32)
        for split in tl.static_range(SPLITS):
            source = inner + ((split * PARTS + part) * tokens + t)[:, None] * RANK + r[None, :]
            total += tl.load(source, mask=held, other=0.0)
        added = tl.dot(total.to(weights.dtype), weights, input_precision="ieee")
        target = out + token[:, None] * out_stride + column + n[None, :]
        held = held & (n < count)[None, :]
        tl.store(target, (tl.load(target, mask=held, other=0.0).to(tl.float32) + added).to(out.dtype.element_ty), held)
        start += tl.num_programs(2) * BLOCK_T
