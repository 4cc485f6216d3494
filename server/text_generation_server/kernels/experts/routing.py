"""Which experts each token goes to. Twin: softmax, `torch.topk` and a norm, see `layers/moe.py::Router`."""

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from text_generation_server.kernels.dependent_launch import overlaps


@triton.jit
def _route(
    scores: tl.tensor,
    experts: tl.tensor,
    weights: tl.tensor,
    stride: int,
    number: int,
    norm: float,
    TOP: tl.constexpr,
    PLACES: tl.constexpr,
    PADDED: tl.constexpr,
    NORMALISE: tl.constexpr,
    PDL: tl.constexpr,
) -> None:
    token = tl.program_id(0).to(tl.int64)
    expert, place = tl.arange(0, PADDED), tl.arange(0, PLACES)
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    score = tl.load(scores + token * stride + expert, mask=expert < number, other=-float("inf")).to(tl.float32)
    share = tl.exp(score - tl.max(score, 0))
    share = tl.where(expert < number, share / tl.sum(share, 0), -1.0)
    chosen, taken = tl.zeros((PLACES,), tl.int32), tl.zeros((PLACES,), tl.float32)
    for choice in tl.static_range(TOP):
        most = tl.max(share, 0)
        best = tl.min(tl.where(share == most, expert, PADDED - 1), 0)
        chosen = tl.where(place == choice, best, chosen)
        taken = tl.where(place == choice, most, taken)
        share = tl.where(expert == best, -1.0, share)
    if NORMALISE:
        powers = tl.where(place < TOP, tl.exp2(norm * tl.log2(tl.maximum(taken, 1e-37))), 0.0)
        taken /= tl.exp2(tl.log2(tl.sum(powers, 0)) / norm)
    tl.store(experts + token * TOP + place, chosen.to(tl.int64), mask=place < TOP)
    tl.store(weights + token * TOP + place, taken.to(weights.dtype.element_ty), mask=place < TOP)


def route(scores: Tensor, top: int, normalise: float | None, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Scores [T, E], rows each contiguous, to the experts [T, top] int64 and their weights [T, top], largest first.

    normalise: order of the norm that the weights are divided by, or None. Of equal ones the first is taken.
    """
    tokens, number = scores.shape
    experts = torch.empty((tokens, top), dtype=torch.int64, device=scores.device)
    weights = torch.empty((tokens, top), dtype=dtype, device=scores.device)
    pdl = overlaps(scores.device)
    _route[(tokens,)](
        *(scores, experts, weights, scores.stride(0), number, 1.0 if normalise is None else normalise),
        TOP=top,
        PLACES=triton.next_power_of_2(top),
        PADDED=triton.next_power_of_2(number),
        NORMALISE=normalise is not None,
        PDL=pdl,
        launch_pdl=pdl,
        num_warps=1,
    )
    return experts, weights
