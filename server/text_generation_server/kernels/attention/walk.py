"""Walks over blocks of a row's keys with a running maximum (online softmax), for one matrix of queries.

Knows neither which queries these are nor how keys are split.
"""

import triton
import triton.language as tl

from text_generation_server.kernels.attention.narrow import halves, load_halves
from text_generation_server.kernels.attention.scores import LOWEST, ruled


@triton.jit
def load_block(
    keys: tl.tensor, slot: tl.tensor, SLOT: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr
) -> tl.tensor:
    """Keys or values [N, BLOCK_D] of slots [N], with zeros behind d numbers. SLOT: numbers of a slot."""
    column = tl.arange(0, BLOCK_D)[None, :]
    place = keys + slot[:, None] * SLOT + column
    if BLOCK_D == HEAD_DIM:
        return tl.load(place)
    return tl.load(place, mask=column < HEAD_DIM, other=0.0)


@triton.jit
def fresh(ROWS: tl.constexpr, BLOCK_D: tl.constexpr) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """Greatest scores [M], sums of weights [M] and weighted values [M, d] before any key."""
    return (
        tl.full((ROWS,), LOWEST, tl.float32),
        tl.zeros((ROWS,), tl.float32),
        tl.zeros((ROWS, BLOCK_D), tl.float32),
    )


@triton.jit
def begun(sink: tl.tensor, first: tl.tensor, ROWS: tl.constexpr, BLOCK_D: tl.constexpr) -> tl.tuple:
    """The same where rows [M] have a score of their own, without a value. first: of programs that share a row's keys.

    sink: [M], None for none.
    """
    most, total, values = fresh(ROWS, BLOCK_D)
    if sink is not None:
        most = tl.where(first, sink, most)
        total = tl.where(first, 1.0, total)
    return most, total, values


@triton.jit
def walk(
    state: tl.tuple,
    query: tl.tensor,
    at: tl.tensor,
    source: tl.tuple,
    begin: tl.tensor,
    end: tl.tensor,
    window: int,
    slope: tl.tensor,
    scale: float,
    softcap: float,
    bias: tl.tensor,
    farthest: int,
    SLOT: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_N: tl.constexpr,
    STAGES: tl.constexpr,
    MASKED: tl.constexpr,
    CAUSAL: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """Go on from a state, which is the same three as `fresh` makes, with keys [begin, end).

    Args:
        query: [M, d], as `suited`.
        at: [M] the position of each query.
        source: where the head's keys are in the first slot, and the row's slots.
        slope: [M, 1]. bias: [M, 1], see `ruled`.
        MASKED: some query does not see some key, or the last block is not full.
        CAUSAL: keys behind a query are hidden, and those outside its window.
    """
    most, total, values = state
    keys, slots = source
    narrow: tl.constexpr = keys.dtype.element_ty.primitive_bitwidth == 8
    if narrow:
        even, odd = halves(values)
    for start in tl.range(begin, end, BLOCK_N, num_stages=STAGES):
        position = start + tl.arange(0, BLOCK_N)
        # Positions behind the last are the last again, whose value is a number, and get no weight.
        slot = tl.load(slots + (tl.minimum(position, end - 1) if MASKED else position))
        key = load_block(keys, slot, SLOT, HEAD_DIM, query.shape[1]).to(query.dtype)
        ahead = at[:, None] - position[None, :]
        score = ruled(tl.dot(query, key.T, input_precision="ieee") * scale, ahead, slope, softcap, bias, farthest)
        if MASKED:
            seen = (position < end)[None, :]
            if CAUSAL:
                seen &= (ahead >= 0) & (ahead < window)
            score = tl.where(seen, score, float("-inf"))
        greater = tl.maximum(most, tl.max(score, 1))
        fade = tl.exp2(most - greater)
        weight = tl.exp2(score - greater[:, None])
        total = total * fade + tl.sum(weight, 1)
        if narrow:
            left, right = load_halves(keys + SLOT // 2, slot, SLOT, HEAD_DIM, query.shape[1], query.dtype)
            weight = weight.to(query.dtype)
            even = tl.dot(weight, left, even * fade[:, None], input_precision="ieee")
            odd = tl.dot(weight, right, odd * fade[:, None], input_precision="ieee")
        else:
            value = load_block(keys + SLOT // 2, slot, SLOT, HEAD_DIM, query.shape[1])
            values = tl.dot(weight.to(value.dtype), value, values * fade[:, None], input_precision="ieee")
        most = greater
    if narrow:
        values = tl.interleave(even, odd)
    return most, total, values


@triton.jit
def walk_by_sums(
    query: tl.tensor,
    newest: tl.tensor,
    source: tl.tuple,
    begin: tl.tensor,
    end: tl.tensor,
    slope: tl.tensor,
    scale: float,
    softcap: float,
    bias: tl.tensor,
    farthest: int,
    sink: tl.tensor,
    first: tl.tensor,
    SLOT: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_N: tl.constexpr,
    STAGES: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """What `walk` makes from no keys but a sink, see `begun`, for one query [1, d] at the newest position.

    Each place in a block of keys has a maximum and sums of its own until the end, so that threads need not agree.
    """
    keys, slots = source
    # Of one dimension: in two its layout would become that of the keys, a column a thread.
    query = tl.reshape(query, (query.shape[1],)).to(tl.float32) * scale
    holds_sink = first & (tl.arange(0, BLOCK_N) == 0)
    most, total, values = begun(sink, holds_sink, BLOCK_N, query.shape[0])
    for start in tl.range(begin, end, BLOCK_N, num_stages=STAGES):
        position = start + tl.arange(0, BLOCK_N)
        slot = tl.load(slots + tl.minimum(position, end - 1))
        key = load_block(keys, slot, SLOT, HEAD_DIM, query.shape[0])
        value = load_block(keys + SLOT // 2, slot, SLOT, HEAD_DIM, query.shape[0])
        score = ruled(tl.sum(key.to(tl.float32) * query[None, :], 1), newest - position, slope, softcap, bias, farthest)
        score = tl.where(position < end, score, float("-inf"))
        greater = tl.maximum(most, score)
        fade = tl.exp2(most - greater)
        weight = tl.exp2(score - greater)
        total = total * fade + weight
        values = values * fade[:, None] + weight[:, None] * value.to(tl.float32)
        most = greater
    top = tl.max(most, 0, keep_dims=True)
    weight = tl.exp2(most - top)
    return top, tl.sum(total * weight, 0, keep_dims=True), tl.sum(values * weight[:, None], 0, keep_dims=True)
