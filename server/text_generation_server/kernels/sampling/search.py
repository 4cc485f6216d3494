"""The last token that a row keeps, found by bisection among gathered ones. Knows nothing of those that were not."""

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from text_generation_server.kernels.sampling.best import NEGATIVE_INFINITY
from text_generation_server.kernels.sampling.levels import short, span, target
from text_generation_server.kernels.sampling.scores import LAST_KEY, mass

TILE = 2048
"""Gathered tokens that are kept at hand while they are searched: with so few, levels are not tallied again."""


@triton.jit
def _weights(
    tokens: tl.tensor,
    start: tl.tensor,
    count: tl.tensor,
    best: tl.tensor,
    temperature: tl.tensor,
    counted: tl.tensor,
    SIZE: tl.constexpr,
    BITS: tl.constexpr,
) -> tl.tensor:
    """The short keys of a tile of gathered tokens, and 1 for each or its mass [SIZE] int64."""
    place = start + tl.arange(0, SIZE)
    values = tl.load(tokens + place, mask=place < count, other=NEGATIVE_INFINITY).to(tl.float32)
    weight = tl.where(counted, 1, mass(values, best, temperature))
    return short(values, BITS), tl.where(place < count, weight, 0)


@triton.jit
def _total(
    key: tl.tensor,
    weight: tl.tensor,
    least: tl.tensor,
    tokens: tl.tensor,
    count: tl.tensor,
    best: tl.tensor,
    temperature: tl.tensor,
    counted: tl.tensor,
    SIZE: tl.constexpr,
    BITS: tl.constexpr,
) -> tl.tensor:
    """The weight of the gathered tokens with this key or a greater one; the first tile of them is given."""
    total = tl.sum(tl.where(key >= least.to(tl.int32), weight, 0), 0)
    start = tl.full([], SIZE, tl.int64)
    while start < count:
        others, weights = _weights(tokens, start, count, best, temperature, counted, SIZE, BITS)
        total += tl.sum(tl.where(others >= least.to(tl.int32), weights, 0), 0)
        start += SIZE
    return total


@triton.jit
def _last_kept(
    low: tl.tensor,
    high: tl.tensor,
    above: tl.tensor,
    wanted: tl.tensor,
    tokens: tl.tensor,
    count: tl.tensor,
    best: tl.tensor,
    temperature: tl.tensor,
    counted: tl.tensor,
    SIZE: tl.constexpr,
    BITS: tl.constexpr,
) -> tl.tensor:
    """The key at which enough is kept: at `low` it is, at `high` it is not. Neighbours end the search at once."""
    key, weight = _weights(tokens, tl.zeros([], tl.int64), count, best, temperature, counted, SIZE, BITS)
    while high - low > 1:
        middle = (low + high) >> 1
        reached = above + _total(key, weight, middle, tokens, count, best, temperature, counted, SIZE, BITS)
        low = tl.where(reached >= wanted, middle, low)
        # Just enough is as good as the last token's own key.
        high = tl.where(reached > wanted, high, tl.where(reached == wanted, middle + 1, middle))
    return low


@triton.jit
def search(
    gathered: tl.tensor,
    keys: tl.tensor,
    least: tl.tensor,
    temperatures: tl.tensor,
    top_k: tl.tensor,
    top_p: tl.tensor,
    tallies: tl.tensor,
    thresholds: tl.tensor,
    vocab: int,
    chunks: int,
    ROUNDS: tl.constexpr,
    COUNT: tl.constexpr,
    WIDTH: tl.constexpr,
    ENOUGH: tl.constexpr,
    BITS: tl.constexpr,
    SIZE: tl.constexpr,
    CHUNKS: tl.constexpr,
    PDL: tl.constexpr,
) -> None:
    """One program a row; `thresholds` [S] int32 get the keys."""
    row = tl.program_id(0).to(tl.int64)
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    k, share, temperature = tl.load(top_k + row), tl.load(top_p + row), tl.load(temperatures + row)
    tally, tokens = tallies + row * WIDTH, gathered + row * vocab
    count = tl.load(tally + ROUNDS * COUNT)
    keys, least = keys + row * chunks, least + row * chunks
    low, high, above, wanted, best = span(
        keys, least, temperature, tally, k, share, vocab, chunks, ROUNDS, COUNT, ENOUGH, BITS, CHUNKS
    )
    counted, limited = k < vocab, (k < vocab) | (share < 1.0)
    low = _last_kept(low, high, above, wanted, tokens, count, best, temperature, counted, SIZE, BITS)
    if counted & (share < 1.0):
        counted = k < 0
        key, weight = _weights(tokens, tl.zeros([], tl.int64), count, best, temperature, counted, SIZE, BITS)
        needed = target(share, _total(key, weight, low, tokens, count, best, temperature, counted, SIZE, BITS))
        low = _last_kept(low, high, above, needed, tokens, count, best, temperature, counted, SIZE, BITS)
    tl.store(thresholds + row, tl.where(limited, (low << BITS).to(tl.int32), -LAST_KEY - 1))
