"""Draws a token of each row by inverting the cumulative mass at a given number. Knows not what was cut off, or why.

Twin: `sampling.mass.draw`. Chunks of a row weigh what they hold; a second kernel finds the chunk and the token in it.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from text_generation_server.kernels.dependent_launch import overlaps
from text_generation_server.kernels.sampling.best import CHUNK, NEGATIVE_INFINITY, Survey, best_of, merged
from text_generation_server.kernels.sampling.scores import LAST_KEY, ONE, mass, ordered, surplus


@triton.jit
def _threshold(thresholds: tl.tensor, row: tl.tensor) -> tl.tensor:
    """The least key that a row keeps."""
    if thresholds is None:
        return tl.full([], -LAST_KEY - 1, tl.int32)
    else:
        return tl.load(thresholds + row)


@triton.jit
def _kept_mass(
    logits: tl.tensor,
    chunk: tl.tensor,
    threshold: tl.tensor,
    best: tl.tensor,
    temperature: tl.tensor,
    vocab: int,
    SIZE: tl.constexpr,
) -> tl.tensor:
    """The masses [SIZE] int64 of a chunk of a row; nothing below the threshold, which is a key."""
    token = chunk * SIZE + tl.arange(0, SIZE)
    values = tl.load(logits + token, mask=token < vocab, other=NEGATIVE_INFINITY).to(tl.float32)
    return tl.where(ordered(values) >= threshold, mass(values, best, temperature), 0)


@triton.jit
def _weigh(
    logits: tl.tensor,
    keys: tl.tensor,
    drawn: tl.tensor,
    temperatures: tl.tensor,
    thresholds: tl.tensor,
    masses: tl.tensor,
    row_stride: int,
    vocab: int,
    SIZE: tl.constexpr,
    CHUNKS: tl.constexpr,
    PDL: tl.constexpr,
) -> None:
    row, chunk, chunks = tl.program_id(1).to(tl.int64), tl.program_id(0), tl.num_programs(0)
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    if tl.load(drawn + row) != 0:
        best, _ = best_of(keys + row * chunks, chunks, CHUNKS)
        threshold, temperature = _threshold(thresholds, row), tl.load(temperatures + row)
        total = tl.zeros([], tl.int64)
        if tl.load(keys + row * chunks + chunk) >= threshold:
            total = tl.sum(_kept_mass(logits + row * row_stride, chunk, threshold, best, temperature, vocab, SIZE), 0)
        tl.store(masses + row * chunks + chunk, total)


@triton.jit
def _draw(
    logits: tl.tensor,
    keys: tl.tensor,
    ids: tl.tensor,
    sums: tl.tensor,
    drawn: tl.tensor,
    temperatures: tl.tensor,
    thresholds: tl.tensor,
    masses: tl.tensor,
    uniforms: tl.tensor,
    chosen: tl.tensor,
    logprobs: tl.tensor,
    row_stride: int,
    vocab: int,
    chunks: int,
    SIZE: tl.constexpr,
    CHUNKS: tl.constexpr,
    PDL: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64)
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    start = row * chunks
    if tl.load(drawn + row) == 0:
        token, logprob = merged(keys + start, ids + start, sums + start, chunks, CHUNKS)
    else:
        best, _ = best_of(keys + start, chunks, CHUNKS)
        threshold, temperature = _threshold(thresholds, row), tl.load(temperatures + row)
        place = tl.arange(0, CHUNKS)
        held = tl.load(masses + start + place, mask=place < chunks, other=0)
        total = tl.sum(held, 0)
        point = (total.to(tl.float64) * tl.load(uniforms + row).to(tl.float64)).to(tl.int64)
        # A row of NaN has no mass, and no token is found in it: the last one stands for it.
        chunk = tl.minimum(tl.sum((tl.cumsum(held, 0) <= point).to(tl.int32), 0), chunks - 1)
        before = tl.sum(tl.where(place < chunk, held, 0), 0)
        kept = _kept_mass(logits + row * row_stride, chunk, threshold, best, temperature, vocab, SIZE)
        inside = tl.sum((tl.cumsum(kept, 0) + before <= point).to(tl.int32), 0)
        token = tl.minimum(chunk * SIZE + inside, vocab - 1)
        value = tl.load(logits + row * row_stride + token).to(tl.float32)
        logprob = surplus(value, best, temperature) - tl.log((total.to(tl.float64) / ONE).to(tl.float32))
    tl.store(chosen + row, token.to(tl.int64))
    tl.store(logprobs + row, logprob)


def draw(
    logits: Tensor, found: Survey, drawn: Tensor, temperatures: Tensor, thresholds: Tensor | None, uniforms: Tensor
) -> tuple[Tensor, Tensor]:
    """A token of each row and the log of its probability among those that are kept.

    Args:
        logits: [S, vocab] in any float dtype, rows contiguous.
        found: their survey.
        drawn: [S] int32, 0 where the best token is wanted and all else about the row ignored.
        temperatures: [S] fp32, above 0.
        thresholds: [S] int32, the least key that is kept; None where all are.
        uniforms: [S] fp32 in [0, 1).

    Returns:
        ids [S] int64 and log-probabilities [S] fp32.
    """
    rows, vocab = logits.shape
    chunks = found.keys.shape[1]
    masses = torch.empty(rows, chunks, dtype=torch.int64, device=logits.device)
    ids = torch.empty(rows, dtype=torch.int64, device=logits.device)
    logprobs = torch.empty(rows, dtype=torch.float32, device=logits.device)
    sizes = {"SIZE": CHUNK, "CHUNKS": triton.next_power_of_2(chunks)}
    pdl = overlaps(logits.device)
    if rows:
        _weigh[(chunks, rows)](
            *(logits, found.keys, drawn, temperatures, thresholds, masses, logits.stride(0), vocab),
            **sizes,
            PDL=pdl,
            launch_pdl=pdl,
            num_warps=4,
        )
        _draw[(rows,)](
            *(logits, found.keys, found.ids, found.sums, drawn, temperatures, thresholds, masses, uniforms),
            *(ids, logprobs, logits.stride(0), vocab, chunks),
            **sizes,
            PDL=pdl,
            launch_pdl=pdl,
            num_warps=8,
        )
    return ids, logprobs
