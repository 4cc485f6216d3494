"""All recorded steps of a model and its cache, and what they cost: seconds, which are logged, and memory."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from loguru import logger

from text_generation_server.cache.rows import RowTable
from text_generation_server.cache.states import State
from text_generation_server.device.memory import make_memory
from text_generation_server.device.recorder import Recorder
from text_generation_server.engine.graphs.decodes import DecodeGraphs
from text_generation_server.engine.graphs.tokens import TOKENS, TokenGraphs
from text_generation_server.engine.plan import StepPlan
from text_generation_server.models.step import ServedModel


class RecordedSteps:
    """plain: steps of rows without adapters. adapted: steps with some, recorded only where there are places for them.

    Neither has any at first. Steps without adapters so cost what they cost where there are none.
    """

    def __init__(self, model: ServedModel, states: Sequence[State], rows: RowTable, adapters: bool = False) -> None:
        self._memory = make_memory(model.device)
        self._mixing = model.mixing
        self.plain = StepGraphs.of(model, states, rows, adapted=False)
        self.adapted = StepGraphs.of(model, states, rows, adapted=True)
        self._wanted = (self.plain, self.adapted) if adapters else (self.plain,)

    def of(self, plan: StepPlan) -> "StepGraphs":
        """Those for a step."""
        return self.adapted if plan.adapted else self.plain

    def record(self, decode_rows: Sequence[int], recorder: Recorder) -> None:
        """Record decode steps of these numbers of rows, and steps of few tokens; log what that took."""
        began, before = time.monotonic(), self._memory.used_bytes()
        for graphs in self._wanted:
            graphs.tokens.record(TOKENS, recorder)
            graphs.decodes.record(decode_rows, recorder)
        if not self.plain.decodes:
            logger.warning("No step is recorded: {} cannot be replayed", self._mixing)
            return
        seconds, taken = time.monotonic() - began, self._memory.used_bytes() - before
        logger.bind(phase="graphs", seconds=seconds, bytes=taken).info(
            "Recorded decode steps of {} sizes, up to {} rows, and steps of up to {} tokens in {:.1f} s and {:.2f} GiB",
            *(len(decode_rows), max(decode_rows), max(TOKENS) if self.plain.tokens else 1, seconds, taken / 2**30),
        )

    def trial_bytes(self, decode_rows: Sequence[int], recorder: Recorder) -> int:
        """At most how much memory `record` takes.

        The largest of each kind are recorded. All share their memory, but for what each keeps for itself, of which the
        second largest shows how much that is at most.
        """
        first, each, graphs = self._memory.used_bytes(), 0, 0
        for kind in self._wanted:
            kind.tokens.record(TOKENS[-1:], recorder)
            graphs += len(kind.tokens) * len(TOKENS) + len(decode_rows)
            used = [self._memory.used_bytes()]
            for size in sorted(decode_rows, reverse=True)[:2]:
                kind.decodes.record([size], recorder)
                used.append(self._memory.used_bytes())
            each = max(each, used[-1] - used[-2])
        return self._memory.used_bytes() - first + each * graphs


@dataclass(frozen=True, slots=True)
class StepGraphs:
    """decodes: steps of one token a row. tokens: steps of few tokens, prompts among them.

    The last row and the last slot belong to no sequence.
    """

    decodes: DecodeGraphs
    tokens: TokenGraphs

    @classmethod
    def of(cls, model: ServedModel, states: Sequence[State], rows: RowTable, adapted: bool) -> Self:
        """None recorded yet."""
        padding = len(rows.block_table) - 1
        return cls(
            DecodeGraphs(model, states, rows, padding, adapted), TokenGraphs(model, states, rows, padding, adapted)
        )
