"""Gated activation functions of MLPs. Twin: `layers/activation.py::gated_activation`. Knows no weights."""

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from text_generation_server.kernels.dependent_launch import overlaps
from text_generation_server.specs.activation import GAIN, LIMIT, Activation

SMALL_BLOCK = 256
"""Numbers of a program of one warp, one load of 16 bytes a thread: few rows spread over many multiprocessors."""

LARGE_BLOCK = 2048
"""Numbers of a program of four warps, two such loads a thread."""

SIGMOIDS_GAIN, BOUND = tl.constexpr(GAIN), tl.constexpr(LIMIT)

MANY = 1 << 20
"""Results from which large blocks fill a GPU too."""


@triton.jit
def activate(x: tl.tensor, KIND: tl.constexpr) -> tl.tensor:
    if KIND == "silu":
        y = x * tl.sigmoid(x)
    elif KIND == "relu":
        y = tl.where(x < 0.0, 0.0, x)  # keeps a NaN
    elif KIND == "gelu":
        y = 0.5 * x * (1.0 + tl.erf(x * 0.7071067811865476))
    elif KIND == "gelu_sigmoid":
        y = x * tl.sigmoid(x * SIGMOIDS_GAIN)
    elif KIND == "clamped_swiglu":
        x = tl.where(x > BOUND, BOUND, x)
        y = x * tl.sigmoid(x * SIGMOIDS_GAIN)
    else:
        tl.static_assert(KIND == "gelu_tanh")
        # (1 + tanh(u)) / 2 is the logistic function of 2u.
        y = x * tl.sigmoid(1.5957691216057308 * (x + 0.044715 * x * x * x))
    return y


@triton.jit
def counterpart(x: tl.tensor, KIND: tl.constexpr) -> tl.tensor:
    """What is multiplied with an activated gate, in float32."""
    if KIND == "clamped_swiglu":
        x = tl.where(x > BOUND, BOUND, tl.where(x < -BOUND, -BOUND, x)) + 1.0
    return x


@triton.jit
def _gated(
    x: tl.tensor,
    out: tl.tensor,
    x_stride: int,
    width: int,
    KIND: tl.constexpr,
    BLOCK: tl.constexpr,
    PDL: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    held = column < width
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    gates = x + row * x_stride + column
    gate = tl.load(gates, mask=held, other=0.0).to(tl.float32)
    up = tl.load(gates + width, mask=held, other=0.0).to(tl.float32)
    # Rounded before the product, as an operator by itself does.
    activated = activate(gate, KIND).to(x.dtype.element_ty).to(tl.float32)
    up = counterpart(up, KIND)
    tl.store(out + row * width + column, (activated * up).to(out.dtype.element_ty), mask=held)


def gated(x: Tensor, kind: Activation) -> Tensor:
    """[T, 2 · n], gate first, rows each contiguous, to act(gate) · up [T, n]; the function is computed in float32."""
    rows, width = x.shape[0], x.shape[1] // 2
    out = torch.empty((rows, width), dtype=x.dtype, device=x.device)
    many = rows * width >= MANY
    block = LARGE_BLOCK if many else SMALL_BLOCK
    pdl = overlaps(x.device)
    _gated[(rows, triton.cdiv(width, block))](
        *(x, out, x.stride(0), width),
        KIND=kind.value,
        BLOCK=block,
        PDL=pdl,
        launch_pdl=pdl,
        num_warps=4 if many else 1,
    )
    return out
