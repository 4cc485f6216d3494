"""Attention by our own kernels over paged slots, on CUDA devices: every variant, with nothing to install.

Kernels read slots from the rows' table and lengths from the device, so that a step of single tokens needs no
preparation at all. In a step with prompts, rows of one token go through the decode kernel and the others, by blocks of
queries that the host lists, through the prefill kernel. Knows no model and no ranks.

Dimensions: T tokens of the step, R rows, H query heads of the rank.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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


HEADER = 2
"""Numbers before those of rows and blocks."""

PROGRAMS_EACH = 2
"""Programs on each multiprocessor that share the blocks of a replayed step, however many blocks there are."""


@dataclass(frozen=True, slots=True)
class SingleTokens:
    """Rows of one token. rows, kv_lens: [R] int64. tokens: [R] int64, None for T = R in order."""

    rules: Sequence[Rule]
    table: Tensor
    rows: Tensor
    kv_lens: Tensor
    tokens: Tensor | None
    split: Split

    def run(self, q: Tensor, layer: LayerAttention, cache: PagedCache) -> Tensor:
        """See `AttentionPlan`."""
        return self.write(q, layer, cache, None)

    def write(self, q: Tensor, layer: LayerAttention, cache: PagedCache, out: Tensor | None) -> Tensor:
        """The same, to these tokens of out [T, H · d]; None for a new tensor."""
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
        prefill(q, kv, self.blocks, self.count, self.table, rule, layer.scale, self.tile, self.programs, out)
        return out if self.singles is None else self.singles.write(q, layer, cache, out)


class ReplayedMixed:
    """A plan for any step of so many tokens: what it lists is where the kernels that were recorded look for it."""

    def __init__(self, mixed: Mixed, numbers: Tensor, group: int, answers: Callable[[Tensor], Tensor]) -> None:
        """numbers: that `mixed` reads, as `List.numbers` lays them out. answers: where those for queries may go."""
        self._mixed, self._numbers, self._group, self._answers = mixed, numbers, group, answers
        self._singles = 0 if mixed.singles is None else len(mixed.singles.rows)
        self._out: Tensor | None = None

    def suits(self, query_lens: Sequence[int]) -> bool:
        """See `TokenPlan`: the decode kernel, which takes a while for nothing, is left out where nobody needs it."""
        return self._singles > 0 or min(query_lens) > 1

    def prepare(self, rows: Sequence[int], query_lens: Sequence[int], kv_lens: Sequence[int]) -> None:
        """See `TokenPlan`."""
        listed = List.of(rows, query_lens, kv_lens, self._group, self._mixed.tile.rows, self._singles > 0)
        host = listed.numbers(self._singles, pinned=self._numbers.is_cuda)
        self._numbers[: len(host)].copy_(host, non_blocking=True)

    def run(self, q: Tensor, layer: LayerAttention, cache: PagedCache) -> Tensor:
        """See `TokenPlan`. All layers answer in one tensor: each answer is read before the next is written."""
        if self._out is None:
            self._out = self._answers(q)
        return self._mixed.write(q, layer, cache, self._out)


@dataclass(frozen=True, slots=True)
class List:
    """What kernels are to do in a step. singles: rows of one token, as (row, keys, token). blocks: see `blocks_of`."""

    singles: Sequence[tuple[int, int, int]]
    blocks: Sequence[tuple[int, ...]]

    @classmethod
    def of(
        cls,
        rows: Sequence[int],
        query_lens: Sequence[int],
        kv_lens: Sequence[int],
        group: int,
        tile_rows: int,
        apart: bool,
    ) -> List:
        """apart: whether rows of one token are listed by themselves, or are blocks too."""
        from text_generation_server.kernels.attention.prefill import blocks_of

        every = [*zip(rows, accumulate(query_lens, initial=0), query_lens, kv_lens, strict=False)]
        singles = [(row, keys, token) for row, token, queries, keys in every if apart and queries == 1]
        return cls(singles, blocks_of([row for row in every if not apart or row[2] > 1], group, tile_rows))

    def numbers(self, room: int, pinned: bool) -> Tensor:
        """For the device, int64: how many blocks, 0; rows, keys and tokens of `room` singles; blocks.

        An even `room` lets each part begin at a multiple of 16 bytes: kernels are compiled for that.
        """
        padded = [*self.singles, *[(0, 0, 0)] * (room - len(self.singles))]
        columns = [row[field] for field in range(3) for row in padded]
        flat = [number for block in self.blocks for number in block]
        return torch.tensor([len(self.blocks), 0, *columns, *flat], pin_memory=pinned)


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
        self._group = shape.heads // state.kv_heads
        self._replayed: Tensor | None = None
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
        every = layout.rows, layout.query_lens, layout.kv_lens
        listed = List.of(*every, self._group, self._tile.rows, apart=True)
        room = len(listed.singles) + len(listed.singles) % 2
        numbers = listed.numbers(room, pinned=self._device.type == "cuda").to(self._device, non_blocking=True)
        return self._mixed(numbers, room, layout.slot_table, len(listed.blocks) * self._kv_heads)

    def decode_plans(self, rows: Tensor, kv_lens: Tensor, slot_table: Tensor) -> Sequence[SingleTokens]:
        """See `AttentionBackend`."""
        return (self._singles(slot_table, rows, kv_lens, None),)

    def token_plans(self, tokens: int, slot_table: Tensor) -> Sequence[ReplayedMixed]:
        """See `AttentionBackend`: a plan for prompts, and one for steps that have rows of one token as well."""
        from text_generation_server.kernels.attention.prefill import FIELDS
        from text_generation_server.kernels.attention.sizes import multiprocessors

        # Each row may end in a block that is not full.
        most_blocks = tokens + tokens * self._group // self._tile.rows
        programs = min(most_blocks * self._kv_heads, PROGRAMS_EACH * multiprocessors(self._device))
        plans = []
        for singles in (0, tokens + tokens % 2):
            size = HEADER + 3 * singles + FIELDS * most_blocks
            numbers = torch.zeros(size, dtype=torch.int64, device=self._device)
            mixed = self._mixed(numbers, singles, slot_table, programs)
            plans.append(ReplayedMixed(mixed, numbers, self._group, self._answers))
        return plans

    def _answers(self, q: Tensor) -> Tensor:
        """[T, H · d], the same memory for all plans: no two of them run at the same time."""
        if self._replayed is None or len(self._replayed) < len(q):
            self._replayed = q.new_zeros(len(q), q.shape[1] * q.shape[2])
        return self._replayed[: len(q)]

    def _mixed(self, numbers: Tensor, singles: int, table: Tensor, programs: int) -> Mixed:
        """numbers: as `List.numbers` lays them out."""
        from text_generation_server.kernels.attention.prefill import FIELDS

        end = HEADER + 3 * singles
        return Mixed(
            rules=self._rules,
            table=table,
            blocks=numbers[end:].view(-1, FIELDS),
            count=numbers[:1],
            tile=self._tile,
            programs=programs,
            singles=self._singles(table, *numbers[HEADER:end].view(3, singles)) if singles else None,
        )

    def _singles(self, table: Tensor, rows: Tensor, kv_lens: Tensor, tokens: Tensor | None) -> SingleTokens:
        from text_generation_server.kernels.attention.sizes import Split

        split = Split.of(len(rows), self._heads, self._kv_heads, self._device)
        return SingleTokens(self._rules, table, rows, kv_lens, tokens, split)
