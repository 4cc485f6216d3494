"""Puts the tokens of a step in order of their adapters. Knows no matrices.

Dimensions: T tokens, P places.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from text_generation_server.kernels.dependent_launch import overlaps

COMPARED = 128
"""Tokens up to which one program orders them, by comparing each with each, and with as many places."""


@dataclass(slots=True)
class Segments:
    """Which tokens have which adapter.

    order: [T] int32, tokens by adapter, those without last.
    table: [S, 3] int32, of each adapter that is there its place, from 0, and where its tokens begin and end in `order`;
    then rows without tokens. S is the smaller of T and P.
    read: whether a kernel that reads them has been launched.
    """

    order: Tensor
    table: Tensor
    read: bool = False


@triton.jit(do_not_specialize=["tokens", "places", "most"])
def _segments(
    adapters: tl.tensor,
    order: tl.tensor,
    table: tl.tensor,
    tokens: int,
    places: int,
    most: int,
    T_BLOCK: tl.constexpr,
    P_BLOCK: tl.constexpr,
    PDL: tl.constexpr,
) -> None:
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    t = tl.arange(0, T_BLOCK)
    mine = tl.load(adapters + t, mask=t < tokens, other=0).to(tl.int32)
    mine = tl.where(mine == 0, places + 1, mine)
    before = (mine[None, :] < mine[:, None]) | ((mine[None, :] == mine[:, None]) & (t[None, :] < t[:, None]))
    tl.store(order + tl.sum(before.to(tl.int32), 1), t, mask=t < tokens)
    p = 1 + tl.arange(0, P_BLOCK)
    first = tl.sum((mine[None, :] < p[:, None]).to(tl.int32), 1)
    end = tl.sum((mine[None, :] <= p[:, None]).to(tl.int32), 1)
    there = ((end > first) & (p <= places)).to(tl.int32)
    row = table + (tl.cumsum(there, 0) - 1) * 3
    tl.store(row, p - 1, mask=there > 0)
    tl.store(row + 1, first, mask=there > 0)
    tl.store(row + 2, end, mask=there > 0)
    empty = (p > tl.sum(there, 0)) & (p <= most)
    rest = table + (p - 1) * 3
    for field in tl.static_range(3):
        tl.store(rest + field, tl.zeros_like(p), mask=empty)


def segments_of(adapters: Tensor, places: int) -> Segments:
    """The segments of a step. adapters: [T] int64, the place of each token's adapter, from 1; 0 for none."""
    tokens, device = len(adapters), adapters.device
    most = min(tokens, places)
    if max(tokens, places) > COMPARED:
        return _sorted_segments(adapters, places, most)
    order = torch.empty(tokens, dtype=torch.int32, device=device)
    table = torch.empty(most, 3, dtype=torch.int32, device=device)
    pdl = overlaps(device)
    _segments[(1,)](
        *(adapters, order, table, tokens, places, most),
        T_BLOCK=triton.next_power_of_2(tokens),
        P_BLOCK=triton.next_power_of_2(places),
        PDL=pdl,
        launch_pdl=pdl,
        num_warps=8,
    )
    return Segments(order, table)


def _sorted_segments(adapters: Tensor, places: int, most: int) -> Segments:
    """The same of many tokens."""
    last = torch.where(adapters == 0, places + 1, adapters)
    ordered, order = last.sort(stable=True)
    numbers = torch.arange(1, places + 2, device=adapters.device)
    bounds = torch.searchsorted(ordered, numbers)
    first, end = bounds[:-1], bounds[1:]
    there = end > first
    # Those that are not there all go to a row of their own, behind the others.
    at = torch.where(there, there.cumsum(0) - 1, most)
    table = torch.zeros(most + 1, 3, dtype=torch.int32, device=adapters.device)
    found = torch.stack((numbers[:-1] - 1, first, end), 1).to(torch.int32)
    table[at] = found * there[:, None]
    return Segments(order.to(torch.int32), table[:most])
