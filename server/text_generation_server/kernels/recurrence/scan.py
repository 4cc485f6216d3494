"""The recurrence of a selective state space layer over a step's rows. Twin: `layers/selective_scan.py::TorchScan`.

A program has some channels of one row, and what is kept of them in registers, for all of the row's tokens. The next
token's numbers are on their way while one is computed. Knows no model.
"""

import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from text_generation_server.kernels.attention.sizes import multiprocessors
from text_generation_server.kernels.dependent_launch import overlaps

SINGLE_CHANNELS, PROMPT_CHANNELS = 64, 16
"""Of a program: many where rows fill a GPU and have one token; few where one row's tokens follow each other."""

SHARING_PROGRAMS = 16
"""Programs on each multiprocessor that share the rows of a replayed step, however many there are."""


@triton.jit
def softplus(x: tl.tensor) -> tl.tensor:
    """log(1 + exp(x)), exact for small results too: what is lost in the sum is lost in the difference as well."""
    grown = tl.exp(tl.minimum(x, 20.0))
    one_more = 1.0 + grown
    ratio = grown / tl.where(one_more == 1.0, 1.0, one_more - 1.0)
    return tl.where(x > 20.0, x, tl.where(one_more == 1.0, grown, tl.log(one_more) * ratio))


@triton.jit
def _token(
    sources: tl.tuple,
    strides: tl.tuple,
    at: tl.tensor,
    channel: tl.tensor,
    inside: tl.tensor,
    n: tl.tensor,
    kept: tl.tensor,
) -> tuple[tl.tensor, tl.tensor, tl.tensor, tl.tensor, tl.tensor]:
    """x, gate and step of the channels of one token, and what it writes and reads."""
    return (
        tl.load(sources[0] + at * strides[0] + channel, mask=inside, other=0.0),
        tl.load(sources[1] + at * strides[1] + channel, mask=inside, other=0.0),
        tl.load(sources[2] + at * strides[2] + channel, mask=inside, other=0.0),
        tl.load(sources[3] + at * strides[3] + n, mask=kept, other=0.0),
        tl.load(sources[4] + at * strides[4] + n, mask=kept, other=0.0),
    )


@triton.jit
def _row(
    sources: tl.tuple,
    strides: tl.tuple,
    state_of: tl.tuple,
    weights: tl.tuple,
    out: tl.tensor,
    index: tl.tensor,
    channel: tl.tensor,
    width: int,
    N: tl.constexpr,
    BLOCK_N: tl.constexpr,
    SINGLE: tl.constexpr,
    WAITS: tl.constexpr,
) -> None:
    """Some channels of one row. SINGLE: it has one token. WAITS: for the kernel in front, as late as can be."""
    sums, rows, ends = state_of
    decay, skip, step_bias = weights
    n = tl.arange(0, BLOCK_N)
    inside, kept = channel < width, n < N
    square = channel[:, None] * N + n[None, :]
    both = inside[:, None] & kept[None, :]
    rate = tl.load(decay + square, mask=both, other=0.0)
    passed = tl.load(skip + channel, mask=inside, other=0.0)
    least = tl.load(step_bias + channel, mask=inside, other=0.0)
    place = sums + tl.load(rows + index) * width * N + square
    if SINGLE:
        state = tl.load(place, mask=both, other=0.0)
        first = index.to(tl.int64)
        past = first + 1
    if WAITS:
        gdc_launch_dependents()
        gdc_wait()
    if not SINGLE:
        state = tl.load(place, mask=both, other=0.0)
        first = tl.load(ends + index)
        past = tl.load(ends + index + 1)
    coming = _token(sources, strides, first, channel, inside, n, kept)
    for at in range(first, past):
        value, through, step, added, seen = coming
        coming = _token(sources, strides, tl.minimum(at + 1, past - 1), channel, inside, n, kept)
        value = value.to(tl.float32)
        through = through.to(tl.float32)
        length = softplus(step.to(tl.float32) + least)
        state = state * tl.exp(length[:, None] * rate) + (length * value)[:, None] * added.to(tl.float32)[None, :]
        y = tl.sum(state * seen.to(tl.float32)[None, :], 1) + passed * value
        y *= through * tl.sigmoid(through)
        tl.store(out + at * width + channel, y.to(out.dtype.element_ty), mask=inside)
    tl.store(place, state, mask=both)


@triton.jit
def _selective_scan(
    x: tl.tensor,
    gate: tl.tensor,
    steps: tl.tensor,
    write: tl.tensor,
    read: tl.tensor,
    sums: tl.tensor,
    rows: tl.tensor,
    ends: tl.tensor,
    count: tl.tensor,
    decay: tl.tensor,
    skip: tl.tensor,
    step_bias: tl.tensor,
    out: tl.tensor,
    x_stride: int,
    gate_stride: int,
    steps_stride: int,
    write_stride: int,
    read_stride: int,
    width: int,
    blocks: int,
    N: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    SINGLE: tl.constexpr,
    PDL: tl.constexpr,
) -> None:
    sources = (x, gate, steps, write, read)
    strides = (x_stride, gate_stride, steps_stride, write_stride, read_stride)
    state_of, weights = (sums, rows, ends), (decay, skip, step_bias)
    channel = tl.arange(0, BLOCK_D)
    if count is None:
        index, block = tl.program_id(0) // blocks, tl.program_id(0) % blocks
        _row(
            sources, strides, state_of, weights, out, index, block * BLOCK_D + channel, width, N, BLOCK_N, SINGLE, PDL
        )  # fmt: skip
    else:
        if PDL:
            gdc_launch_dependents()
            gdc_wait()
        for piece in range(tl.program_id(0), tl.load(count).to(tl.int32) * blocks, tl.num_programs(0)):
            index, block = piece // blocks, piece % blocks
            _row(
                sources, strides, state_of, weights, out, index, block * BLOCK_D + channel, width,
                N, BLOCK_N, False, False,
            )  # fmt: skip


def selective_scan(
    x: Tensor,
    gate: Tensor,
    steps: Tensor,
    write: Tensor,
    read: Tensor,
    sums: Tensor,
    rows: Tensor,
    ends: Tensor,
    are_singles: bool,
    count: Tensor | None,
    out: Tensor,
    decay: Tensor,
    skip: Tensor,
    step_bias: Tensor,
) -> Tensor:
    """Write (S · read + skip · x) · silu(gate) to out [T, D], for S = S · exp(t · decay) + t · x · write.

    t is softplus(step + step_bias). All is computed in float32.

    Args:
        x, gate, steps: [T, D]. write, read: [T, N]. Tokens contiguous, at any distance.
        sums: [rows, D, N] float32, contiguous: S of each row, of which those of the step's rows go on.
        rows: [R] int64. ends: [R + 1] int64, from 0, where each row's tokens begin and end; each row has one.
        are_singles: whether each row has one token.
        count: [1] int64, how many of the rows there are; None for all.
        out: contiguous; tokens of no row stay as they are.
        decay: [D, N], below 0. skip, step_bias: [D]. All float32, and not written by the kernel in front.
    """
    width, numbers = decay.shape
    channels = SINGLE_CHANNELS if are_singles else PROMPT_CHANNELS
    blocks = triton.cdiv(width, channels)
    pieces = rows.shape[0] * blocks
    pdl = overlaps(x.device)
    given = x, gate, steps, write, read
    _selective_scan[(pieces if count is None else min(pieces, SHARING_PROGRAMS * multiprocessors(x.device)),)](
        *(*given, sums, rows, ends, count, decay, skip, step_bias, out),
        *(*(each.stride(0) for each in given), width, blocks),
        N=numbers,
        BLOCK_N=triton.next_power_of_2(numbers),
        BLOCK_D=channels,
        SINGLE=are_singles,
        PDL=pdl,
        launch_pdl=pdl,
        num_warps=2 if are_singles else 1,
    )
    return out
