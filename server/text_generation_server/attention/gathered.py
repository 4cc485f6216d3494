"""Attention with a learned bias by distance, over slots gathered from the cache, to earlier tokens or to all.

Rows of one token are attended to together, padded to the longest; others one by one, in blocks of queries so that no
mask grows with the square of a prompt. By torch's operators; knows no model and no ranks.

Dimensions: T tokens of the step, t of a row, B rows, S keys, H heads of the rank, K of keys, d head_dim.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
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
        distances = torch.arange(-max_distance, max_distance + 1)  # on the host: devices differ at the borders
        buckets = _buckets(distances, len(weight), max_distance, causal).to(weight.device)
        return cls(weight[buckets].T.contiguous())

    @property
    def before(self) -> Tensor:
        """The same for keys from `most` tokens behind a query to as many before it."""
        return self.by_distance.flip(1)

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
    """Some rows. tokens: which of the step. slots: [B, S].

    mask: makes what is added to scores, which expands to [B, H, t, S]; None if every key counts alike.
    """

    tokens: slice | Tensor
    slots: Tensor
    mask: Callable[[], Tensor | None]


class GatheredPlan:
    """A step's attention; satisfies `AttentionPlan`.

    table: [rows, positions] int64, the slot of each key. rows, query_lens, seq_lens: of the step, as in `RowLayout`.
    bias: None for none. causal: a row's queries are its last keys, and see no later ones; else each sees all keys. For
    rows without keys nothing is computed: what stands there may be anything.
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
        every = [
            row for row in zip(rows, accumulate(query_lens, initial=0), query_lens, seq_lens, strict=False) if row[3]
        ]
        self._groups = [*self._singles([row for row in every if row[2] == 1])]
        for row in every:
            if row[2] > 1:
                self._groups += self._blocks(*row)

    def run(self, q: Tensor, layer: LayerAttention, cache: PagedCache) -> Tensor:
        """See `AttentionPlan`."""
        out = q.new_empty(q.shape)
        for group in self._groups:
            rows, keys = group.slots.shape
            held = cache.gather(layer.layer, group.slots.flatten())
            kv = held.view(2, -1, rows, keys, q.shape[-1]).transpose(1, 2)  # [2, B, K, S, d]
            queries = q[group.tokens].view(rows, -1, *q.shape[1:]).transpose(1, 2)  # [B, H, t, d]
            mask = group.mask()
            mask = None if mask is None else mask.to(q.dtype)
            shared = kv.shape[2] != queries.shape[1]
            attended = F.scaled_dot_product_attention(queries, kv[0], kv[1], mask, scale=layer.scale, enable_gqa=shared)
            out[group.tokens] = attended.transpose(1, 2).flatten(0, 1)
        return out.flatten(1)

    def _singles(self, every: Sequence[tuple[int, int, int, int]]) -> Iterator[Gathered]:
        if not every:
            return
        rows, tokens, _, lens = torch.tensor(every, device=self._table.device).unbind(1)
        longest = max(count for *_, count in every)
        key, last = torch.arange(longest, device=rows.device), lens[:, None] - 1
        mask = None if self._bias is None else self._bias(key - last).transpose(0, 1)[:, :, None]
        if any(count < longest for *_, count in every):
            plain = torch.zeros(1, device=rows.device) if mask is None else mask
            mask = plain.masked_fill((key > last)[:, None, None], -torch.inf)
        # Beyond a row's last key is that key again, which is a number, and gets no weight.
        yield Gathered(tokens, self._table[rows[:, None], torch.minimum(key, last)], lambda: mask)

    def _blocks(self, row: int, first: int, count: int, keys: int) -> Iterator[Gathered]:
        slots, earlier = self._table[row : row + 1, :keys], keys - count
        for start in range(0, count, QUERY_BLOCK):
            past = min(start + QUERY_BLOCK, count)
            seen = earlier + past if self._causal else keys
            make = partial(self._mask, earlier + start, earlier + past, seen)
            if count <= QUERY_BLOCK:  # one for all layers; of more, all together would be too large to keep
                make = partial(_kept, make())
            yield Gathered(slice(first + start, first + past), slots[:, :seen], make)

    def _mask(self, start: int, past: int, keys: int) -> Tensor | None:
        """For queries at positions from start to past: [H or 1, t, S]."""
        ahead = (
            torch.arange(keys, device=self._table.device)
            - torch.arange(start, past, device=self._table.device)[:, None]
        )
        mask = None if self._bias is None else self._bias(ahead)
        if not self._causal:
            return mask
        plain = torch.zeros(1, 1, 1, device=ahead.device) if mask is None else mask
        return plain.masked_fill(ahead > 0, -torch.inf)


def _kept(mask: Tensor | None) -> Tensor | None:
    return mask
