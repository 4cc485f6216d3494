"""Norms of rows, fused with the addition to the residual stream before them. Twins: `layers/norm.py`. Knows no model.

A row stays in one program's registers between the sum, the norm and the result: each number moves once. All is computed
in float32 and rounded once, except that the sum is rounded to the stream's dtype before it is normed, as it is kept.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from text_generation_server.kernels.dependent_launch import overlaps

NUMBERS_A_WARP = 256
"""One load of 16 bytes a thread, in 16-bit dtypes."""

MAX_WARPS = 16


@triton.jit
def _norm(
    x: tl.tensor,
    delta: tl.tensor,
    weight: tl.tensor,
    bias: tl.tensor,
    out: tl.tensor,
    x_stride: int,
    delta_stride: int,
    width: int,
    eps: float,
    CENTRED: tl.constexpr,
    BLOCK: tl.constexpr,
    PDL: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    held = column < width
    if weight is not None:
        factor = tl.load(weight + column, mask=held, other=0.0)
    if bias is not None:
        shift = tl.load(bias + column, mask=held, other=0.0)
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    stream = x + row * x_stride + column
    values = tl.load(stream, mask=held, other=0.0).to(tl.float32)
    if delta is not None:
        values += tl.load(delta + row * delta_stride + column, mask=held, other=0.0).to(tl.float32)
        kept = values.to(x.dtype.element_ty)
        tl.store(stream, kept, mask=held)
        values = kept.to(tl.float32)
    if CENTRED:
        values = tl.where(held, values - tl.sum(values, 0) / width, 0.0)
    values *= tl.rsqrt(tl.sum(values * values, 0) / width + eps)
    if weight is not None:
        values *= factor.to(tl.float32)
    if bias is not None:
        values += shift.to(tl.float32)
    tl.store(out + row * width + column, values.to(out.dtype.element_ty), mask=held)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x²) + eps) · weight (arXiv 1910.07467) of rows [T, h], each contiguous; weight: [h], any dtype."""
    return _run(x, None, weight, None, eps, centred=False)


def add_rms_norm(delta: Tensor, residual: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Add delta to the residual stream, in place, and norm the sum; [T, h] each. The stream may be wider than delta."""
    return _run(residual, delta, weight, None, eps, centred=False)


def layer_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """(x − mean) / sqrt(var + eps) · weight + bias (arXiv 1607.06450) of rows [T, h], each contiguous."""
    return _run(x, None, weight, bias, eps, centred=True)


def add_layer_norm(delta: Tensor, residual: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """Add delta to the residual stream, in place, and norm the sum; [T, h] each."""
    return _run(residual, delta, weight, bias, eps, centred=True)


def _run(
    x: Tensor, delta: Tensor | None, weight: Tensor | None, bias: Tensor | None, eps: float, centred: bool
) -> Tensor:
    rows, width = x.shape
    out = torch.empty((rows, width), dtype=(x if delta is None else delta).dtype, device=x.device)
    block = triton.next_power_of_2(width)
    pdl = overlaps(x.device)
    _norm[(rows,)](
        *(x, delta, weight, bias, out),
        *(x.stride(0), 0 if delta is None else delta.stride(0), width, eps),
        CENTRED=centred,
        BLOCK=block,
        PDL=pdl,
        launch_pdl=pdl,
        num_warps=min(MAX_WARPS, triton.cdiv(block, NUMBERS_A_WARP)),
    )
    return out
