"""The sum of a token's experts by their weights. Twin: a product and `torch.sum`."""

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from text_generation_server.kernels.dependent_launch import overlaps

BLOCK = 512


@triton.jit
def _combine(
    y: tl.tensor,
    weights: tl.tensor,
    out: tl.tensor,
    width: int,
    K: tl.constexpr,
    BLOCK: tl.constexpr,
    PDL: tl.constexpr,
) -> None:
    token = tl.program_id(0).to(tl.int64)
    n = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    total = tl.zeros((BLOCK,), tl.float32)
    for choice in tl.static_range(K):
        weight = tl.load(weights + token * K + choice).to(tl.float32)
        total += weight * tl.load(y + (token * K + choice) * width + n, mask=n < width, other=0.0).to(tl.float32)
    tl.store(out + token * width + n, total.to(out.dtype.element_ty), mask=n < width)


def combine(y: Tensor, weights: Tensor) -> Tensor:
    """y [T · k, N] and weights [T, k], contiguous, to [T, N]; summed in float32 and rounded once."""
    (tokens, choices), width = weights.shape, y.shape[1]
    out = torch.empty((tokens, width), dtype=y.dtype, device=y.device)
    pdl = overlaps(y.device)
    _combine[(tokens, triton.cdiv(width, BLOCK))](
        *(y, weights, out, width), K=choices, BLOCK=BLOCK, PDL=pdl, launch_pdl=pdl, num_warps=4
    )
    return out
