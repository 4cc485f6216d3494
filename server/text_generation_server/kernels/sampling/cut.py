"""Where top-k and top-p cut each row off: the key of the last token that is kept, exactly, with ties at its end.

Twin: `TopK` and `TopP` of `sampling/processors.py`. Nothing is sorted. A few levels between a row's best token and the
first that has no mass are tallied; only the tokens of the levels in which the cuts lie are gathered, and the cuts
searched among them by bisection. Knows nothing of how a token is then drawn.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from text_generation_server.kernels.launch import overlaps
from text_generation_server.kernels.sampling.best import NEGATIVE_INFINITY, Survey
from text_generation_server.kernels.sampling.levels import bracket, extremes, level_key, target
from text_generation_server.kernels.sampling.scores import LAST_KEY, mass, ordered

LEVELS = 4
TALLY = 32
"""int64 numbers of a row: tokens at or above each level, their masses, and how many tokens were gathered; then room."""

CHUNK = 4096
"""Logits a program: what it adds up for each level is many times what it costs to add up the programs."""

TILE = 2048
"""Gathered tokens that are looked at together."""

SHIFT = {torch.float32: 0, torch.float16: 13, torch.bfloat16: 16}
"""The low bits of fp32 keys that do not tell values of a dtype apart."""


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
    COUNT: tl.constexpr,
    WIDTH: tl.constexpr,
    SIZE: tl.constexpr,
    CHUNKS: tl.constexpr,
    PDL: tl.constexpr,
) -> None:
    row, start = tl.program_id(1).to(tl.int64), tl.program_id(0) * SIZE
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    if (tl.load(top_k + row) < vocab) | (tl.load(top_p + row) < 1.0):
        temperature = tl.load(temperatures + row)
        best, lowest = extremes(keys + row * chunks, least + row * chunks, temperature, chunks, CHUNKS)
        token = start + tl.arange(0, SIZE)
        held = token < vocab
        values = tl.load(logits + row * row_stride + token, mask=held, other=NEGATIVE_INFINITY).to(tl.float32)
        key, weight = ordered(values), mass(values, best, temperature)
        for level in tl.static_range(COUNT):
            above = held & (key >= level_key(level + tl.zeros([], tl.int32), best, lowest, COUNT))
            slot = tallies + row * WIDTH + level
            tl.atomic_add(slot, tl.sum(above.to(tl.int32), 0).to(tl.int64), sem="relaxed")
            tl.atomic_add(slot + COUNT, tl.sum(tl.where(above, weight, 0), 0), sem="relaxed")


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
    COUNT: tl.constexpr,
    WIDTH: tl.constexpr,
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
        tally = tallies + row * WIDTH
        best, lowest = extremes(keys + row * chunks, least + row * chunks, tl.load(temperatures + row), chunks, CHUNKS)
        low, high, _, _, _, _ = bracket(tally, best, lowest, k, share, COUNT)
        token = start + tl.arange(0, SIZE)
        held = token < vocab
        values = tl.load(logits + row * row_stride + token, mask=held, other=NEGATIVE_INFINITY)
        key = ordered(values.to(tl.float32))
        wanted = (held & (key >= low) & (key < high)).to(tl.int32)
        found = tl.sum(wanted, 0)
        if found > 0:
            # Their order is left to chance: they are only ever counted and added up.
            place = tl.atomic_add(tally + 2 * COUNT, found.to(tl.int64), sem="relaxed") + tl.cumsum(wanted, 0) - 1
            tl.store(gathered + row * vocab + place, values, mask=wanted != 0)


@triton.jit
def _total(
    gathered: tl.tensor,
    count: tl.tensor,
    threshold: tl.tensor,
    best: tl.tensor,
    temperature: tl.tensor,
    WEIGHED: tl.constexpr,
    SIZE: tl.constexpr,
) -> tl.tensor:
    """How many gathered tokens have this key or a greater one, or their mass."""
    total = tl.zeros([SIZE], tl.int64)
    start = tl.zeros([], tl.int64)
    while start < count:
        place = start + tl.arange(0, SIZE)
        values = tl.load(gathered + place, mask=place < count, other=NEGATIVE_INFINITY).to(tl.float32)
        above = (place < count) & (ordered(values) >= threshold)
        total += tl.where(above, mass(values, best, temperature) if WEIGHED else 1, 0)
        start += SIZE
    return tl.sum(total, 0)


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
    COUNT: tl.constexpr,
    WIDTH: tl.constexpr,
    SIZE: tl.constexpr,
    CHUNKS: tl.constexpr,
    BITS: tl.constexpr,
    PDL: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64)
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    k, share, temperature = tl.load(top_k + row), tl.load(top_p + row), tl.load(temperatures + row)
    threshold = -LAST_KEY - 1
    if (k < vocab) | (share < 1.0):
        tally = tallies + row * WIDTH
        best, lowest = extremes(keys + row * chunks, least + row * chunks, temperature, chunks, CHUNKS)
        first, end, count, above, wanted, kept = bracket(tally, best, lowest, k, share, COUNT)
        tokens, held = gathered + row * vocab, tl.load(tally + 2 * COUNT)
        low = first.to(tl.int64) >> BITS
        bound = (tl.minimum(end, ordered(best)).to(tl.int64) >> BITS) + 1
        # At `low` enough is kept, at `high` it is not; equal neighbours end the search before it begins.
        high = tl.where(kept < 0, bound, low)
        while high - low > 1:
            middle = (low + high) >> 1
            reached = count + _total(tokens, held, middle << BITS, best, temperature, False, SIZE) >= wanted
            low, high = tl.where(reached, middle, low), tl.where(reached, high, middle)
        if kept < 0:
            kept = above + _total(tokens, held, low << BITS, best, temperature, True, SIZE)
        needed = target(share, kept)
        high = tl.where(share < 1.0, bound, low)
        while high - low > 1:
            middle = (low + high) >> 1
            reached = above + _total(tokens, held, middle << BITS, best, temperature, True, SIZE) >= needed
            low, high = tl.where(reached, middle, low), tl.where(reached, high, middle)
        threshold = (low << BITS).to(tl.int32)
    tl.store(thresholds + row, threshold)


def cut(logits: Tensor, found: Survey, tallies: Tensor, temperatures: Tensor, top_k: Tensor, top_p: Tensor) -> Tensor:
    """The least key of each row that top-k, and then top-p among what that keeps, leave.

    Args:
        logits: [S, vocab] in any float dtype, rows contiguous.
        found: their survey.
        tallies: [S, TALLY] int64, zeros.
        temperatures: [S] fp32, above 0.
        top_k: [S] int32, at least 1; the size of the vocabulary where it is off.
        top_p: [S] fp64, above 0; 1 where it is off.

    Returns:
        keys [S] int32, the least there is for rows that ask for neither.
    """
    rows, vocab = logits.shape
    chunks = found.keys.shape[1]
    gathered = torch.empty(rows, vocab, dtype=logits.dtype, device=logits.device)
    thresholds = torch.empty(rows, dtype=torch.int32, device=logits.device)
    asked = (found.keys, found.least, temperatures, top_k, top_p, tallies)
    sizes = {"COUNT": LEVELS, "WIDTH": TALLY, "CHUNKS": triton.next_power_of_2(chunks)}
    pdl = overlaps(logits.device)
    if rows:
        grid, shape = (triton.cdiv(vocab, CHUNK), rows), (logits.stride(0), vocab, chunks)
        _tally[grid](logits, *asked, *shape, **sizes, SIZE=CHUNK, PDL=pdl, launch_pdl=pdl, num_warps=4)
        _gather[grid](logits, *asked, gathered, *shape, **sizes, SIZE=CHUNK, PDL=pdl, launch_pdl=pdl, num_warps=4)
        _search[(rows,)](
            *(gathered, *asked, thresholds, vocab, chunks),
            **sizes,
            SIZE=TILE,
            BITS=SHIFT[logits.dtype],
            PDL=pdl,
            launch_pdl=pdl,
            num_warps=8,
        )
    return thresholds
