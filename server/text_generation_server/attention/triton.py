"""Attention by our own kernels over paged slots, on CUDA devices: every variant, with nothing to install.

Kernels read slots from the rows' table and lengths from the device, so that a step of single tokens needs no
preparation at all. In a step with prompts, rows of one token go through the decode kernel and the others, by blocks of
queries that the host lists, through the prefill kernel. Knows no model and no ranks.

Dimensions: T tokens of the step, R rows, H query heads of the rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import accumulate
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from text_generation_server.attention.base import AttentionShape, LayerAttention, RowLayout
from text_generation_server.cache.paged import PagedCache

if TYPE_CHECKING:
    from text_generation_server.kernels.attention.scores import Rule
    from text_generation_server.kernels.attention.sizes import PrefillTile, Split

WIDEST_HEAD = 256
"""Numbers of a head whose queries, keys and sums a program still holds."""

OLDEST_CAPABILITY = (8, 0)
"""Of devices that copy to shared memory beside computing, and know bfloat16."""


@dataclass(frozen=True, slots=True)
class SingleTokens:
    """Rows of one token. rows, kv_lens: [R] int64. tokens: [R] int64, None for T = R in order."""

    rules: Sequence[Rule]
    table: Tensor
    rows: Tensor
    kv_lens: Tensor
    tokens: Tensor | None
    split: Split

    def run(self, q: Tensor, layer: LayerAttention, cache: PagedCache, out: Tensor | None = None) -> Tensor:
        """See `AttentionPlan`. out: [T, H · d], where to write; None for a new tensor."""
        from text_generation_server.kernels.attention.decode import decode

        kv, rule = cache.layer(layer.layer), self.rules[layer.variant]
        return decode(
            *(q, kv, self.rows, self.kv_lens, self.table, rule, layer.scale, self.split),
            tokens=self.tokens,
            out=out,
        )

    def suits(self, kv_lens: Sequence[int]) -> bool:
        """See `DecodePlan`: any lengths, as they are read on the device."""
        return True

    def prepare(self, kv_lens: Sequence[int]) -> None:
        """See `DecodePlan`: there is nothing to do."""


@dataclass(frozen=True, slots=True)
class Mixed:
    """A step with prompts. blocks: [programs, 5] int64. singles: its rows of one token, if any."""

    rules: Sequence[Rule]
    table: Tensor
    blocks: Tensor
    tile: PrefillTile
    singles: SingleTokens | None

    def run(self, q: Tensor, layer: LayerAttention, cache: PagedCache, out: Tensor | None = None) -> Tensor:
        """See `AttentionPlan`."""
        from text_generation_server.kernels.attention.prefill import prefill

        kv, rule = cache.layer(layer.layer), self.rules[layer.variant]
        out = q.new_empty(q.shape[0], q.shape[1] * q.shape[2]) if out is None else out
        prefill(q, kv, self.blocks, self.table, rule, layer.scale, self.tile, out)
        return out if self.singles is None else self.singles.run(q, layer, cache, out)


class TritonAttention:
    """Makes plans for models of one shape."""

    name = "triton"
    slot_major = True

    def __init__(self, shape: AttentionShape) -> None:
        from text_generation_server.kernels.attention.scores import Rule
        from text_generation_server.kernels.attention.sizes import PrefillTile

        state = shape.state
        self.head_dim = state.head_dim
        self._heads, self._kv_heads, self._device = shape.heads, state.kv_heads, state.device
        self._tile = PrefillTile.of(state.head_dim, state.dtype)
        self._rules = [
            Rule.of(variant.window, variant.alibi, variant.softcap, state.device) for variant in shape.variants
        ]

    @staticmethod
    def why_not(shape: AttentionShape) -> str | None:
        """None, or what such a model has or this machine lacks."""
        state = shape.state
        if state.device.type != "cuda":
            return f"it needs a CUDA device, not {state.device.type}"
        if find_spec("triton") is None:
            return "Triton is not installed"
        # Kernels may be prepared where there is no device to ask.
        if torch.cuda.is_available() and (has := torch.cuda.get_device_capability(state.device)) < OLDEST_CAPABILITY:
            return f"the device has compute capability {has}, less than {OLDEST_CAPABILITY}"
        if state.head_dim > WIDEST_HEAD:
            return f"heads have {state.head_dim} numbers, more than {WIDEST_HEAD}"
        return None

    def plan(self, layout: RowLayout) -> SingleTokens | Mixed:
        """Prepare one step."""
        if max(layout.query_lens) == 1:
            return self._singles(layout.slot_table, layout.device_rows, layout.device_kv_lens, None)
        from text_generation_server.kernels.attention.prefill import FIELDS, blocks_of

        starts = [*accumulate(layout.query_lens, initial=0)]
        rows = [*zip(layout.rows, starts[:-1], layout.query_lens, layout.kv_lens, strict=True)]
        singles = [row for row in rows if row[2] == 1]
        blocks = blocks_of([row for row in rows if row[2] > 1], self._heads // self._kv_heads, self._tile.rows)
        numbers = [number for block in blocks for number in block]
        numbers += [row[field] for field in (0, 3, 1) for row in singles]
        device = torch.tensor(numbers, pin_memory=self._device.type == "cuda").to(self._device, non_blocking=True)
        table, listed = layout.slot_table, device[len(blocks) * FIELDS :].view(3, -1)
        return Mixed(
            rules=self._rules,
            table=table,
            blocks=device[: len(blocks) * FIELDS].view(-1, FIELDS),
            tile=self._tile,
            singles=self._singles(table, *listed) if singles else None,
        )

    def decode_plans(self, rows: Tensor, kv_lens: Tensor, slot_table: Tensor) -> Sequence[SingleTokens]:
        """See `AttentionBackend`."""
        return (self._singles(slot_table, rows, kv_lens, None),)

    def _singles(self, table: Tensor, rows: Tensor, kv_lens: Tensor, tokens: Tensor | None) -> SingleTokens:
        from text_generation_server.kernels.attention.sizes import Split

        split = Split.of(len(rows), self._heads, self._kv_heads, self._device)
        return SingleTokens(self._rules, table, rows, kv_lens, tokens, split)
