"""Attention with torch's own operators over slots gathered from the cache: the CPU path, and a reference for others.

Rows that compute one token are attended to together, padded to the longest; rows with more tokens one by one, in
blocks of queries so that a mask never grows with the square of a prompt. Knows no model and no ranks.

Dimensions: T tokens of the step, t of some rows, S keys, H and K query and key/value heads of the rank, g = H / K,
d head_dim.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from text_generation_server.attention.base import (
    AttentionShape,
    AttentionVariant,
    DecodePlan,
    LayerAttention,
    TokenPlan,
)
from text_generation_server.cache.layout import RowLayout
from text_generation_server.cache.paged import PagedCache, PagedSpec

QUERY_BLOCK = 256
"""Queries of a prompt that share a mask."""

MANY_KEYS = 1024
"""Keys of a decode step, of all rows together, from which separate products beat the fused attention."""

Gather = Callable[[Tensor], Tensor]
"""A layer's `PagedCache.gather`."""


@dataclass(frozen=True, slots=True)
class Bias:
    """What a variant does to scores. slopes: [K, g] in float32, None for none. dtype: of a mask without slopes.

    sinks: see `AttentionVariant`.
    """

    window: int | None
    slopes: Tensor | None
    softcap: float | None
    dtype: torch.dtype
    sinks: bool = False

    @classmethod
    def of(cls, variant: AttentionVariant, state: PagedSpec) -> "Bias":
        """The variant's, with its slopes by key/value head."""
        slopes = None
        if variant.alibi is not None:
            slopes = torch.tensor(variant.alibi, device=state.device).view(state.kv_heads, -1)
        return cls(variant.window, slopes, variant.softcap, state.dtype, variant.sinks)

    @property
    def is_mask(self) -> bool:
        """Whether scores are as they are, but for those that are hidden."""
        return self.slopes is None and self.softcap is None and not self.sinks

    def first_visible(self, query: int) -> int:
        """Position of the oldest key that the query at this position sees."""
        return 0 if self.window is None else max(0, query - self.window + 1)

    def mask(self, keys: Tensor, queries: Tensor) -> Tensor:
        """Zero, or the distance where slopes are to multiply it, for visible key positions; −inf for others."""
        ahead = keys - queries
        hidden = ahead > 0 if self.window is None else (ahead > 0) | (ahead <= -self.window)
        plain = ahead.to(self.dtype).zero_() if self.slopes is None else ahead.float()
        return plain.masked_fill_(hidden, -torch.inf)


class RowGroup(Protocol):
    """Some rows of a step, attended to under one variant. `tokens`: which of the step's tokens they are."""

    @property
    def tokens(self) -> slice | Tensor:
        """As an index into them."""

    def run(self, q: Tensor, gather: Gather, scale: float, sinks: Tensor | None) -> Tensor:
        """Queries [t, K, g, d] over keys and values that `gather` finds for slots [S]: [2 · K, S, d]. To [t, H · d].

        sinks: [K, g] float32, None for none.
        """


@dataclass(frozen=True, slots=True)
class DecodeRows:
    """B rows of one token each. slots: [B · S]. mask: expands to [K, B, g, S], None if every key counts alike.

    The heads of a group are the queries of one attention, so that keys are read once for all of them.
    """

    tokens: slice | Tensor
    slots: Tensor
    mask: Tensor | None
    softcap: float | None

    def run(self, q: Tensor, gather: Gather, scale: float, sinks: Tensor | None) -> Tensor:
        """See `RowGroup`."""
        rows, kv_heads, _, head_dim = q.shape
        keys, values = gather(self.slots).view(2, kv_heads, rows, -1, head_dim)
        q = q.transpose(0, 1)
        if self.softcap is not None or sinks is not None:
            sinks = None if sinks is None else sinks[:, None, :, None]
            out = attend_step_by_step(q, keys, values, self.mask, scale, self.softcap, sinks)
        elif self.slots.numel() < MANY_KEYS and q.device.type == "cpu":
            out = attend_fused(q, keys, values, self.mask, scale)
        else:
            out = _attend_in_products(q, keys, values, self.mask, scale)
        return out.transpose(0, 1).reshape(rows, -1)


def attend_fused(
    q: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None, scale: float, causal: bool = False
) -> Tensor:
    """[…, t, d] over […, S, d] in one call: the least overhead, but slow for few queries over many keys.

    Not by cuDNN on CUDA devices: it spends 50 ms on every new
    length, and reads a mask of another type than the queries as if it were of theirs.
    """
    if not q.is_cuda:
        return F.scaled_dot_product_attention(q, keys, values, bias, is_causal=causal, scale=scale)
    bias = None if bias is None else bias.to(q.dtype)
    with sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]):
        return F.scaled_dot_product_attention(q, keys, values, bias, is_causal=causal, scale=scale)


def _attend_in_products(q: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None, scale: float) -> Tensor:
    """The same as two batched products: faster over many keys, with scores rounded to the type of q."""
    q, keys, values, shape = q.flatten(0, 1), keys.flatten(0, 1), values.flatten(0, 1), q.shape
    if bias is None:
        scores = torch.bmm(q, keys.transpose(1, 2)).mul_(scale)
    else:
        bias = bias.to(q.dtype).expand(*shape[:3], -1).flatten(0, 1)
        scores = torch.baddbmm(bias, q, keys.transpose(1, 2), alpha=scale)
    return torch.bmm(scores.softmax(-1), values).view(shape)


def attend_step_by_step(
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    bias: Tensor | None,
    scale: float,
    softcap: float | None,
    sinks: Tensor | None,
) -> Tensor:
    """[…, t, d] over […, S, d], where no fused operator does: scores in the type of q, their softmax in float32.

    sinks: [… or 1, t or 1, 1] float32, scores of which no value is summed; None for none.
    """
    scores = torch.matmul(q, keys.transpose(-1, -2))
    scores = scores.mul_(scale) if softcap is None else scores.mul_(scale / softcap).tanh_().mul_(softcap)
    if bias is not None:
        scores = scores + bias
    if sinks is None:
        weights = scores.softmax(-1, dtype=torch.float32)
    else:
        scores = torch.cat((scores.float(), sinks.expand(*scores.shape[:-1], 1)), -1)
        weights = scores.softmax(-1)[..., :-1]
    return torch.matmul(weights.to(q.dtype), values)


@dataclass(frozen=True, slots=True)
class QueryBlock:
    """Queries of one row and the keys they may see, as ranges of the row's; mask None: causal from the first key."""

    queries: slice
    keys: slice
    mask: Tensor | None


@dataclass(frozen=True, slots=True)
class PromptRow:
    """A row of several tokens. slots: [S]. slopes: [K, g, 1, 1], None for none."""

    tokens: slice
    slots: Tensor
    slopes: Tensor | None
    softcap: float | None
    blocks: tuple[QueryBlock, ...]

    def run(self, q: Tensor, gather: Gather, scale: float, sinks: Tensor | None) -> Tensor:
        """See `RowGroup`."""
        tokens, kv_heads, group, head_dim = q.shape
        kv = gather(self.slots).view(2, kv_heads, 1, -1, head_dim).expand(-1, -1, group, -1, -1)
        q = q.permute(1, 2, 0, 3)  # [K, g, t, d]
        sinks = None if sinks is None else sinks[:, :, None, None]
        outs = [self._attend(block, q, kv, scale, sinks) for block in self.blocks]
        out = outs[0] if len(outs) == 1 else torch.cat(outs, dim=2)
        return out.permute(2, 0, 1, 3).reshape(tokens, -1)

    def _attend(self, block: QueryBlock, q: Tensor, kv: Tensor, scale: float, sinks: Tensor | None) -> Tensor:
        keys, values = kv[:, :, :, block.keys]
        bias = block.mask if self.slopes is None or block.mask is None else self.slopes * block.mask
        if self.softcap is not None or sinks is not None:
            return attend_step_by_step(q[:, :, block.queries], keys, values, bias, scale, self.softcap, sinks)
        return attend_fused(q[:, :, block.queries], keys, values, bias, scale, causal=block.mask is None)


class SdpaPlan:
    """One step's slots, gathers and masks, for every variant."""

    def __init__(self, layout: RowLayout, biases: Sequence[Bias]) -> None:
        self._starts = [0, *accumulate(layout.query_lens)]
        self._layout = layout
        self._parts: list[list[RowGroup]] = [[*self._decode_rows(bias), *self._prompt_rows(bias)] for bias in biases]

    def run(self, q: Tensor, layer: LayerAttention, cache: PagedCache) -> Tensor:
        """See `AttentionPlan`."""
        gather = partial(cache.gather, layer.layer)
        tokens, heads, head_dim = q.shape
        q = q.view(tokens, cache.kv_heads, -1, head_dim)
        sinks = None if layer.sinks is None else layer.sinks.view(cache.kv_heads, -1)
        parts = self._parts[layer.variant]
        if len(parts) == 1:
            return parts[0].run(q, gather, layer.scale, sinks)
        out = q.new_empty(tokens, heads * head_dim)
        for part in parts:
            out[part.tokens] = part.run(q[part.tokens], gather, layer.scale, sinks)
        return out

    def _row_slots(self, index: int, first: int) -> Tensor:
        """Slots of a row's positions from `first` to its last key."""
        return self._layout.block_table[self._layout.rows[index], first : self._layout.seq_lens[index]]

    def _decode_rows(self, bias: Bias) -> Iterator[DecodeRows]:
        """All rows of one token, padded in front of their last key where a row has fewer keys than the longest."""
        layout = self._layout
        chosen = [i for i, count in enumerate(layout.query_lens) if count == 1]
        if not chosen:
            return
        lens = [layout.seq_lens[i] for i in chosen]
        span = max(kv_len - bias.first_visible(kv_len - 1) for kv_len in lens)
        last = self._tensor(lens)[:, None] - 1
        positions = last - torch.arange(span - 1, -1, -1, device=last.device)
        rows = self._tensor([layout.rows[i] for i in chosen])[:, None]
        # A row's padding reads its own first slot: any other might hold what was never written.
        slots = layout.block_table[rows, positions.clamp(min=0)]
        padded = any(kv_len < span for kv_len in lens)
        mask = self._decode_mask(bias, positions, last) if padded or bias.slopes is not None else None
        tokens = slice(None) if len(chosen) == len(layout.rows) else self._tensor([self._starts[i] for i in chosen])
        yield DecodeRows(tokens, slots.flatten(), mask, bias.softcap)

    @staticmethod
    def _decode_mask(bias: Bias, positions: Tensor, last: Tensor) -> Tensor:
        mask = bias.mask(positions, last).masked_fill_(positions < 0, -torch.inf)[None, :, None]
        return mask if bias.slopes is None else bias.slopes[:, None, :, None] * mask

    def _prompt_rows(self, bias: Bias) -> Iterator[PromptRow]:
        for i, count in enumerate(self._layout.query_lens):
            if count == 1:
                continue
            begin, end = self._layout.seq_lens[i] - count, self._layout.seq_lens[i]
            oldest = bias.first_visible(begin)
            tokens = slice(self._starts[i], self._starts[i] + count)
            slopes = None if bias.slopes is None else bias.slopes[:, :, None, None]
            blocks = tuple(self._blocks(bias, begin, end, oldest))
            yield PromptRow(tokens, self._row_slots(i, oldest), slopes, bias.softcap, blocks)

    def _blocks(self, bias: Bias, begin: int, end: int, oldest: int) -> Iterator[QueryBlock]:
        """Queries at positions [begin, end), over keys that start at `oldest`."""
        device = self._layout.block_table.device
        for first in range(begin, end, QUERY_BLOCK):
            past = min(first + QUERY_BLOCK, end)
            seen = bias.first_visible(first)
            queries, keys = slice(first - begin, past - begin), slice(seen - oldest, past - oldest)
            if first == 0 and bias.is_mask and bias.first_visible(past - 1) == 0:
                yield QueryBlock(queries, keys, None)
                continue
            key_positions = torch.arange(seen, past, device=device)
            query_positions = torch.arange(first, past, device=device)[:, None]
            yield QueryBlock(queries, keys, bias.mask(key_positions, query_positions))

    def _tensor(self, values: Sequence[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.int64, device=self._layout.block_table.device)


class SdpaAttention:
    """Makes plans for models of one shape."""

    name = "sdpa"
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
        """Every model can be computed."""
        return None

    def plan(self, layout: RowLayout) -> SdpaPlan:
        """Prepare one step."""
        return SdpaPlan(layout, self._biases)

    def decode_plans(self, rows: Tensor, seq_lens: Tensor, block_table: Tensor) -> Sequence[DecodePlan]:
        """None: what is gathered depends on the rows' lengths."""
        return ()

    def token_plans(self, tokens: int, block_table: Tensor) -> Sequence[TokenPlan]:
        """None, for the same reason."""
        return ()
