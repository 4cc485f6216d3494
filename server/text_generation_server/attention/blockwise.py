"""Attention for models where tokens of a block, such as an image, see each other, and all others are causal.

Any backend computes the step; what it has for the queries of blocks, which see too little there, is then computed anew
by torch's operators, over slots gathered from the cache. Knows no model, no images and no ranks.

Dimensions: T tokens of the step, t of a block, S keys, H and K query and key/value heads of the rank, d head_dim.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import torch
from torch import Tensor

from text_generation_server.attention.base import (
    AttentionBackend,
    AttentionPlan,
    AttentionShape,
    AttentionVariant,
    DecodePlan,
    LayerAttention,
    TokenPlan,
)
from text_generation_server.attention.sdpa import attend_fused, attend_step_by_step
from text_generation_server.cache.layout import RowLayout
from text_generation_server.cache.paged import PagedCache


@dataclass(frozen=True, slots=True)
class BlockQueries:
    """The queries of a block in a step. tokens: which of the step. slots: [S] of the keys that any of them sees.

    mask: [t, S], None if all see all.
    """

    tokens: slice
    slots: Tensor
    mask: Tensor | None

    def run(self, q: Tensor, layer: LayerAttention, cache: PagedCache, softcap: float | None) -> Tensor:
        """Queries [T, H, d] to what those of the block get [t, H · d]."""
        gathered = cache.gather(layer.layer, self.slots)
        kv = gathered.reshape(2, -1, 1, *gathered.shape[1:])
        keys, values = kv.unbind()  # [K, 1, S, d]
        mine = q[self.tokens]
        mine = mine.view(len(mine), len(keys), -1, mine.shape[-1]).permute(1, 2, 0, 3)  # [K, H / K, t, d]
        keys, values = (held.expand(-1, mine.shape[1], -1, -1) for held in (keys, values))
        mask = None if self.mask is None else self.mask.to(q.dtype)
        if softcap is None and layer.sinks is None:
            out = attend_fused(mine, keys, values, mask, layer.scale)
        else:
            sinks = None if layer.sinks is None else layer.sinks.view(*mine.shape[:2], 1, 1)
            out = attend_step_by_step(mine, keys, values, mask, layer.scale, softcap, sinks)
        return out.permute(2, 0, 1, 3).flatten(1)


class BlockwisePlan:
    """A step with blocks; satisfies `AttentionPlan`. plain: the backend's plan of the step as if it had none."""

    def __init__(self, plain: AttentionPlan, layout: RowLayout, variants: Sequence[AttentionVariant]) -> None:
        self._plain = plain
        self._softcaps = [variant.softcap for variant in variants]
        self._blocks = [_queries(layout, variant.window) for variant in variants]

    def run(self, q: Tensor, layer: LayerAttention, cache: PagedCache) -> Tensor:
        """See `AttentionPlan`."""
        out = self._plain.run(q, layer, cache)
        for block in self._blocks[layer.variant]:
            out[block.tokens] = block.run(q, layer, cache, self._softcaps[layer.variant])
        return out


def _queries(layout: RowLayout, window: int | None) -> list[BlockQueries]:
    starts = [*accumulate(layout.query_lens, initial=0)]
    found = []
    for block in layout.blocks:
        begin = layout.seq_lens[block.row] - layout.query_lens[block.row]
        first = max(block.start, begin)
        oldest = 0 if window is None else max(0, first - window + 1)
        shift = starts[block.row] - begin
        found.append(
            BlockQueries(
                slice(first + shift, block.end + shift),
                layout.block_table[layout.rows[block.row], oldest : block.end],
                _mask(first, block.end, oldest, window, layout.block_table.device),
            )
        )
    return found


def _mask(first: int, end: int, oldest: int, window: int | None, device: torch.device) -> Tensor | None:
    """For queries at positions [first, end) and keys at [oldest, end): −inf for those too old for a query."""
    if window is None or end - 1 - oldest < window:
        return None
    keys, queries = torch.arange(oldest, end, device=device), torch.arange(first, end, device=device)
    return torch.zeros(len(queries), len(keys), device=device).masked_fill_(
        keys <= queries[:, None] - window, -torch.inf
    )


class BlockwiseAttention:
    """Satisfies `AttentionBackend`: another one, but for steps with blocks. windows: whether they bind there too."""

    def __init__(self, backend: AttentionBackend, shape: AttentionShape, windows: bool) -> None:
        self.name, self.slot_major, self.head_dim = backend.name, backend.slot_major, backend.head_dim
        self._backend = backend
        self._variants = [v if windows else replace(v, window=None) for v in shape.variants]

    def plan(self, layout: RowLayout) -> AttentionPlan:
        """Prepare one step."""
        plain = self._backend.plan(layout)
        return BlockwisePlan(plain, layout, self._variants) if layout.blocks else plain

    def decode_plans(self, rows: Tensor, seq_lens: Tensor, block_table: Tensor) -> Sequence[DecodePlan]:
        """See `AttentionBackend`: such steps have no blocks."""
        return self._backend.decode_plans(rows, seq_lens, block_table)

    def token_plans(self, tokens: int, block_table: Tensor) -> Sequence[TokenPlan]:
        """See `AttentionBackend`; for steps without blocks."""
        return self._backend.token_plans(tokens, block_table)
