"""Attention one query at a time: what a token gets depends on its own keys and on nothing else in the step.

Slower than attending to a step at once, for those who want the same bits whatever else is computed (`--deterministic`).
On CPUs, by torch's own operators; knows no model and no ranks.

Dimensions: T tokens of the step, S keys, H and K query and key/value heads of the rank, g = H / K, d head_dim.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from text_generation_server.attention.base import AttentionShape, DecodePlan, LayerAttention, TokenPlan
from text_generation_server.attention.sdpa import Bias, attend_step_by_step
from text_generation_server.cache.layout import RowLayout
from text_generation_server.cache.paged import PagedCache


@dataclass(frozen=True, slots=True)
class Queries:
    """Tokens of one row of the slot table, at positions [first, past)."""

    row: int
    first: int
    past: int


class TokenwisePlan:
    """A step's tokens. A row's keys are gathered once, and each of its queries sees as many as it would see alone."""

    def __init__(self, queries: Sequence[Queries], block_table: Tensor, biases: Sequence[Bias]) -> None:
        self._queries = queries
        self._slot_table = block_table
        self._biases = biases

    def piece(self, first: int, past: int, size: int) -> Self:
        """The same for tokens [first, past) of the step, the last of them repeated until there are `size`."""
        cut: list[Queries] = []
        start = 0
        for queries in self._queries:
            shift = queries.first - start
            begin, end = max(first, start), min(past, start + queries.past - queries.first)
            if begin < end:
                cut.append(Queries(queries.row, begin + shift, end + shift))
            start += queries.past - queries.first
        last = Queries(cut[-1].row, cut[-1].past - 1, cut[-1].past)
        cut += [last] * (size - (past - first))
        return type(self)(cut, self._slot_table, self._biases)

    def run(self, q: Tensor, layer: LayerAttention, cache: PagedCache) -> Tensor:
        """See `AttentionPlan`."""
        bias = self._biases[layer.variant]
        kv_heads, head_dim = cache.kv_heads, q.shape[-1]
        q = q.view(len(q), kv_heads, -1, head_dim)
        out = q.new_empty(q.shape)
        token = 0
        for queries in self._queries:
            oldest = bias.first_visible(queries.first)
            slots = self._slot_table[queries.row, oldest : queries.past]
            keys, values = cache.gather(layer.layer, slots).view(2, kv_heads, -1, head_dim)
            for position in range(queries.first, queries.past):
                seen = slice(bias.first_visible(position) - oldest, position + 1 - oldest)
                out[token] = _attend(q[token], keys[:, seen], values[:, seen], bias, layer)
                token += 1
        return out.flatten(1)


def _attend(q: Tensor, keys: Tensor, values: Tensor, bias: Bias, layer: LayerAttention) -> Tensor:
    """[K, g, d] over [K, S, d]. The heads of a group are the queries of one attention; the last key is their own."""
    added = None if bias.slopes is None else _distances(keys.shape[1], bias.slopes)
    if bias.softcap is None and layer.sinks is None:
        added = None if added is None else added[None]
        return F.scaled_dot_product_attention(q[None], keys[None], values[None], added, scale=layer.scale)[0]
    sinks = None if layer.sinks is None else layer.sinks.view(*q.shape[:2], 1)
    return attend_step_by_step(q, keys, values, added, layer.scale, bias.softcap, sinks)


def _distances(keys: int, slopes: Tensor) -> Tensor:
    """What linear biases add for so many keys, the last being the query's own: [K, g, S] in float32."""
    return slopes[:, :, None] * torch.arange(1 - keys, 1, dtype=torch.float32, device=slopes.device)


class TokenwiseAttention:
    """Makes plans for models of one shape."""

    name = "tokenwise"
    slot_major = False

    def __init__(self, shape: AttentionShape) -> None:
        self.head_dim = shape.state.head_dim
        self._biases = [Bias.of(variant, shape.state) for variant in shape.variants]

    @staticmethod
    def cached_head_dim(shape: AttentionShape) -> int:
        """See `BackendClass`."""
        return shape.state.head_dim

    @staticmethod
    def why_not(shape: AttentionShape) -> str | None:
        """Only for CPUs: a launch a token and layer is what a GPU is slowest at."""
        device = shape.state.device.type
        return None if device == "cpu" else f"it is for CPUs, and the model is on {device}"

    def plan(self, layout: RowLayout) -> TokenwisePlan:
        """Prepare one step."""
        rows = zip(layout.rows, layout.query_lens, layout.seq_lens, strict=True)
        queries = [Queries(row, kv_len - count, kv_len) for row, count, kv_len in rows]
        return TokenwisePlan(queries, layout.block_table, self._biases)

    def decode_plans(self, rows: Tensor, seq_lens: Tensor, block_table: Tensor) -> Sequence[DecodePlan]:
        """None: every row is attended to by itself."""
        return ()

    def token_plans(self, tokens: int, block_table: Tensor) -> Sequence[TokenPlan]:
        """None, for the same reason."""
        return ()
