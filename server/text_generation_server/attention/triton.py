"""Attention by our own kernels over paged slots, on CUDA devices: every variant, with nothing to install.

Kernels read slots from the rows' table and lengths from the device, so that a step of single tokens needs no
preparation at all. In a step with prompts, rows of one token go through the decode kernel and the others, by blocks of
queries that the host lists, through the prefill kernel. Knows no model and no ranks.

Dimensions: T tokens of the step, R rows, H query heads of the rank.
"""

from collections.abc import Sequence
from importlib.util import find_spec
from itertools import accumulate
from math import inf

import torch
from torch import Tensor

from text_generation_server.attention.base import AttentionShape
from text_generation_server.attention.triton_plans import HEADER, Mixed, ReplayedMixed, SingleTokens, Work
from text_generation_server.cache.layout import RowLayout
from text_generation_server.device.copies import upload

WIDEST_HEAD = 256
"""Numbers of a head whose queries, keys and sums a program still holds."""

OLDEST_CAPABILITY = (8, 0)
"""Of devices that copy to shared memory beside computing, and know bfloat16."""

SHARING_PROGRAMS = 2
"""Programs on each multiprocessor that share the blocks of a replayed step, however many blocks there are."""


class TritonAttention:
    """Makes plans for models of one shape."""

    name = "triton"
    slot_major = True

    def __init__(self, shape: AttentionShape) -> None:
        from text_generation_server.kernels.attention.decode import arrivals
        from text_generation_server.kernels.attention.scores import Rule
        from text_generation_server.kernels.attention.sizes import PrefillTile

        state = shape.state
        self.head_dim = state.head_dim
        self._heads, self._kv_heads, self._device = shape.heads, state.kv_heads, state.device
        self._group = shape.heads // state.kv_heads
        self._replayed: Tensor | None = None
        self._arrived = arrivals(state.device)
        self._tile = PrefillTile.of(state.head_dim, state.dtype)
        self._rules = [
            Rule.of(variant.window, variant.alibi, variant.softcap, state.device) for variant in shape.variants
        ]

    @staticmethod
    def cached_head_dim(shape: AttentionShape) -> int:
        """See `BackendClass`."""
        return shape.state.head_dim

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
            return self._singles(layout.block_table, layout.device_rows, layout.device_seq_lens, None)
        every = layout.rows, layout.query_lens, layout.seq_lens
        work = Work.of(*every, self._group, self._tile.rows, apart=True)
        room = len(work.singles) + len(work.singles) % 2
        (packed,) = upload(self._device, work.packed(room))
        return self._mixed(packed, room, layout.block_table, len(work.blocks) * self._kv_heads)

    def single_tokens(self, layout: RowLayout) -> SingleTokens | None:
        """For the rows of one token of a step with prompts, which somebody else sees to; None if there are none."""
        starts = accumulate(layout.query_lens, initial=0)
        every = zip(layout.rows, layout.seq_lens, starts, layout.query_lens, strict=False)
        singles = [row for *row, queries in every if queries == 1]
        if not singles:
            return None
        rows, seq_lens, tokens = upload(self._device, *zip(*singles, strict=True))
        return self._singles(layout.block_table, rows, seq_lens, tokens)

    def decode_plans(self, rows: Tensor, seq_lens: Tensor, block_table: Tensor) -> Sequence[SingleTokens]:
        """See `AttentionBackend`."""
        return (self._singles(block_table, rows, seq_lens, None),)

    def token_plans(self, tokens: int, block_table: Tensor, most_scores: float = inf) -> Sequence[ReplayedMixed]:
        """See `AttentionBackend`: a plan for prompts, and one for steps that have rows of one token as well.

        most_scores: of steps that they suit, see `prompt_scores`.
        """
        from text_generation_server.kernels.attention.prefill import FIELDS
        from text_generation_server.kernels.attention.sizes import multiprocessors

        # Each row may end in a block that is not full.
        most_blocks = tokens + tokens * self._group // self._tile.rows
        programs = min(most_blocks * self._kv_heads, SHARING_PROGRAMS * multiprocessors(self._device))
        plans = []
        for singles in (0, tokens + tokens % 2):
            size = HEADER + 3 * singles + FIELDS * most_blocks
            packed = torch.zeros(size, dtype=torch.int64, device=self._device)
            mixed = self._mixed(packed, singles, block_table, programs)
            plans.append(ReplayedMixed(mixed, packed, self._group, self._answers, most_scores))
        return plans

    def _answers(self, q: Tensor) -> Tensor:
        """[T, H · d], the same memory for all plans: no two of them run at the same time."""
        if self._replayed is None or len(self._replayed) < len(q):
            self._replayed = q.new_zeros(len(q), q.shape[1] * q.shape[2])
        return self._replayed[: len(q)]

    def _mixed(self, packed: Tensor, singles: int, table: Tensor, programs: int) -> Mixed:
        """packed: as `Work.packed` lays them out."""
        from text_generation_server.kernels.attention.prefill import FIELDS

        end = HEADER + 3 * singles
        return Mixed(
            rules=self._rules,
            table=table,
            blocks=packed[end:].view(-1, FIELDS),
            count=packed[:1],
            tile=self._tile,
            programs=programs,
            singles=self._singles(table, *packed[HEADER:end].view(3, singles)) if singles else None,
        )

    def _singles(self, table: Tensor, rows: Tensor, seq_lens: Tensor, tokens: Tensor | None) -> SingleTokens:
        from text_generation_server.kernels.attention.sizes import KVSplit

        split = KVSplit.of(len(rows), self._heads, self._kv_heads, self._device)
        return SingleTokens(self._rules, table, rows, seq_lens, tokens, split, self._arrived)
