"""Attention of a decoder beside an encoder: plans of a step for its own tokens, and for the source that each row has.

By our kernels on CUDA devices, each token by itself and all numbers read on the device, so that any step can be
replayed; elsewhere by torch's operators over gathered slots. Knows no model.

Dimensions: T tokens of the step, H heads of the rank.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from text_generation_server.attention.base import AttentionPlan, AttentionShape, AttentionVariant, LayerAttention
from text_generation_server.attention.gathered import GatheredPlan, RelativeBias
from text_generation_server.attention.triton import TritonAttention
from text_generation_server.cache.layout import RowLayout
from text_generation_server.cache.paged import PagedCache, PagedSpec
from text_generation_server.cache.sources import Sources

if TYPE_CHECKING:
    from text_generation_server.kernels.attention.scores import Rule

    Rules = tuple[Rule | None, Rule | None]


class CrossingStep(Protocol):
    """What is known of a step before its tokens are."""

    def plans(self, rows: Tensor, positions: Tensor, sources: Sources) -> tuple[AttentionPlan, AttentionPlan]:
        """For tokens of these rows [T] int64 at these positions [T] int64: of earlier tokens and itself, of sources."""


class Gathering:
    """A step whose rows the host knows. bias: by distance between the decoder's tokens."""

    def __init__(self, layout: RowLayout, bias: RelativeBias) -> None:
        self._layout, self._bias = layout, bias

    def plans(self, rows: Tensor, positions: Tensor, sources: Sources) -> tuple[AttentionPlan, AttentionPlan]:
        """See `CrossingStep`."""
        layout = self._layout
        lens = sources.lens[layout.device_rows].tolist()
        own = GatheredPlan(layout.block_table, layout.rows, layout.query_lens, layout.seq_lens, self._bias, causal=True)
        return own, GatheredPlan(sources.table, layout.rows, layout.query_lens, lens, None, causal=False)


@dataclass(frozen=True, slots=True)
class EachToken:
    """A plan of tokens that see the first keys of a row each; satisfies `AttentionPlan`.

    table: [rows, positions] int64, the slot of each key. rows, seq_lens: [T] int64. bias: by distance, None for none.
    rule, arrived: the same for the kernel, None for torch's operators, which are for tests of what replays.
    """

    table: Tensor
    rows: Tensor
    seq_lens: Tensor
    bias: RelativeBias | None
    rule: "Rule | None"
    arrived: Tensor | None

    def run(self, q: Tensor, layer: LayerAttention, cache: PagedCache) -> Tensor:
        """See `AttentionPlan`."""
        if self.rule is None or self.arrived is None:
            rows, lens = self.rows.tolist(), self.seq_lens.tolist()
            return GatheredPlan(self.table, rows, [1] * len(rows), lens, self.bias, causal=True).run(q, layer, cache)
        from text_generation_server.kernels.attention.decode import decode
        from text_generation_server.kernels.attention.sizes import KVSplit

        kv = cache.layer(layer.layer)
        split = KVSplit.of(len(q), q.shape[1], kv.shape[2], q.device)
        return decode(q, kv, self.rows, self.seq_lens, self.table, self.rule, layer.scale, split, self.arrived)


class EachTokenStep:
    """A step of any rows, recorded or not; satisfies `DecodePreparation` and `TokenPreparation`.

    table: [rows, positions] int64, the slots of the decoder's tokens. rules: of own tokens and of sources, see
    `EachToken`.
    """

    def __init__(self, table: Tensor, bias: RelativeBias, rules: "Rules", arrived: Tensor | None) -> None:
        self._table, self._bias, self._rules, self._arrived = table, bias, rules, arrived

    def suits(self, *lens: Sequence[int]) -> bool:
        """Any lengths, as they are read on the device."""
        return True

    def prepare(self, *numbers: Sequence[int]) -> None:
        """There is nothing to do."""

    def plans(self, rows: Tensor, positions: Tensor, sources: Sources) -> tuple[AttentionPlan, AttentionPlan]:
        """See `CrossingStep`."""
        own, across = self._rules
        return (
            EachToken(self._table, rows, positions + 1, self._bias, own, self._arrived),
            EachToken(sources.table, rows, sources.lens[rows], None, across, self._arrived),
        )


class CrossingAttention:
    """Makes plans for decoders of one shape.

    name: for logs. slot_major: of the cache that it reads. records: whether steps can be replayed.
    """

    def __init__(self, state: PagedSpec, bias: RelativeBias) -> None:
        """state: of a rank, a key head for each query head. bias: by distance between a decoder's tokens."""
        shape = AttentionShape((AttentionVariant(),), state.kv_heads, state)
        self.slot_major = TritonAttention.why_not(shape) is None
        self.name = "triton" if self.slot_major else "gathered"
        self.records = self.slot_major or state.device.type == "cpu"
        self._bias = bias
        self._rules: Rules = None, None
        self._arrived: Tensor | None = None
        if self.slot_major:
            self._rules, self._arrived = _kernel_parts(bias, state.device)

    def step(self, layout: RowLayout) -> CrossingStep:
        """For one step."""
        return self.replayed(layout.block_table) if self.slot_major else Gathering(layout, self._bias)

    def replayed(self, table: Tensor) -> EachTokenStep:
        """For steps of any rows of the table, again and again."""
        return EachTokenStep(table, self._bias, self._rules, self._arrived)


def _kernel_parts(bias: RelativeBias, device: torch.device) -> "tuple[Rules, Tensor]":
    from text_generation_server.kernels.attention.decode import arrivals
    from text_generation_server.kernels.attention.scores import Rule

    rules = Rule.of(None, None, None, device, bias.before), Rule.of(None, None, None, device)
    return rules, arrivals(device)
