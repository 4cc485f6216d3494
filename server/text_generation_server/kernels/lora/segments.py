"""Which tokens of a step have which adapter, found on the device.

Dimensions: T tokens, P places, S segments.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from text_generation_server.kernels.dependent_launch import overlaps
from text_generation_server.kernels.matmul.low_rank import EMPTY

COMPARED = 128
"""Tokens up to which one program orders them, by comparing each with each, and with as many places."""

FEW = 256
"""Tokens up to which segments are short: each adapter has few of them."""

SHORT, LONG = 16, 64

ALIGNED = 4
"""Numbers of 16 bytes."""

CLEARED = 4096
"""Numbers that a program makes empty."""

_EMPTY = tl.constexpr(EMPTY)


@dataclass(slots=True)
class Segments:
    """Tokens in order of their adapters, cut into segments of at most `size`, each of one adapter.

    order: [T] int32, tokens by adapter, those without last.
    table: [S, 3] int32, of each segment its adapter's place, from 0, and where it begins and ends in `order`; then rows
    without tokens. S is the most that T tokens can have.
    present: [2 + P] int32, how many segments and places there are, and which places, from 0; None of many tokens.
    inner: [2, numbers] int32, where halves of products meet (see `LowRank`), of which the one at `turn` is empty.
    read: whether a kernel that reads them has been launched.
    """

    order: Tensor
    table: Tensor
    size: int
    present: Tensor | None = None
    inner: Tensor | None = None
    turn: int = 0
    read: bool = False


@triton.jit(do_not_specialize=["tokens", "places", "most"])
def _segments(
    adapters: tl.tensor,
    order: tl.tensor,
    table: tl.tensor,
    present: tl.tensor,
    inner: tl.tensor,
    tokens: int,
    places: int,
    most: int,
    numbers: int,
    SIZE: tl.constexpr,
    T_BLOCK: tl.constexpr,
    P_BLOCK: tl.constexpr,
    CLEARED: tl.constexpr,
    PDL: tl.constexpr,
) -> None:
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    program = tl.program_id(0)
    if program > 0:
        place = (program - 1) * CLEARED + tl.arange(0, CLEARED)
        tl.store(inner + place, tl.full((CLEARED,), _EMPTY, tl.int32), mask=place < numbers)
        return
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
    there = (p <= places) & (end > first)
    tl.store(present + 1 + tl.cumsum(there.to(tl.int32), 0), p - 1, mask=there)
    tl.store(present, tl.sum(count, 0))
    tl.store(present + 1, tl.sum(there.to(tl.int32), 0))
    for at in tl.static_range((T_BLOCK + SIZE - 1) // SIZE):
        row, held, start = table + (after - count + at) * 3, at < count, first + at * SIZE
        tl.store(row, p - 1, mask=held)
        tl.store(row + 1, start, mask=held)
        tl.store(row + 2, tl.minimum(start + SIZE, end), mask=held)
    total, s = tl.sum(count, 0), tl.arange(0, T_BLOCK)
    for field in tl.static_range(3):
        tl.store(table + s * 3 + field, tl.zeros_like(s), mask=(s >= total) & (s < most))


def segments_of(adapters: Tensor, places: int, width: Callable[[int], int] | None = None) -> Segments:
    """The segments of a step. adapters: [T] int64, the place of each token's adapter, from 1; 0 for none.

    width: the most numbers that are between the halves of a product for each of so many tokens; none by default.
    """
    tokens, device = len(adapters), adapters.device
    size = SHORT if tokens <= FEW else LONG
    different = min(tokens, places)
    most = different + (tokens - different) // size
    if max(tokens, places) > COMPARED:
        return _sorted_segments(adapters, places, size, most)
    order = torch.empty(tokens, dtype=torch.int32, device=device)
    table = torch.empty(most, 3, dtype=torch.int32, device=device)
    present = torch.empty(2 + places, dtype=torch.int32, device=device)
    numbers = 0 if width is None else -(-tokens * width(tokens) // ALIGNED) * ALIGNED
    inner = torch.empty(2, numbers, dtype=torch.int32, device=device)
    pdl = overlaps(device)
    _segments[(1 + triton.cdiv(numbers, CLEARED),)](
        *(adapters, order, table, present, inner, tokens, places, most, numbers),
        SIZE=size,
        T_BLOCK=triton.next_power_of_2(tokens),
        P_BLOCK=triton.next_power_of_2(places),
        CLEARED=CLEARED,
        PDL=pdl,
        launch_pdl=pdl,
        num_warps=8,
    )
    return Segments(order, table, size, present, inner)


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
