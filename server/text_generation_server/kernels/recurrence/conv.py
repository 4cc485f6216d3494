"""A causal convolution of each channel over a step's rows. Twin: `layers/causal_conv.py::TorchConv`. Knows no model.

A program has some channels of one row, for all of its tokens: nobody else reads or writes what is kept of them.
"""

import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from text_generation_server.kernels.activation import activate
from text_generation_server.kernels.attention.sizes import multiprocessors
from text_generation_server.kernels.dependent_launch import overlaps
from text_generation_server.specs.activation import Activation

CHANNELS = 128
"""Of a program: several loads of 128 bytes, and as many programs as a large GPU runs at once from four rows on."""

TOKENS = 16
"""That a program computes together, of rows that have more than one."""

SHARING_PROGRAMS = 8
"""Programs on each multiprocessor that share the rows of a replayed step, however many there are."""


@triton.jit
def _inputs(
    x: tl.tensor,
    window: tl.tensor,
    at: tl.tensor,
    first: tl.tensor,
    channel: tl.tensor,
    held: tl.tensor,
    x_stride: int,
    width: int,
    TAPS: tl.constexpr,
) -> tl.tensor:
    """Inputs at tokens `at`; before the row's first they are in its window."""
    new = tl.load(x + at * x_stride + channel, mask=held & (at >= first), other=0.0)
    old = tl.load(window + (at - first + TAPS - 1) * width + channel, mask=held & (at < first), other=0.0)
    return tl.where(at >= first, new, old)


@triton.jit
def _row(
    x: tl.tensor,
    windows: tl.tensor,
    rows: tl.tensor,
    ends: tl.tensor,
    weight: tl.tensor,
    bias: tl.tensor,
    out: tl.tensor,
    index: tl.tensor,
    channel: tl.tensor,
    x_stride: int,
    width: int,
    KIND: tl.constexpr,
    TAPS: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_D: tl.constexpr,
) -> None:
    """Some channels of one row."""
    inside = channel < width
    first = tl.load(ends + index)
    past = tl.load(ends + index + 1)
    window = windows + tl.load(rows + index) * (TAPS - 1) * width
    for start in range(first, past, BLOCK_T):
        token = (start + tl.arange(0, BLOCK_T))[:, None]
        held = (token < past) & inside[None, :]
        sums = tl.zeros((BLOCK_T, BLOCK_D), tl.float32)
        if bias is not None:
            sums += tl.load(bias + channel, mask=inside, other=0.0)[None, :]
        for tap in tl.static_range(TAPS):
            seen = _inputs(x, window, token - (TAPS - 1 - tap), first, channel[None, :], held, x_stride, width, TAPS)
            sums += seen.to(tl.float32) * tl.load(weight + tap * width + channel, mask=inside, other=0.0)[None, :]
        tl.store(out + token * width + channel[None, :], activate(sums, KIND).to(out.dtype.element_ty), mask=held)
    # Other threads may still read the old window. Each input moves to an older place, so that none is lost on the way.
    tl.debug_barrier()
    for place in tl.static_range(TAPS - 1):
        kept = _inputs(x, window, past - (TAPS - 1 - place), first, channel, inside, x_stride, width, TAPS)
        tl.store(window + place * width + channel, kept, mask=inside)


@triton.jit
def _single(
    x: tl.tensor,
    windows: tl.tensor,
    rows: tl.tensor,
    weight: tl.tensor,
    bias: tl.tensor,
    out: tl.tensor,
    index: tl.tensor,
    channel: tl.tensor,
    x_stride: int,
    width: int,
    KIND: tl.constexpr,
    TAPS: tl.constexpr,
    PDL: tl.constexpr,
) -> None:
    """Some channels of one row that has one token."""
    inside = channel < width
    window = windows + tl.load(rows + index) * (TAPS - 1) * width + channel
    sums = tl.zeros(channel.shape, tl.float32)
    if bias is not None:
        sums += tl.load(bias + channel, mask=inside, other=0.0)
    for tap in tl.static_range(TAPS - 1):
        old = tl.load(window + tap * width, mask=inside, other=0.0)
        sums += old.to(tl.float32) * tl.load(weight + tap * width + channel, mask=inside, other=0.0)
        if tap > 0:
            tl.store(window + (tap - 1) * width, old, mask=inside)
    newest = tl.load(weight + (TAPS - 1) * width + channel, mask=inside, other=0.0)
    if PDL:
        gdc_wait()
    new = tl.load(x + index.to(tl.int64) * x_stride + channel, mask=inside, other=0.0)
    tl.store(window + (TAPS - 2) * width, new, mask=inside)
    sums += new.to(tl.float32) * newest
    tl.store(out + index.to(tl.int64) * width + channel, activate(sums, KIND).to(out.dtype.element_ty), mask=inside)


@triton.jit
def _causal_conv(
    x: tl.tensor,
    windows: tl.tensor,
    rows: tl.tensor,
    ends: tl.tensor,
    count: tl.tensor,
    weight: tl.tensor,
    bias: tl.tensor,
    out: tl.tensor,
    x_stride: int,
    width: int,
    blocks: int,
    KIND: tl.constexpr,
    TAPS: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_D: tl.constexpr,
    PDL: tl.constexpr,
) -> None:
    if PDL:
        gdc_launch_dependents()
    channel = tl.arange(0, BLOCK_D)
    index, block = tl.program_id(0) // blocks, tl.program_id(0) % blocks
    if BLOCK_T == 1:
        channel += block * BLOCK_D
        _single(x, windows, rows, weight, bias, out, index, channel, x_stride, width, KIND, TAPS, PDL)
        return
    if PDL:
        gdc_wait()
    if count is None:
        _row(
            x, windows, rows, ends, weight, bias, out, index, block * BLOCK_D + channel, x_stride, width,
            KIND, TAPS, BLOCK_T, BLOCK_D,
        )  # fmt: skip
    else:
        for piece in range(tl.program_id(0), tl.load(count).to(tl.int32) * blocks, tl.num_programs(0)):
            index, block = piece // blocks, piece % blocks
            _row(
                x, windows, rows, ends, weight, bias, out, index, block * BLOCK_D + channel, x_stride, width,
                KIND, TAPS, BLOCK_T, BLOCK_D,
            )  # fmt: skip


def causal_conv(
    x: Tensor,
    windows: Tensor,
    rows: Tensor,
    ends: Tensor,
    are_singles: bool,
    count: Tensor | None,
    out: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    kind: Activation,
) -> Tensor:
    """Write act(bias + Σ weight[k] · input k) to out [T, D]; summed in float32 and rounded once.

    Args:
        x: [T, D], each contiguous, at any distance.
        windows: [rows, W, D] of the same dtype, contiguous, oldest first; those of the step's rows are renewed.
        rows: [R] int64. ends: [R + 1] int64, from 0, where each row's tokens begin and end.
        are_singles: whether each row has one token.
        count: [1] int64, how many of the rows there are; None for all.
        out: contiguous; tokens of no row stay as they are.
        weight: [W + 1, D] float32, the newest input's last. bias: [D] float32.
    """
    width, taps = x.shape[1], weight.shape[0]
    blocks = triton.cdiv(width, CHANNELS)
    pieces = rows.shape[0] * blocks
    pdl = overlaps(x.device)
    _causal_conv[(pieces if count is None else min(pieces, SHARING_PROGRAMS * multiprocessors(x.device)),)](
        *(x, windows, rows, ends, count, weight, bias, out, x.stride(0), width, blocks),
        KIND=kind.value,
        TAPS=taps,
        BLOCK_T=1 if are_singles else TOKENS,
        BLOCK_D=CHANNELS,
        PDL=pdl,
        launch_pdl=pdl,
        num_warps=1 if are_singles else 4,
    )
    return out
