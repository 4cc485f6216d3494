"""Where top-k and top-p cut each row off: the key of the last token that is kept, exactly, with ties at its end.

Twin: `TopK` and `TopP` of `sampling/processors.py`. Nothing is sorted. A few levels between a row's best token and the
first that has no mass are tallied, then a few of the level in which the cut lies; only the tokens of the last are
gathered, and the cut searched among them by bisection. Knows nothing of how a token is then drawn.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from text_generation_server.kernels.launch import overlaps
from text_generation_server.kernels.sampling.best import NEGATIVE_INFINITY, Survey
from text_generation_server.kernels.sampling.levels import bracket, extremes, level_value, short, target
from text_generation_server.kernels.sampling.scores import LAST_KEY, mass

LEVELS = 8
ROUNDS = 3
"""How often levels are tallied where a cut may lie anywhere; once is enough for a small top-k."""

TALLY = 32
"""int64 numbers of a row: the tally of each level of each round, and how many tokens were gathered; then room."""

CHUNK = 4096
"""Logits a program: what it adds up for each level is many times what it costs to add up the programs."""

TILE = 2048
"""Gathered tokens that are looked at together. So few need no further round."""

SHIFT = {torch.float32: 0, torch.float16: 13, torch.bfloat16: 16}
"""The low bits of fp32 keys that do not tell values of a dtype apart."""


@triton.jit
def _add_levels(
    tally: tl.tensor,
    key: tl.tensor,
    weight: tl.tensor,
    upper: tl.tensor,
    lower: tl.tensor,
    COUNT: tl.constexpr,
    BITS: tl.constexpr,
) -> None:
    """Add the weights [SIZE] at or above each level between two values to its tally."""
    for level in tl.static_range(COUNT):
        above = key >= short(level_value(upper, lower, level, COUNT), BITS)
        tl.atomic_add(tally + level, tl.sum(tl.where(above, weight, 0), 0).to(tl.int64), sem="relaxed")


@triton.jit
def _tally(
    logits: tl.tensor,
    keys: tl.tensor,
    least: tl.tensor,
    temperatures: tl.tensor,
    top_k: tl.tensor,
    top_p: tl.tensor,
    tallies: tl.tensor,
    row_stride: int,
    vocab: int,
    chunks: int,
    TURN: tl.constexpr,
    COUNT: tl.constexpr,
    WIDTH: tl.constexpr,
    ENOUGH: tl.constexpr,
    BITS: tl.constexpr,
    SIZE: tl.constexpr,
    CHUNKS: tl.constexpr,
    PDL: tl.constexpr,
) -> None:
    row, start = tl.program_id(1).to(tl.int64), tl.program_id(0) * SIZE
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    k, share = tl.load(top_k + row), tl.load(top_p + row)
    if (k < vocab) | (share < 1.0):
        temperature, tally = tl.load(temperatures + row), tallies + row * WIDTH
        best, lowest = extremes(keys + row * chunks, least + row * chunks, temperature, chunks, CHUNKS)
        lower, upper, _, _, _, _, ended = bracket(tally, best, lowest, k, share, vocab, TURN, COUNT, BITS, ENOUGH)
        if not ended:
            token = start + tl.arange(0, SIZE)
            held = token < vocab
            values = tl.load(logits + row * row_stride + token, mask=held, other=NEGATIVE_INFINITY).to(tl.float32)
            key, tally = short(values, BITS), tally + TURN * COUNT
            if k < vocab:
                _add_levels(tally, key, held.to(tl.int32), upper, lower, COUNT, BITS)
            else:
                _add_levels(tally, key, mass(values, best, temperature), upper, lower, COUNT, BITS)


@triton.jit
def _span(
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
    """The short keys between which all cuts of a row lie, the tally above them, what is wanted, and the best logit."""
    best, lowest = extremes(keys, least, temperature, chunks, CHUNKS)
    _, _, low, high, above, wanted, _ = bracket(tally, best, lowest, k, share, vocab, ROUNDS, COUNT, BITS, ENOUGH)
    # What top-k keeps is what top-p takes its share of: all of it has to be looked at.
    both = (k < vocab) & (share < 1.0)
    high = tl.where(both, short(best, BITS).to(tl.int64) + 1, high)
    return low, high, tl.where(both, 0, above), wanted, best


@triton.jit
def _gather(
    logits: tl.tensor,
    keys: tl.tensor,
    least: tl.tensor,
    temperatures: tl.tensor,
    top_k: tl.tensor,
    top_p: tl.tensor,
    tallies: tl.tensor,
    gathered: tl.tensor,
    row_stride: int,
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
    row, start = tl.program_id(1).to(tl.int64), tl.program_id(0) * SIZE
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    k, share = tl.load(top_k + row), tl.load(top_p + row)
    if (k < vocab) | (share < 1.0):
        temperature, tally = tl.load(temperatures + row), tallies + row * WIDTH
        keys, least = keys + row * chunks, least + row * chunks
        low, high, _, _, _ = _span(
            keys, least, temperature, tally, k, share, vocab, chunks, ROUNDS, COUNT, ENOUGH, BITS, CHUNKS
        )
        if high - low > 1:
            token = start + tl.arange(0, SIZE)
            held = token < vocab
            values = tl.load(logits + row * row_stride + token, mask=held, other=NEGATIVE_INFINITY)
            key = short(values.to(tl.float32), BITS)
            wanted = (held & (key >= low.to(tl.int32)) & (key < high.to(tl.int32))).to(tl.int32)
            found = tl.sum(wanted, 0)
            if found > 0:
                # Their order is left to chance: they are only ever counted and added up.
                end = tl.atomic_add(tally + ROUNDS * COUNT, found.to(tl.int64), sem="relaxed")
                place = end + tl.cumsum(wanted, 0) - 1
                tl.store(gathered + row * vocab + place, values, mask=wanted != 0)


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
def _search(
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
    row = tl.program_id(0).to(tl.int64)
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    k, share, temperature = tl.load(top_k + row), tl.load(top_p + row), tl.load(temperatures + row)
    threshold = -LAST_KEY - 1
    if (k < vocab) | (share < 1.0):
        tally, tokens = tallies + row * WIDTH, gathered + row * vocab
        count = tl.load(tally + ROUNDS * COUNT)
        keys, least = keys + row * chunks, least + row * chunks
        low, high, above, wanted, best = _span(
            keys, least, temperature, tally, k, share, vocab, chunks, ROUNDS, COUNT, ENOUGH, BITS, CHUNKS
        )
        counted = k < vocab
        low = _last_kept(low, high, above, wanted, tokens, count, best, temperature, counted, SIZE, BITS)
        if counted & (share < 1.0):
            counted = k < 0
            key, weight = _weights(tokens, tl.zeros([], tl.int64), count, best, temperature, counted, SIZE, BITS)
            kept = _total(key, weight, low, tokens, count, best, temperature, counted, SIZE, BITS)
            needed = target(share, kept)
            low = _last_kept(low, high, above, needed, tokens, count, best, temperature, counted, SIZE, BITS)
        threshold = (low << BITS).to(tl.int32)
    tl.store(thresholds + row, threshold)


def cut(
    logits: Tensor, found: Survey, tallies: Tensor, temperatures: Tensor, top_k: Tensor, top_p: Tensor, deep: bool
) -> Tensor:
    """The least key of each row that top-k, and then top-p among what that keeps, leave.

    Args:
        logits: [S, vocab] in any float dtype, rows contiguous.
        found: their survey.
        tallies: [S, TALLY] int64, zeros.
        temperatures: [S] fp32, above 0.
        top_k: [S] int32, at least 1; the size of the vocabulary where it is off.
        top_p: [S] fp64, above 0; 1 where it is off.
        deep: whether a cut may lie behind many tokens. It changes how fast a cut is found, not which tokens are kept.

    Returns:
        keys [S] int32, the least there is for rows that ask for neither.
    """
    rows, vocab = logits.shape
    chunks = found.keys.shape[1]
    gathered = torch.empty(rows, vocab, dtype=logits.dtype, device=logits.device)
    thresholds = torch.empty(rows, dtype=torch.int32, device=logits.device)
    asked = (found.keys, found.least, temperatures, top_k, top_p, tallies)
    pdl, rounds = overlaps(logits.device), ROUNDS if deep else 1
    sizes = {"COUNT": LEVELS, "WIDTH": TALLY, "ENOUGH": TILE, "BITS": SHIFT[logits.dtype], "PDL": pdl}
    sizes |= {"CHUNKS": triton.next_power_of_2(chunks), "launch_pdl": pdl}
    if rows:
        grid, shape = (triton.cdiv(vocab, CHUNK), rows), (logits.stride(0), vocab, chunks)
        for turn in range(rounds):
            _tally[grid](logits, *asked, *shape, TURN=turn, **sizes, SIZE=CHUNK, num_warps=4)
        _gather[grid](logits, *asked, gathered, *shape, ROUNDS=rounds, **sizes, SIZE=CHUNK, num_warps=4)
        last = (gathered, *asked, thresholds, vocab, chunks)
        _search[(rows,)](*last, ROUNDS=rounds, **sizes, SIZE=TILE, num_warps=8)
    return thresholds
