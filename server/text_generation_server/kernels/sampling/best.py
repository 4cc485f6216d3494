"""The best token of each row and its log-probability, from one look at the logits. Knows no other way to choose.

Twin: `argmax` and `log_softmax`. Every chunk of a row finds its own best token; a second, small kernel merges them.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from text_generation_server.kernels.dependent_launch import overlaps
from text_generation_server.kernels.sampling.scores import LAST_KEY, ordered, value_of

CHUNK = 2048
"""Logits a program: enough programs for one row to spread over a GPU, and two loads of 16 bytes a thread."""

NEGATIVE_INFINITY = tl.constexpr(float("-inf"))


class Survey(NamedTuple):
    """What each chunk of each row holds [S, chunks].

    keys: of its greatest logit, int32. ids: where that comes first, int32. sums: of exp(logit − greatest), fp32.
    least: its smallest logit, fp32.
    """

    keys: Tensor
    ids: Tensor
    sums: Tensor
    least: Tensor


@triton.jit
def _survey(
    logits: tl.tensor,
    keys: tl.tensor,
    ids: tl.tensor,
    sums: tl.tensor,
    least: tl.tensor,
    cleared: tl.tensor,
    row_stride: int,
    vocab: int,
    CLEARED: tl.constexpr,
    SIZE: tl.constexpr,
    PDL: tl.constexpr,
) -> None:
    row, chunk = tl.program_id(1).to(tl.int64), tl.program_id(0)
    token = chunk * SIZE + tl.arange(0, SIZE)
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    held = token < vocab
    values = tl.load(logits + row * row_stride + token, mask=held, other=NEGATIVE_INFINITY).to(tl.float32)
    key = ordered(values)
    best = tl.max(key, 0)
    summed = tl.where(values == NEGATIVE_INFINITY, 0.0, tl.exp(values - value_of(best)))
    place = row * tl.num_programs(0) + chunk
    tl.store(keys + place, best)
    tl.store(ids + place, tl.min(tl.where(key == best, token, LAST_KEY), 0))
    tl.store(sums + place, tl.sum(summed, 0))
    tl.store(least + place, tl.min(tl.where(held, values, -NEGATIVE_INFINITY), 0))
    if cleared is not None and chunk == 0:
        tl.store(cleared + row * CLEARED + tl.arange(0, CLEARED), tl.zeros([CLEARED], tl.int64))


@triton.jit
def best_of(keys: tl.tensor, chunks: int, CHUNKS: tl.constexpr) -> tl.tensor:
    """The greatest logit of a row as fp32, and the chunks' keys [CHUNKS]."""
    chunk = tl.arange(0, CHUNKS)
    key = tl.load(keys + chunk, mask=chunk < chunks, other=-LAST_KEY - 1)
    return value_of(tl.max(key, 0)), key


@triton.jit
def merged(keys: tl.tensor, ids: tl.tensor, sums: tl.tensor, chunks: int, CHUNKS: tl.constexpr) -> tl.tensor:
    """The first best token of a row and its log-probability under the raw logits."""
    chunk = tl.arange(0, CHUNKS)
    held = chunk < chunks
    best, key = best_of(keys, chunks, CHUNKS)
    token = tl.load(ids + chunk, mask=held, other=0)
    summed = tl.load(sums + chunk, mask=held, other=0.0)
    share = tl.where(summed == 0.0, 0.0, summed * tl.exp(value_of(key) - best))
    # Infinite or no numbers at all have no probability: the difference makes them NaN.
    logprob = (best - best) - tl.log(tl.sum(share, 0))
    return tl.min(tl.where(key == ordered(best), token, LAST_KEY), 0), logprob


@triton.jit
def _merge(
    keys: tl.tensor,
    ids: tl.tensor,
    sums: tl.tensor,
    best_ids: tl.tensor,
    logprobs: tl.tensor,
    chunks: int,
    CHUNKS: tl.constexpr,
    PDL: tl.constexpr,
) -> None:
    row = tl.program_id(0)
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    start = row * chunks
    token, logprob = merged(keys + start, ids + start, sums + start, chunks, CHUNKS)
    tl.store(best_ids + row, token.to(tl.int64))
    tl.store(logprobs + row, logprob)


def survey(logits: Tensor, cleared: Tensor | None = None) -> Survey:
    """Look at every chunk of logits [S, vocab], rows contiguous; zeroes `cleared` [S, a power of 2] int64 too."""
    rows, vocab = logits.shape
    chunks = triton.cdiv(vocab, CHUNK)
    # Tensors of their own: a kernel is compiled again for parts whose alignment depends on the number of rows.
    dtypes = torch.int32, torch.int32, torch.float32, torch.float32
    found = Survey(*(torch.empty(rows, chunks, dtype=dtype, device=logits.device) for dtype in dtypes))
    pdl = overlaps(logits.device)
    if rows:
        _survey[(chunks, rows)](
            *(logits, *found, cleared, logits.stride(0), vocab),
            CLEARED=0 if cleared is None else cleared.shape[1],
            SIZE=CHUNK,
            PDL=pdl,
            launch_pdl=pdl,
            num_warps=4,
        )
    return found


def best_token(logits: Tensor) -> tuple[Tensor, Tensor]:
    """The first greatest logit of each row, and the log of its probability.

    Args:
        logits: [S, vocab] in any float dtype, rows contiguous. NaN counts as greatest, as for `argmax`.

    Returns:
        ids [S] int64 and log-probabilities [S] fp32.
    """
    rows = len(logits)
    found = survey(logits)
    ids = torch.empty(rows, dtype=torch.int64, device=logits.device)
    logprobs = torch.empty(rows, dtype=torch.float32, device=logits.device)
    chunks = found.keys.shape[1]
    pdl = overlaps(logits.device)
    if rows:
        _merge[(rows,)](
            *(found.keys, found.ids, found.sums, ids, logprobs, chunks),
            CHUNKS=triton.next_power_of_2(chunks),
            PDL=pdl,
            launch_pdl=pdl,
            num_warps=1,
        )
    return ids, logprobs
