"""y += (x · down) · up of each segment's adapter, for one linear's parts: the wide half of a low-rank product.

Dimensions: T tokens, S segments, R the rank that places are made for.
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
    PITCH: tl.constexpr,
    PARTS: tl.constexpr,
    ROWS: tl.constexpr,
    SPLITS: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_N: tl.constexpr,
    ALIGNED: tl.constexpr,
    PDL: tl.constexpr,
) -> None:
    """Add to out what inner [SPLITS, T, PARTS · RANK] makes. Programs: [S, blocks of outputs].

    ups: [PARTS, 4], of each part its first block, and its `UpPart`. PITCH: see `LowRank`. ROWS: RANK, or the next
    power of two.
    """
    if PDL:
        gdc_launch_dependents()
    block = tl.program_id(1)
    segment = table + tl.program_id(0) * 3
    place = tl.load(segment).to(tl.int64)
    start, end = tl.load(segment + 1), tl.load(segment + 2)
    part = 0
    for other in tl.static_range(1, PARTS):
        part += (block >= tl.load(ups + other * 4)).to(tl.int32)
    rank = tl.load(ranks + place * all_parts + first_part + part)
    rank = tl.where(start < end, rank, 0)
    up = tl.multiple_of(tl.load(ups + part * 4 + 1), 16)
    column, count = tl.load(ups + part * 4 + 2), tl.load(ups + part * 4 + 3)
    if ALIGNED:
        column, count = tl.multiple_of(column, 16), tl.multiple_of(count, 16)
    n = (block - tl.load(ups + part * 4)) * BLOCK_N + tl.arange(0, BLOCK_N)
    r = tl.arange(0, ROWS)
    matrix = numbers + place * row_size + up + n[:, None] * PITCH + r[None, :]
    weights = tl.load(matrix, mask=(n < count)[:, None] & (r // 8 * 8 < rank)[None, :], other=0.0)
    t = start + tl.arange(0, BLOCK_T)
    held = (t < end)[:, None]
    token = tl.load(order + t, mask=t < end, other=0).to(tl.int64)
    target = out + token[:, None] * out_stride + column + n[None, :]
    if PDL:
        gdc_wait()  # in every program, as who waits for this kernel means the one in front too
    if rank == 0:
        return
    total = tl.zeros((BLOCK_T, ROWS), tl.float32)
    for split in tl.static_range(SPLITS):
        source = inner + (split * tokens + t)[:, None] * (PARTS * RANK) + part * RANK + r[None, :]
        total += tl.load(source, mask=held & (r < rank)[None, :], other=0.0)
    held = held & (n < count)[None, :]
    before = tl.load(target, mask=held, other=0.0).to(tl.float32)
    added = tl.dot(total.to(weights.dtype), weights.T, input_precision="ieee")
    tl.store(target, (before + added).to(out.dtype.element_ty), mask=held)
