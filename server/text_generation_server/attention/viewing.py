"""Attention of tokens to some keys of their row, whatever else their step has: to those of images, say.

Tokens that stand side by side and see the same are attended to together, but for steps of one token a row. By our
kernels on CUDA devices, where all numbers are made and read on the device, so that any step can be replayed; elsewhere
by torch's operators. Knows no model and no images.

Dimensions: T tokens of the step, H heads of the rank, d head_dim.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from text_generation_server.attention.base import AttentionPlan, AttentionShape, AttentionVariant, LayerAttention
from text_generation_server.attention.crossing import EachToken
from text_generation_server.attention.gathered import GatheredPlan
from text_generation_server.attention.triton import SHARING_PROGRAMS, TritonAttention
from text_generation_server.attention.triton_plans import Mixed
from text_generation_server.cache.paged import PagedCache, PagedSpec

if TYPE_CHECKING:
    from text_generation_server.kernels.attention.scores import Rule
    from text_generation_server.kernels.attention.sizes import PrefillTile


@dataclass(frozen=True, slots=True)
class SeenPlan:
    """Satisfies `AttentionPlan`; what tokens get that see nothing is zero. blind: [T], which those are."""

    plan: AttentionPlan
    blind: Tensor

    def run(self, q: Tensor, layer: LayerAttention, cache: PagedCache) -> Tensor:
        """See `AttentionPlan`."""
        return self.plan.run(q, layer, cache).masked_fill_(self.blind[:, None], 0.0)


@dataclass(frozen=True, slots=True)
class Kernels:
    """What our kernels need. tokens: that share a tile. arrived: see `decode`."""

    rule: "Rule"
    tile: "PrefillTile"
    arrived: Tensor
    tokens: int
    kv_heads: int
    most_programs: int

    @classmethod
    def of(cls, state: PagedSpec, heads: int) -> "Kernels":
        """Of a rank with so many heads of queries."""
        from text_generation_server.kernels.attention.decode import arrivals
        from text_generation_server.kernels.attention.scores import Rule
        from text_generation_server.kernels.attention.sizes import PrefillTile, multiprocessors

        device, tile = state.device, PrefillTile.of(state.head_dim, state.dtype)
        return cls(
            Rule.of(None, None, None, device, causal=False),
            tile,
            arrivals(device),
            tile.rows * state.kv_heads // heads,
            state.kv_heads,
            SHARING_PROGRAMS * multiprocessors(device),
        )

    def programs(self, tokens: int) -> int:
        """That share a step of so many tokens."""
        return min(tokens * self.kv_heads, self.most_programs)


class ViewingAttention:
    """Makes plans for one shape. heads: of queries. slot_major: of the cache that it reads.

    records: whether steps can be replayed.
    """

    def __init__(self, state: PagedSpec, heads: int) -> None:
        shape = AttentionShape((AttentionVariant(),), heads, state)
        self.slot_major = TritonAttention.why_not(shape) is None
        self.records = self.slot_major or state.device.type == "cpu"
        self._kernels = Kernels.of(state, heads) if self.slot_major else None

    def plan(self, table: Tensor, rows: Tensor, counts: Tensor, singles: bool) -> SeenPlan:
        """For tokens [T] int64 that see the first `counts` of the slots in these rows of a table [n, slots].

        singles: whether they are of one row each.
        """
        plan: AttentionPlan
        kernels = self._kernels
        if kernels is None:
            first, lens, seen = zip(*_runs(rows.tolist(), counts.tolist()), strict=True)
            plan = GatheredPlan(table, first, lens, seen, None, causal=False)
        elif singles:
            plan = EachToken(table, rows, counts, None, kernels.rule, kernels.arrived)
        else:
            # Of what nobody sees the kernel reads one key: it divides by sums of weights.
            blocks, count = blocks_of(rows, counts.clamp(min=1), kernels.tokens)
            plan = Mixed([kernels.rule], table, blocks, count, kernels.tile, kernels.programs(len(rows)), None)
        return SeenPlan(plan, counts == 0)


def blocks_of(rows: Tensor, counts: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """What the prefill kernel is to do for these tokens, see there: [T, 5] int64, and how many of the lines [1] int64.

    A block has up to `most` tokens side by side that see the same.
    """
    at = torch.arange(len(rows), device=rows.device)
    other = (rows[1:] != rows[:-1]) | (counts[1:] != counts[:-1])
    first = F.pad(torch.where(other, at[1:], 0), (1, 0)).cummax(0).values
    block = ((at - first) % most == 0).cumsum(0) - 1
    lens = torch.zeros_like(at).scatter_add_(0, block, torch.ones_like(at))
    starts = (lens.cumsum(0) - lens).clamp(max=len(rows) - 1)
    return torch.stack((rows[starts], starts, lens, counts[starts], torch.zeros_like(at)), 1), block[-1:] + 1


def _runs(rows: list[int], counts: list[int]) -> Iterator[tuple[int, int, int]]:
    """Row, number of tokens and count of those one after the other that see the same."""
    start, every = 0, [*zip(rows, counts, strict=True)]
    for past in range(1, len(every) + 1):
        if past == len(every) or every[past] != every[start]:
            yield every[start][0], past - start, every[start][1]
            start = past
