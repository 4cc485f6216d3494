"""Between which logits a row is cut off: levels from the best one down to the first without mass, and levels of these.

Knows nothing of how levels are tallied.
"""

import triton
import triton.language as tl

from text_generation_server.kernels.sampling.best import NEGATIVE_INFINITY, best_of
from text_generation_server.kernels.sampling.scores import WEIGHTLESS, ordered


@triton.jit
def extremes(keys: tl.tensor, least: tl.tensor, temperature: tl.tensor, chunks: int, CHUNKS: tl.constexpr) -> tl.tensor:
    """The greatest logit of a row, and the least that levels must reach to."""
    best, _ = best_of(keys, chunks, CHUNKS)
    chunk = tl.arange(0, CHUNKS)
    lowest = tl.min(tl.load(least + chunk, mask=chunk < chunks, other=-NEGATIVE_INFINITY), 0)
    return best, tl.maximum(lowest, tl.fma(temperature, -WEIGHTLESS, best))


@triton.jit
def level_value(upper: tl.tensor, lower: tl.tensor, level: tl.tensor, COUNT: tl.constexpr) -> tl.tensor:
    """The least value of a level below `upper`; the last one ends at `lower`."""
    # Written as one operation, because a compiler that may fuse two need not do so in every kernel.
    value = tl.fma(lower - upper, (level + 1).to(tl.float32) / COUNT, upper)
    return tl.where(level == COUNT - 1, lower, tl.maximum(value, lower))


@triton.jit
def short(value: tl.tensor, BITS: tl.constexpr) -> tl.tensor:
    """The key of a value without the low bits that do not tell values of a dtype apart."""
    return ordered(value) >> BITS


@triton.jit
def target(share: tl.tensor, whole: tl.tensor) -> tl.tensor:
    """The mass that a share of a mass comes to, rounded up."""
    return tl.minimum(tl.ceil(share * whole.to(tl.float64)).to(tl.int64), whole)


@triton.jit
def bracket(
    tally: tl.tensor,
    best: tl.tensor,
    lowest: tl.tensor,
    k: tl.tensor,
    share: tl.tensor,
    vocab: int,
    ROUNDS: tl.constexpr,
    COUNT: tl.constexpr,
    BITS: tl.constexpr,
    ENOUGH: tl.constexpr,
) -> tl.tensor:
    """Where the first cut of a row lies, top-k's if it has one, after some rounds of COUNT levels each.

    Every level's tally is of all tokens at or above it: their number where there is a top-k, else their mass.

    Returns:
        The values the cut lies between, the lower and then the upper; their short keys as int64; the tally above; what
        is wanted; whether another round is of no use: nothing is cut, the keys are neighbours, or few tokens are left.
    """
    everything = tl.load(tally + COUNT - 1)
    wanted = tl.where(k < vocab, tl.minimum(k.to(tl.int64), everything), target(share, everything))
    lower, upper, above, within = lowest, best, tl.zeros([], tl.int64), everything
    ended = (k >= vocab) & (share >= 1.0)
    low, high = short(lowest, BITS).to(tl.int64), short(best, BITS).to(tl.int64) + 1
    for turn in tl.static_range(ROUNDS):
        first, last = upper, lower
        for level in tl.static_range(COUNT):
            value = level_value(first, last, tl.full([], level, tl.int32), COUNT)
            reached = tl.load(tally + turn * COUNT + level)
            # Levels descend and tallies ascend: it lies between the last that is too little and the first that is not.
            little, enough = ~ended & (reached < wanted), ~ended & (reached >= wanted)
            upper, above = tl.where(little, value, upper), tl.where(little, reached, above)
            high = tl.where(little, short(value, BITS).to(tl.int64), high)
            lower = tl.where(enough, tl.maximum(lower, value), lower)
            within = tl.where(enough, tl.minimum(within, reached), within)
        low = short(lower, BITS).to(tl.int64)
        ended |= (high - low <= 1) | ((k < vocab) & (within <= ENOUGH))
    return lower, upper, low, high, above, wanted, ended


@triton.jit
def span(
    keys: tl.tensor,
    least: tl.tensor,
    temperature: tl.tensor,
    tally: tl.tensor,
    k: tl.tensor,
    share: tl.tensor,
    vocab: int,
    chunks: int,
    ROUNDS: tl.constexpr,
    COUNT: tl.constexpr,
    ENOUGH: tl.constexpr,
    BITS: tl.constexpr,
    CHUNKS: tl.constexpr,
) -> tl.tensor:
    """Between which short keys all cuts of a row lie (equal ones if there is none), as `bracket` has them.

    Then the tally above, what is wanted, and the best logit.
    """
    best, lowest = extremes(keys, least, temperature, chunks, CHUNKS)
    _, _, low, high, above, wanted, _ = bracket(tally, best, lowest, k, share, vocab, ROUNDS, COUNT, BITS, ENOUGH)
    # What top-k keeps is what top-p takes its share of: all of it has to be looked at.
    both = (k < vocab) & (share < 1.0)
    high = tl.where(both, short(best, BITS).to(tl.int64) + 1, high)
    high = tl.where((k < vocab) | (share < 1.0), high, low)
    return low, high, tl.where(both, 0, above), wanted, best
