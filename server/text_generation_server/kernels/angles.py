"""Cosines and sines of a step's rotation. Twin: `layers/rotary.py::Rotary.angles`. Knows no spec of a rotation.

Dimensions: T tokens, dim rotated numbers of each head.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from text_generation_server.kernels.dependent_launch import overlaps


# One position a program: how its address is aligned tells nothing, and shall not be a reason to compile again.
@triton.jit(do_not_specialize_on_alignment=["positions", "axes"])
def _angles(
    positions: tl.tensor,
    axes: tl.tensor,
    frequencies: tl.tensor,
    cos: tl.tensor,
    sin: tl.tensor,
    magnitude: float,
    HALF: tl.constexpr,
    PAIRS: tl.constexpr,
    BY_TOKEN: tl.constexpr,
    BY_AXIS: tl.constexpr,
    PDL: tl.constexpr,
) -> None:
    token = tl.program_id(0).to(tl.int64)
    pair = tl.arange(0, PAIRS)
    held = pair < HALF
    # Those for all tokens are as old as the model; those by token another kernel of the step writes.
    if not BY_TOKEN:
        frequency = tl.load(frequencies + pair, mask=held, other=0.0)
    if BY_AXIS:
        axis = tl.load(axes + pair, mask=held, other=0)
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    if BY_TOKEN:
        frequency = tl.load(frequencies + token * HALF + pair, mask=held, other=0.0)
    if BY_AXIS:
        position = tl.load(positions + axis * tl.num_programs(0) + token, mask=held, other=0)
    else:
        position = tl.load(positions + token)
    angle = position.to(tl.float32) * frequency
    # Not the hardware's approximations: libdevice's, which reduce angles of any size exactly.
    c = tl.cos(angle) * magnitude
    s = tl.sin(angle) * magnitude
    left = token * 2 * HALF + pair
    tl.store(cos + left, c.to(cos.dtype.element_ty), mask=held)
    tl.store(cos + left + HALF, c.to(cos.dtype.element_ty), mask=held)
    tl.store(sin + left, (-s).to(sin.dtype.element_ty), mask=held)
    tl.store(sin + left + HALF, s.to(sin.dtype.element_ty), mask=held)


def angles(
    positions: Tensor, frequencies: Tensor, magnitude: float, dtype: torch.dtype, axes: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The tables cos and sin of `layers.rotary.Angles`, [T, 1, dim] each, computed in float32.

    Args:
        positions: [T] int64, or with `axes` [n, T], contiguous.
        frequencies: [dim / 2] or [T, dim / 2] float32, contiguous; the former are read before the kernel in front
            has ended, and must be older than that.
        magnitude: what both are multiplied by before they are rounded.
        axes: [dim / 2] int64, which of n positions each pair turns by; as old as the frequencies.
    """
    tokens, half = positions.shape[-1], frequencies.shape[-1]
    cos, sin = (torch.empty((tokens, 1, 2 * half), dtype=dtype, device=positions.device) for _ in range(2))
    pdl = overlaps(positions.device)
    _angles[(tokens,)](
        *(positions, positions if axes is None else axes, frequencies, cos, sin, magnitude),
        HALF=half,
        PAIRS=triton.next_power_of_2(half),
        BY_TOKEN=frequencies.ndim == 2,
        BY_AXIS=axes is not None,
        PDL=pdl,
        launch_pdl=pdl,
        num_warps=1,
    )
    return cos, sin
