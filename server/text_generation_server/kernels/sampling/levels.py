"""The levels between a row's best token and the first without mass, and between which of them its cuts lie.

Knows nothing of how levels are tallied.
"""

import triton
import triton.language as tl

from text_generation_server.kernels.sampling.best import NEGATIVE_INFINITY, best_of
from text_generation_server.kernels.sampling.scores import LAST_KEY, WEIGHTLESS, ordered


@triton.jit
def extremes(keys: tl.tensor, least: tl.tensor, temperature: tl.tensor, chunks: int, CHUNKS: tl.constexpr) -> tl.tensor:
    """The greatest logit of a row, and the least that levels must reach to."""
    best, _ = best_of(keys, chunks, CHUNKS)
    chunk = tl.arange(0, CHUNKS)
    lowest = tl.min(tl.load(least + chunk, mask=chunk < chunks, other=-NEGATIVE_INFINITY), 0)
    return best, tl.maximum(lowest, tl.fma(temperature, -WEIGHTLESS, best))


@triton.jit
def level_key(level: tl.tensor, best: tl.tensor, lowest: tl.tensor, COUNT: tl.constexpr) -> tl.tensor:
    """The least key of a level; the last one ends at `lowest`."""
    # Written as one operation, because a compiler that may fuse two need not do so in every kernel.
    value = tl.fma(lowest - best, (level + 1).to(tl.float32) / COUNT, best)
    return ordered(tl.where(level == COUNT - 1, lowest, tl.maximum(value, lowest)))


@triton.jit
def target(share: tl.tensor, whole: tl.tensor) -> tl.tensor:
    """The mass that a share of a mass comes to, rounded up."""
    return tl.minimum(tl.ceil(share * whole.to(tl.float64)).to(tl.int64), whole)


@triton.jit
def _at(values: tl.tensor, level: tl.tensor, COUNT: tl.constexpr) -> tl.tensor:
    """One of a row's [COUNT] numbers; nothing above the first level."""
    return tl.sum(tl.where(tl.arange(0, COUNT) == level, values, 0), 0)


@triton.jit
def bracket(
    tally: tl.tensor, best: tl.tensor, lowest: tl.tensor, k: tl.tensor, share: tl.tensor, COUNT: tl.constexpr
) -> tl.tensor:
    """Between which keys both cuts lie, at or above the first and below the second.

    Then the tokens above these and their mass, the k that can be reached, and what is kept if that is everything (−1
    where it is not).
    """
    level = tl.arange(0, COUNT)
    counts, masses = tl.load(tally + level), tl.load(tally + COUNT + level)
    reachable = _at(counts, COUNT - 1, COUNT)
    k = tl.minimum(k.to(tl.int64), reachable)
    cut = tl.sum((counts < k).to(tl.int32), 0)
    everything = _at(masses, COUNT - 1, COUNT)
    # How much top-k keeps is known between two levels only, unless it keeps everything.
    whole = k == reachable
    least = tl.where(whole, everything, _at(masses, cut - 1, COUNT))
    first = tl.minimum(tl.sum((masses < target(share, least)).to(tl.int32), 0), cut)
    first = tl.where(share < 1.0, first, cut)
    last = tl.where(whole, first, cut)
    low = level_key(last, best, lowest, COUNT)
    high = tl.where(first == 0, LAST_KEY, level_key(first - 1, best, lowest, COUNT))
    return low, high, _at(counts, first - 1, COUNT), _at(masses, first - 1, COUNT), k, tl.where(whole, everything, -1)
