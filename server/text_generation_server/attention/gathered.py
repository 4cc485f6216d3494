"""Attention with a learned bias by distance, over slots gathered from the cache, to earlier tokens or to all.

Rows of one token are attended to together, padded to the longest; others one by one, in blocks of queries so that no
mask grows with the square of a prompt. By torch's operators; knows no model and no ranks.

Dimensions: T tokens of the step, t of a row, B rows, S keys, H heads of the rank, d head_dim.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor

from text_generation_server.attention.base import LayerAttention
from text_generation_server.cache.paged import PagedCache

QUERY_BLOCK = 256
"""Queries of a prompt that share a mask."""


@dataclass(frozen=True, slots=True)
class RelativeBias:
    """by_distance: [H, 2 · most + 1], for keys from `most` tokens before a query, and beyond, to as many behind it."""

    by_distance: Tensor

    @classmethod
    def of(cls, weight: Tensor, max_distance: int, causal: bool) -> "RelativeBias":
        """Of weights [buckets, H]. causal: all buckets are for keys before a query, else half of them."""
        distances = torch.arange(-max_distance, max_distance + 1, device=weight.device)
        return cls(weight[_buckets(distances, len(weight), max_distance, causal)].T.contiguous())

    def __call__(self, ahead: Tensor) -> Tensor:
        """Distances [...] from query to key to biases [H, ...]."""
        most = self.by_distance.shape[1] // 2
        return self.by_distance[:, ahead.clamp(-most, most) + most]


def _buckets(distances: Tensor, buckets: int, max_distance: int, causal: bool) -> Tensor:
    """The bucket of each distance [n] int64 from query to key; float32 decides at the borders, as in training."""
    first = torch.zeros_like(distances)
    if causal:
        far = (-distances).clamp(min=0)
    else:
        buckets //= 2
        first[distances > 0] = buckets
        far = distances.abs()
    exact = buckets // 2
    share = torch.log(far.float() / exact) / math.log(max_distance / exact)
    ranged = (exact + (share * (buckets - exact)).nan_to_num(neginf=0.0).long()).clamp(max=buckets - 1)
    return first + torch.where(far < exact, far, ranged)


@dataclass(frozen=True, slots=True)
class Gathered:
    """Some rows. tokens: which of the step. slots: [B, S]. mask: expands to [B, H, t, S]; None if all counts alike."""

    tokens: slice | Tensor
    slots: Tensor
    mask: Tensor | None


class GatheredPlan:
    """A step's attention; satisfies `AttentionPlan`.

    table: [rows, positions] int64, the slot of each key. rows, query_lens, seq_lens: of the step, as in `RowLayout`.
    bias: None for none. causal: a row's queries are its last keys, and see no later ones; else each sees all keys.
    """

    def __init__(
        self,
        table: Tensor,
        rows: Sequence[int],
        query_lens: Sequence[int],
        seq_lens: Sequence[int],
        bias: RelativeBias | None,
        causal: bool,
    ) -> None:
        self._table, self._bias, self._causal = table, bias, causal
        every = [*zip(rows, accumulate(query_lens, initial=0), query_lens, seq_lens, strict=False)]
        self._groups = [*self._singles([row for row in every if row[2] == 1])]
        for row in every:
            if row[2] > 1:
                self._groups += self._blocks(*row)

    def run(self, q: Tensor, layer: LayerAttention, cache: PagedCache) -> Tensor:
        """See `AttentionPlan`."""
        out = q.new_empty(q.shape)
        pool = cache.layer(layer.layer)
        for group in self._groups:
            rows, keys = group.slots.shape
            kv = pool.index_select(1, group.slots.flatten()).view(2, -1, rows, keys, q.shape[-1]).transpose(1, 2)
            queries = q[group.tokens].view(rows, -1, *q.shape[1:]).transpose(1, 2)  # [B, H, t, d]
            mask = None if group.mask is None else group.mask.to(q.dtype)
            attended = F.scaled_dot_product_attention(queries, kv[0], kv[1], mask, scale=layer.scale)
            out[group.tokens] = attended.transpose(1, 2).flatten(0, 1)
        return out.flatten(1)

    def _singles(self, every: Sequence[tuple[int, int, int, int]]) -> Iterator[Gathered]:
        if not every:
            return
        rows, tokens, _, lens = torch.tensor(every, device=self._table.device).unbind(1)
        key = torch.arange(int(max(count for *_, count in every)), device=rows.device)
        mask = None
        if self._bias is not None:
            mask = self._bias(key - (lens - 1)[:, None]).transpose(0, 1)[:, :, None]
        beyond = (key >= lens[:, None])[:, None, None]
        if len({count for *_, count in every}) > 1:
            plain = torch.zeros(beyond.shape, device=rows.device) if mask is None else mask
            mask = plain.masked_fill(beyond, -torch.inf)
        # Beyond a row's last key is that key again, which is a number, and gets no weight.
        yield Gathered(tokens, self._table[rows[:, None], torch.minimum(key, lens[:, None] - 1)], mask)

    def _blocks(self, row: int, first: int, count: int, keys: int) -> Iterator[Gathered]:
        slots = self._table[row : row + 1, :keys]
        for start in range(0, count, QUERY_BLOCK):
            past = min(start + QUERY_BLOCK, count)
            position = torch.arange(keys - count + start, keys - count + past, device=slots.device)
            seen = keys - count + past if self._causal else keys
            ahead = torch.arange(seen, device=slots.device) - position[:, None]
            mask = None if self._bias is None else self._bias(ahead)[None]
            if self._causal:
                plain = torch.zeros(ahead.shape, device=slots.device) if mask is None else mask
                mask = plain.masked_fill(ahead > 0, -torch.inf)
            yield Gathered(slice(first + start, first + past), slots[:, :seen], mask)
