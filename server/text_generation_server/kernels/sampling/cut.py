"""Where top-k and top-p cut each row off: the key of the last token that is kept, exactly, with ties at its end.

Twins: `sampling/warpers.py::TopK` and `::TopP`. Nothing is sorted. A few levels between a row's best token and the
first that has no mass are tallied, then a few of the level in which the cut lies; only the tokens of the last are
gathered, to be searched. Knows nothing of how a token is then drawn.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from text_generation_server.kernels.dependent_launch import overlaps
from text_generation_server.kernels.sampling.best import NEGATIVE_INFINITY, Survey
from text_generation_server.kernels.sampling.levels import bracket, extremes, level_value, short, span
from text_generation_server.kernels.sampling.scores import mass
from text_generation_server.kernels.sampling.search import TILE, search

LEVELS = 8
ROUNDS = 3
"""How often levels are tallied where a cut may lie anywhere; once is enough for a small top-k."""

TALLY = 32
"""int64 numbers of a row: the tally of each level of each round, and how many tokens were gathered; then room."""

CHUNK = 4096
"""Logits a program: what it adds up for each level is many times what it costs to add up the programs."""

MANY_ROWS = 8
"""From here on there are programs enough to hide what each waits for, and fewer warps add up among themselves less."""

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
    level = tl.arange(0, COUNT)
    least = short(level_value(upper, lower, level, COUNT), BITS)
    weights = tl.where(key[None, :] >= least[:, None], weight[None, :], 0)
    tl.atomic_add(tally + level, tl.sum(weights, 1).to(tl.int64), sem="relaxed")


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
    temperature, tally = tl.load(temperatures + row), tallies + row * WIDTH
    keys, least = keys + row * chunks, least + row * chunks
    low, high, _, _, _ = span(
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
    warps = 4 if rows >= MANY_ROWS else 8
    if rows:
        grid, shape = (triton.cdiv(vocab, CHUNK), rows), (logits.stride(0), vocab, chunks)
        for turn in range(rounds):
            _tally[grid](logits, *asked, *shape, TURN=turn, **sizes, SIZE=CHUNK, num_warps=warps)
        _gather[grid](logits, *asked, gathered, *shape, ROUNDS=rounds, **sizes, SIZE=CHUNK, num_warps=warps)
        last = (gathered, *asked, thresholds, vocab, chunks)
        search[(rows,)](*last, ROUNDS=rounds, **sizes, SIZE=TILE, num_warps=8)
    return thresholds
