"""Attention of an encoder, and of the decoder beside it: to the decoder's own tokens, and to the source of each row.

By our kernels on CUDA devices; there a decoder's tokens are attended to each by itself and all numbers are read on the
device, so that any step can be replayed. Elsewhere by torch's operators over gathered slots. Knows no model.

Dimensions: T tokens of the step, H heads of the rank.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from torch import Tensor

from text_generation_server.attention.base import AttentionPlan, AttentionShape, AttentionVariant, LayerAttention
from text_generation_server.attention.gathered import GatheredPlan, RelativeBias
from text_generation_server.attention.triton import TritonAttention
from text_generation_server.attention.triton_plans import HEADER, Mixed, Work
from text_generation_server.cache.layout import RowLayout
from text_generation_server.cache.paged import PagedCache, PagedSpec
from text_generation_server.cache.sources import Sources
from text_generation_server.device.copies import upload

if TYPE_CHECKING:
    from text_generation_server.kernels.attention.scores import Rule
    from text_generation_server.kernels.attention.sizes import PrefillTile


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
class Kernels:
    """What our kernels need of a model. own, across, within: what scores are subject to between the decoder's tokens,
    from those to a source, and between those of a source. arrived: see `decode`.
    """

    own: "Rule"
    across: "Rule"
    within: "Rule"
    tile: "PrefillTile"
    arrived: Tensor

    @classmethod
    def of(cls, own: RelativeBias, within: RelativeBias, state: PagedSpec) -> "Kernels":
        """Of biases between a decoder's tokens and between an encoder's."""
        from text_generation_server.kernels.attention.decode import arrivals
        from text_generation_server.kernels.attention.scores import Rule
        from text_generation_server.kernels.attention.sizes import PrefillTile

        device = state.device
        return cls(
            Rule.of(None, None, None, device, own.before),
            Rule.of(None, None, None, device),
            Rule.of(None, None, None, device, within.before, causal=False),
            PrefillTile.of(state.head_dim, state.dtype),
            arrivals(device),
        )


@dataclass(frozen=True, slots=True)
class EachToken:
    """A plan of tokens that see the first keys of a row each; satisfies `AttentionPlan`.

    table: [rows, positions] int64, the slot of each key. rows, seq_lens: [T] int64. bias: by distance, None for none.
    rule, arrived: the same for the kernel; without, torch's operators do it, for tests of what is replayed.
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

    table: [rows, positions] int64, the slots of the decoder's tokens. bias: by distance between those.
    """

    def __init__(self, table: Tensor, bias: RelativeBias, kernels: Kernels | None) -> None:
        self._table, self._bias, self._kernels = table, bias, kernels

    def suits(self, *lens: Sequence[int]) -> bool:
        """Any lengths, as they are read on the device."""
        return True

    def prepare(self, *numbers: Sequence[int]) -> None:
        """There is nothing to do."""

    def plans(self, rows: Tensor, positions: Tensor, sources: Sources) -> tuple[AttentionPlan, AttentionPlan]:
        """See `CrossingStep`."""
        kernels = self._kernels
        own, across, arrived = (None,) * 3 if kernels is None else (kernels.own, kernels.across, kernels.arrived)
        return (
            EachToken(self._table, rows, positions + 1, self._bias, own, arrived),
            EachToken(sources.table, rows, sources.lens[rows], None, across, arrived),
        )


class CrossingAttention:
    """Makes plans for encoders and decoders of one shape.

    name: for logs. slot_major: of the cache that it reads. records: whether a decoder's steps can be replayed.
    """

    def __init__(self, state: PagedSpec, own: RelativeBias, within: RelativeBias) -> None:
        """state: of a rank, a key head for each query head. own, within: biases by distance, of `Kernels`."""
        shape = AttentionShape((AttentionVariant(),), state.kv_heads, state)
        self.slot_major = TritonAttention.why_not(shape) is None
        self.name = "triton" if self.slot_major else "gathered"
        self.records = self.slot_major or state.device.type == "cpu"
        self._own, self._within, self._heads = own, within, state.kv_heads
        self._kernels = Kernels.of(own, within, state) if self.slot_major else None

    def reading(self, table: Tensor, rows: Sequence[int], lens: Sequence[int]) -> AttentionPlan:
        """For an encoder's step: each row's tokens, as many as it has slots in the table, see each other."""
        kernels = self._kernels
        if kernels is None:
            return GatheredPlan(table, rows, lens, lens, self._within, causal=False)
        work = Work.of(rows, lens, lens, 1, kernels.tile.rows, apart=False)
        (packed,) = upload(table.device, work.packed(0))
        blocks, programs = packed[HEADER:].view(len(work.blocks), -1), len(work.blocks) * self._heads
        return Mixed([kernels.within], table, blocks, packed[:1], kernels.tile, programs, None)

    def step(self, layout: RowLayout) -> CrossingStep:
        """For one step of the decoder."""
        return Gathering(layout, self._own) if self._kernels is None else self.replayed(layout.block_table)

    def replayed(self, table: Tensor) -> EachTokenStep:
        """For steps of any rows of the table, again and again."""
        return EachTokenStep(table, self._own, self._kernels)
