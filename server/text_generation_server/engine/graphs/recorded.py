"""All recorded steps of a model and its cache, and what they cost: seconds, which are logged, and memory."""

import time
from collections.abc import Sequence

from loguru import logger

from text_generation_server.cache.rows import RowTable
from text_generation_server.cache.states import State
from text_generation_server.device.memory import make_memory
from text_generation_server.device.recorder import Recorder
from text_generation_server.engine.graphs.decodes import DecodeGraphs
from text_generation_server.engine.graphs.tokens import TOKENS, TokenGraphs
from text_generation_server.models.step import ServedModel


class RecordedSteps:
    """decodes: steps of one token a row. tokens: steps of few tokens, prompts among them. None of either at first.

    The last row and the last slot belong to no sequence.
    """

    def __init__(self, model: ServedModel, states: Sequence[State], rows: RowTable) -> None:
        self._memory = make_memory(model.device)
        self._mixing = model.mixing
        self.decodes = DecodeGraphs(model, states, rows, padding_row=len(rows.block_table) - 1)
        self.tokens = TokenGraphs(model, states, rows, padding_row=len(rows.block_table) - 1)

    def record(self, decode_rows: Sequence[int], recorder: Recorder) -> None:
        """Record decode steps of these numbers of rows, and steps of few tokens; log what that took."""
        began, before = time.monotonic(), self._memory.used_bytes()
        self.tokens.record(TOKENS, recorder)
        self.decodes.record(decode_rows, recorder)
        if not self.decodes:
            logger.warning("No step is recorded: {} cannot be replayed", self._mixing)
            return
        seconds, taken = time.monotonic() - began, self._memory.used_bytes() - before
        logger.bind(phase="graphs", seconds=seconds, bytes=taken).info(
            "Recorded decode steps of {} sizes, up to {} rows, and steps of up to {} tokens in {:.1f} s and {:.2f} GiB",
            *(len(decode_rows), max(decode_rows), max(TOKENS) if self.tokens else 1, seconds, taken / 2**30),
        )

    def trial_bytes(self, decode_rows: Sequence[int], recorder: Recorder) -> int:
        """At most how much memory `record` takes.

        The largest of each kind are recorded. All share their memory, but for what each keeps for itself, of which the
        second largest shows how much that is at most.
        """
        used = [self._memory.used_bytes()]
        self.tokens.record(TOKENS[-1:], recorder)
        token_graphs = len(self.tokens) * len(TOKENS)
        for size in sorted(decode_rows, reverse=True)[:2]:
            self.decodes.record([size], recorder)
            used.append(self._memory.used_bytes())
        each = used[-1] - used[-2]
        return used[-1] - used[0] + each * (len(decode_rows) + token_graphs)
