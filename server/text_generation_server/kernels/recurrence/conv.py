"""A causal convolution of each channel over a step's rows. Twin: `layers/causal_conv.py::TorchConv`. Knows no model.

A program has some channels of one row, for all of its tokens: nobody else reads or writes what is kept of them.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from text_generation_server.kernels.activation import activate
from text_generation_server.kernels.dependent_launch import overlaps
from text_generation_server.specs.activation import Activation

CHANNELS = 128
"""Of a program: several loads of 128 bytes, and as many programs as a large GPU runs at once from four rows on."""

TOKENS = 16
"""That a program computes together, of rows that have more than one."""


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
def _causal_conv(
    x: tl.tensor,
    windows: tl.tensor,
    rows: tl.tensor,
    ends: tl.tensor,
    weight: tl.tensor,
    bias: tl.tensor,
    out: tl.tensor,
    x_stride: int,
    width: int,
    KIND: tl.constexpr,
    TAPS: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_D: tl.constexpr,
    PDL: tl.constexpr,
) -> None:
    index = tl.program_id(0)
    channel = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    inside = channel < width
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
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


def causal_conv(
    x: Tensor,
    windows: Tensor,
    rows: Tensor,
    ends: Tensor,
    longest: int,
    weight: Tensor,
    bias: Tensor | None,
    kind: Activation,
) -> Tensor:
    """act(bias + Σ weight[k] · input k) [T, D], a new tensor; summed in float32 and rounded once.

    Args:
        x: [T, D], each contiguous, at any distance.
        windows: [rows, W, D] of the same dtype, contiguous, oldest first; those of the step's rows are renewed.
        rows: [R] int64. ends: [R + 1] int64, from 0, where each row's tokens begin and end.
        longest: tokens of the row that has most.
        weight: [W + 1, D] float32, the newest input's last. bias: [D] float32.
    """
    width, taps = x.shape[1], weight.shape[0]
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    pdl = overlaps(x.device)
    _causal_conv[(rows.shape[0], triton.cdiv(width, CHANNELS))](
        *(x, windows, rows, ends, weight, bias, out, x.stride(0), width),
        KIND=kind.value,
        TAPS=taps,
        BLOCK_T=1 if longest == 1 else TOKENS,
        BLOCK_D=CHANNELS,
        PDL=pdl,
        launch_pdl=pdl,
        num_warps=1 if longest == 1 else 4,
    )
    return out
