"""x · down of each segment's adapter, for one linear's parts: the narrow half of a low-rank product.

Dimensions: T tokens, S segments, R the rank that places are made for.
"""

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait


@triton.jit
def _weights(matrix: tl.tensor, chunk: int, inputs: int, held: tl.tensor, BLOCK_K: tl.constexpr) -> tl.tensor:
    k = chunk + tl.arange(0, BLOCK_K)
    return tl.load(matrix + k[None, :], mask=held[:, None] & (k < inputs)[None, :], other=0.0)


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
    all_parts: int,
    inputs: int,
    RANK: tl.constexpr,
    PARTS: tl.constexpr,
    TOGETHER: tl.constexpr,
    ROWS: tl.constexpr,
    SPLITS: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_K: tl.constexpr,
    AHEAD: tl.constexpr,
    PDL: tl.constexpr,
) -> None:
    """Write inner [SPLITS, T, PARTS · RANK]. Programs: [S, PARTS / TOGETHER · SPLITS].

    TOGETHER: parts that a program multiplies by, whose ROWS rows (a power of two) lie one after the other. AHEAD: read
    the next matrix before it is needed, the first one before x is there; else leave that to the compiler.
    """
    part = tl.program_id(1) % (PARTS // TOGETHER) * TOGETHER
    split = tl.program_id(1) // (PARTS // TOGETHER)
    if PDL:
        gdc_launch_dependents()
    segment = table + tl.program_id(0) * 3
    place = tl.load(segment).to(tl.int64)
    start, end = tl.load(segment + 1), tl.load(segment + 2)
    row = tl.arange(0, ROWS)
    there = (row < TOGETHER * RANK) & (start < end)
    rank = tl.load(ranks + place * all_parts + first_part + part + row // RANK, mask=there, other=0)
    t = start + tl.arange(0, BLOCK_T)
    token = tl.load(order + t, mask=t < end, other=0).to(tl.int64)
    matrix = down + place * row_size + (part * RANK + row[:, None]) * inputs
    held = row % RANK < rank
    values_of = x + token[:, None] * x_stride
    total = tl.zeros((BLOCK_T, ROWS), tl.float32)
    k = tl.arange(0, BLOCK_K)
    if AHEAD:
        weights = _weights(matrix, split * BLOCK_K, inputs, held, BLOCK_K)
    if PDL:
        gdc_wait()  # in every program, as who waits for this kernel means the one in front too
    if start == end:
        return
    for chunk in range(split * BLOCK_K, inputs, SPLITS * BLOCK_K):
        values = tl.load(
            values_of + chunk + k[None, :], mask=(t < end)[:, None] & (chunk + k < inputs)[None, :], other=0.0
        )
        if AHEAD:
            total = tl.dot(values, weights.T, total, input_precision="ieee")
            weights = _weights(matrix, chunk + SPLITS * BLOCK_K, inputs, held, BLOCK_K)
        else:
            weights = _weights(matrix, chunk, inputs, held, BLOCK_K)
            total = tl.dot(values, weights.T, total, input_precision="ieee")
    target = inner + (split * tokens + t)[:, None] * (PARTS * RANK) + part * RANK + row[None, :]
    tl.store(target, total, mask=(t < end)[:, None] & there[None, :])
