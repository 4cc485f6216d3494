"""Between which logits a row's last token lies: levels from the best down to the first without mass, and levels of these.

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
def level_value(upper: tl.tensor, lower: tl.tensor, LEVEL: tl.constexpr, COUNT: tl.constexpr) -> tl.tensor:
    """The least value of a level below `upper`; the last one ends at `lower`."""
    if LEVEL + 1 == COUNT:
        return lower
    else:
        # Written as one operation, because a compiler that may fuse two need not do so in every kernel.
        return tl.maximum(tl.fma(lower - upper, (LEVEL + 1) / COUNT, upper), lower)


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
        is wanted; whether another round is of no use, as the keys are neighbours or few tokens are left.
    """
    everything = tl.load(tally + COUNT - 1)
    wanted = tl.where(k < vocab, tl.minimum(k.to(tl.int64), everything), target(share, everything))
    lower, upper, above, within, ended = lowest, best, tl.zeros([], tl.int64), everything, k < 0
    low, high = short(lowest, BITS).to(tl.int64), short(best, BITS).to(tl.int64) + 1
    for turn in tl.static_range(ROUNDS):
        first, last = upper, lower
        for level in tl.static_range(COUNT):
            value, reached = level_value(first, last, level, COUNT), tl.load(tally + turn * COUNT + level)
            # Levels descend and tallies ascend: it lies between the last that is too little and the first that is not.
            little, enough = ~ended & (reached < wanted), ~ended & (reached >= wanted)
            upper, above = tl.where(little, value, upper), tl.where(little, reached, above)
            high = tl.where(little, short(value, BITS).to(tl.int64), high)
            lower = tl.where(enough, tl.maximum(lower, value), lower)
            within = tl.where(enough, tl.minimum(within, reached), within)
        low = short(lower, BITS).to(tl.int64)
        ended |= (high - low <= 1) | ((k < vocab) & (within <= ENOUGH))
    return lower, upper, low, high, above, wanted, ended
