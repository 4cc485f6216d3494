"""Plans of our own attention kernels for one step: what they are to do, packed for the device. Knows no model's shape.

Dimensions: T tokens of the step, R rows, H query heads of the rank, d head_dim.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

from torch import Tensor

from text_generation_server.attention.base import LayerAttention
from text_generation_server.cache.paged import PagedCache
from text_generation_server.device.copies import fill

if TYPE_CHECKING:
    from text_generation_server.kernels.attention.scores import Rule
    from text_generation_server.kernels.attention.sizes import KVSplit, PrefillTile

HEADER = 2
"""Numbers before those of rows and blocks."""


@dataclass(frozen=True, slots=True)
class SingleTokens:
    """Rows of one token. rows, seq_lens: [R] int64. tokens: [R] int64, None for T = R in order.

    arrived: what the decode kernel counts in, the same for all plans of a stream.
    """

    rules: Sequence[Rule]
    table: Tensor
    rows: Tensor
    seq_lens: Tensor
    tokens: Tensor | None
    split: KVSplit
    arrived: Tensor

    def run(self, q: Tensor, layer: LayerAttention, cache: PagedCache) -> Tensor:
        """See `AttentionPlan`."""
        return self.write(q, layer, cache, None)

    def write(self, q: Tensor, layer: LayerAttention, cache: PagedCache, out: Tensor | None) -> Tensor:
        """The same, to these tokens of out [T, H · d]; None for a new tensor."""
        from text_generation_server.kernels.attention.decode import decode

        kv, rule = cache.layer(layer.layer), self.rules[layer.variant]
        return decode(
            *(q, kv, self.rows, self.seq_lens, self.table, rule, layer.scale, self.split, self.arrived),
            tokens=self.tokens,
            out=out,
            sinks=layer.sinks,
        )

    def suits(self, seq_lens: Sequence[int]) -> bool:
        """See `DecodePlan`: any lengths, as they are read on the device."""
        return True

    def prepare(self, seq_lens: Sequence[int]) -> None:
        """See `DecodePlan`: there is nothing to do."""


@dataclass(frozen=True, slots=True)
class Mixed:
    """A step with prompts. singles: its rows of one token, None if those are blocks too.

    blocks, count: [any, 5] and [1] int64, what the prefill kernel is to do. programs: that do it.
    """

    rules: Sequence[Rule]
    table: Tensor
    blocks: Tensor
    count: Tensor
    tile: PrefillTile
    programs: int
    singles: SingleTokens | None

    def run(self, q: Tensor, layer: LayerAttention, cache: PagedCache) -> Tensor:
        """See `AttentionPlan`."""
        return self.write(q, layer, cache, q.new_empty(q.shape[0], q.shape[1] * q.shape[2]))

    def write(self, q: Tensor, layer: LayerAttention, cache: PagedCache, out: Tensor) -> Tensor:
        """The same, to the step's tokens of out [T, H · d]."""
        from text_generation_server.kernels.attention.prefill import prefill

        kv, rule = cache.layer(layer.layer), self.rules[layer.variant]
        work = self.blocks, self.count, self.table
        prefill(q, kv, *work, rule, layer.scale, self.tile, self.programs, out, layer.sinks)
        return out if self.singles is None else self.singles.write(q, layer, cache, out)


class ReplayedMixed:
    """A plan for any step of so many tokens: what it lists is where the kernels that were recorded look for it."""

    def __init__(
        self, mixed: Mixed, packed: Tensor, group: int, answers: Callable[[Tensor], Tensor], most_scores: float
    ) -> None:
        """packed: that `mixed` reads, as `Work.packed` lays them out. answers: where those for queries may go."""
        self._mixed, self._packed, self._group, self._answers = mixed, packed, group, answers
        self._most_scores = most_scores
        self._singles = 0 if mixed.singles is None else len(mixed.singles.rows)
        self._out: Tensor | None = None

    def suits(self, query_lens: Sequence[int], seq_lens: Sequence[int]) -> bool:
        """See `TokenPlan`: the decode kernel, which takes a while for nothing, is left out where nobody needs it."""
        return (self._singles > 0 or min(query_lens) > 1) and prompt_scores(query_lens, seq_lens) <= self._most_scores

    def prepare(self, rows: Sequence[int], query_lens: Sequence[int], seq_lens: Sequence[int]) -> None:
        """See `TokenPlan`."""
        work = Work.of(rows, query_lens, seq_lens, self._group, self._mixed.tile.rows, self._singles > 0)
        fill(self._packed, work.packed(self._singles))

    def run(self, q: Tensor, layer: LayerAttention, cache: PagedCache) -> Tensor:
        """See `TokenPlan`. All layers answer in one tensor: each answer is read before the next is written."""
        if self._out is None:
            self._out = self._answers(q)
        return self._mixed.write(q, layer, cache, self._out)


def prompt_scores(query_lens: Sequence[int], seq_lens: Sequence[int]) -> int:
    """Queries times keys, of all rows of more than one token together: a head's work on prompts."""
    return sum(queries * keys for queries, keys in zip(query_lens, seq_lens, strict=True) if queries > 1)


@dataclass(frozen=True, slots=True)
class Work:
    """What kernels are to do in a step. singles: rows of one token, as (row, keys, token). blocks: see `blocks_of`."""

    singles: Sequence[tuple[int, int, int]]
    blocks: Sequence[tuple[int, ...]]

    @classmethod
    def of(
        cls,
        rows: Sequence[int],
        query_lens: Sequence[int],
        seq_lens: Sequence[int],
        group: int,
        tile_rows: int,
        apart: bool,
    ) -> Work:
        """apart: whether rows of one token are packed by themselves, or are blocks too."""
        from text_generation_server.kernels.attention.prefill import blocks_of

        every = [*zip(rows, accumulate(query_lens, initial=0), query_lens, seq_lens, strict=False)]
        singles = [(row, keys, token) for row, token, queries, keys in every if apart and queries == 1]
        return cls(singles, blocks_of([row for row in every if not apart or row[2] > 1], group, tile_rows))

    def packed(self, room: int) -> list[int]:
        """For the device: how many blocks, 0; rows, keys and tokens of `room` singles; blocks.

        An even `room` lets each part begin at a multiple of 16 bytes: kernels are compiled for that.
        """
        padded = [*self.singles, *[(0, 0, 0)] * (room - len(self.singles))]
        columns = [row[field] for field in range(3) for row in padded]
        flat = [number for block in self.blocks for number in block]
        return [len(self.blocks), 0, *columns, *flat]
