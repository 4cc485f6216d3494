"""Pairs put in order of their experts, in one small kernel. Twin: `torch.sort` and `torch.searchsorted`."""

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from text_generation_server.kernels.dependent_launch import overlaps

BLOCK = 32
"""Pairs, and experts, whose places one program finds: by counting, among all pairs, those in front of them."""

FEW_PAIRS = 1 << 12
"""Up to which counting is faster than sorting."""


@triton.jit(do_not_specialize=["pairs", "number"])
def _order(
    experts: tl.tensor,
    order: tl.tensor,
    ends: tl.tensor,
    pairs: int,
    number: int,
    PADDED: tl.constexpr,
    BLOCK: tl.constexpr,
    PDL: tl.constexpr,
) -> None:
    mine, every = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), tl.arange(0, PADDED)
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    theirs = tl.load(experts + every, mask=every < pairs, other=number).to(tl.int32)[None, :]
    wanted = tl.load(experts + mine, mask=mine < pairs, other=number).to(tl.int32)[:, None]
    in_front = (theirs < wanted) | ((theirs == wanted) & (every[None, :] < mine[:, None]))
    tl.store(order + tl.sum(in_front.to(tl.int32), 1), mine, mask=mine < pairs)
    tl.store(ends + mine, tl.sum((theirs <= mine[:, None]).to(tl.int32), 1), mask=mine < number)


def ordered(experts: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """Experts [P] int64 of pairs, contiguous, to the pairs by expert [P] and where each one's end [E], int32 both.

    Pairs of an expert stay in their order.
    """
    pairs = experts.numel()
    if pairs > FEW_PAIRS:
        chosen, order = experts.flatten().sort(stable=True)
        numbers = torch.arange(number, device=experts.device)
        return order.int(), torch.searchsorted(chosen, numbers, right=True, out_int32=True)
    order = torch.empty(pairs, dtype=torch.int32, device=experts.device)
    ends = torch.empty(number, dtype=torch.int32, device=experts.device)
    pdl = overlaps(experts.device)
    _order[(triton.cdiv(max(pairs, number), BLOCK),)](
        *(experts, order, ends, pairs, number),
        PADDED=triton.next_power_of_2(pairs),
        BLOCK=BLOCK,
        PDL=pdl,
        launch_pdl=pdl,
        num_warps=4,
    )
    return order, ends
