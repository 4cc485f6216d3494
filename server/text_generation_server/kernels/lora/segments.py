"""Which tokens of a step have which adapter, found on the device.

Dimensions: T tokens, P places, S segments.
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

FEW = 256
"""Tokens up to which segments are short: each adapter has few of them."""

SHORT, LONG = 16, 64


@dataclass(slots=True)
class Segments:
    """Tokens in order of their adapters, cut into segments of at most `size`, each of one adapter.

    order: [T] int32, tokens by adapter, those without last.
    table: [S, 3] int32, of each segment its adapter's place, from 0, and where it begins and ends in `order`; then rows
    without tokens. S is the most that T tokens can have.
    read: whether a kernel that reads them has been launched.
    """

    order: Tensor
    table: Tensor
    size: int
    read: bool = False


@triton.jit(do_not_specialize=["tokens", "places", "most"])
def _segments(
    adapters: tl.tensor,
    order: tl.tensor,
    table: tl.tensor,
    tokens: int,
    places: int,
    most: int,
    SIZE: tl.constexpr,
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
    count = tl.where(p <= places, (end - first + SIZE - 1) // SIZE, 0)
    after = tl.cumsum(count, 0)
    for at in tl.static_range((T_BLOCK + SIZE - 1) // SIZE):
        row, held, start = table + (after - count + at) * 3, at < count, first + at * SIZE
        tl.store(row, p - 1, mask=held)
        tl.store(row + 1, start, mask=held)
        tl.store(row + 2, tl.minimum(start + SIZE, end), mask=held)
    total, s = tl.sum(count, 0), tl.arange(0, T_BLOCK)
    for field in tl.static_range(3):
        tl.store(table + s * 3 + field, tl.zeros_like(s), mask=(s >= total) & (s < most))


def segments_of(adapters: Tensor, places: int) -> Segments:
    """The segments of a step. adapters: [T] int64, the place of each token's adapter, from 1; 0 for none."""
    tokens, device = len(adapters), adapters.device
    size = SHORT if tokens <= FEW else LONG
    different = min(tokens, places)
    most = different + (tokens - different) // size
    if max(tokens, places) > COMPARED:
        return _sorted_segments(adapters, places, size, most)
    order = torch.empty(tokens, dtype=torch.int32, device=device)
    table = torch.empty(most, 3, dtype=torch.int32, device=device)
    pdl = overlaps(device)
    _segments[(1,)](
        *(adapters, order, table, tokens, places, most),
        SIZE=size,
        T_BLOCK=triton.next_power_of_2(tokens),
        P_BLOCK=triton.next_power_of_2(places),
        PDL=pdl,
        launch_pdl=pdl,
        num_warps=8,
    )
    return Segments(order, table, size)


def _sorted_segments(adapters: Tensor, places: int, size: int, most: int) -> Segments:
    """The same of many tokens."""
    last = torch.where(adapters == 0, places + 1, adapters)
    ordered, order = last.sort(stable=True)
    bounds = torch.searchsorted(ordered, torch.arange(1, places + 2, device=adapters.device))
    first, end = bounds[:-1], bounds[1:]
    after = ((end - first + size - 1) // size).cumsum(0)
    number = torch.arange(most, device=adapters.device)
    place = torch.searchsorted(after, number, right=True)
    held, place = place < places, place.clamp(max=places - 1)
    within = number - (after - (end - first + size - 1) // size)[place]
    start = first[place] + within * size
    table = torch.stack((place, start, torch.minimum(start + size, end[place])), 1) * held[:, None]
    return Segments(order.to(torch.int32), table.to(torch.int32), size)
