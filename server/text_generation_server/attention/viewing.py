"""Attention of tokens to some keys of their row, whatever else their step has: to those of images, say.

By our kernels on CUDA devices, each token by itself, with all numbers read on the device, so that any step can be
replayed. Elsewhere by torch's operators, tokens that see the same together. Knows no model and no images.

Dimensions: T tokens of the step, H heads of the rank, d head_dim.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from text_generation_server.attention.base import AttentionPlan, AttentionShape, AttentionVariant, LayerAttention
from text_generation_server.attention.crossing import EachToken
from text_generation_server.attention.gathered import GatheredPlan
from text_generation_server.attention.triton import TritonAttention
from text_generation_server.cache.paged import PagedCache, PagedSpec


@dataclass(frozen=True, slots=True)
class SeenPlan:
    """Satisfies `AttentionPlan`; what tokens get that see nothing is zero. blind: [T], which those are."""

    plan: AttentionPlan
    blind: Tensor

    def run(self, q: Tensor, layer: LayerAttention, cache: PagedCache) -> Tensor:
        """See `AttentionPlan`."""
        return self.plan.run(q, layer, cache).masked_fill_(self.blind[:, None], 0.0)


class ViewingAttention:
    """Makes plans for one shape. heads: of queries. slot_major: of the cache that it reads.

    records: whether steps can be replayed.
    """

    def __init__(self, state: PagedSpec, heads: int) -> None:
        shape = AttentionShape((AttentionVariant(),), heads, state)
        self.slot_major = TritonAttention.why_not(shape) is None
        self.records = self.slot_major or state.device.type == "cpu"
        self._rule = self._arrived = None
        if self.slot_major:
            from text_generation_server.kernels.attention.decode import arrivals
            from text_generation_server.kernels.attention.scores import Rule

            self._rule, self._arrived = Rule.of(None, None, None, state.device), arrivals(state.device)

    def plan(self, table: Tensor, rows: Tensor, counts: Tensor) -> SeenPlan:
        """For tokens [T] int64 that see the first `counts` of the slots in these rows of a table [n, slots]."""
        plan: AttentionPlan
        if self._rule is None:
            first, lens, seen = zip(*_runs(rows.tolist(), counts.tolist()), strict=True)
            plan = GatheredPlan(table, first, lens, seen, None, causal=False)
        else:
            plan = EachToken(table, rows, counts, None, self._rule, self._arrived)
        return SeenPlan(plan, counts == 0)


def _runs(rows: list[int], counts: list[int]) -> Iterator[tuple[int, int, int]]:
    """Row, number of tokens and count of those one after the other that see the same."""
    start, every = 0, [*zip(rows, counts, strict=True)]
    for past in range(1, len(every) + 1):
        if past == len(every) or every[past] != every[start]:
            yield every[start][0], past - start, every[start][1]
            start = past
