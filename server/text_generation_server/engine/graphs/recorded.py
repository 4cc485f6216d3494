"""All recorded steps of a model and its cache, and what they cost: seconds, which are logged, and memory."""

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Self

from loguru import logger

from text_generation_server.cache.rows import RowTable
from text_generation_server.cache.states import State
from text_generation_server.device.memory import make_memory
from text_generation_server.device.recorder import Recorder
from text_generation_server.engine.graphs.decodes import DecodeGraphs
from text_generation_server.engine.graphs.tokens import TOKENS, TokenGraphs
from text_generation_server.engine.plan import StepPlan
from text_generation_server.log import Progress
from text_generation_server.models.step import ServedModel

ROWS_APART, TOKENS_APART = 2, 4
"""A step may run as one of up to so many times its rows, or its tokens, while not all sizes are recorded.

Attention of decode steps is compiled for every doubling of the rows, which is to be done before somebody waits.
"""


class RecordedSteps:
    """plain: steps of rows without adapters. adapted: steps with some, recorded only where there are places for them.

    Neither has any at first. Steps without adapters so cost what they cost where there are none.
    A server need not wait for all sizes: until one is recorded the next larger serves.
    """

    def __init__(self, model: ServedModel, states: Sequence[State], rows: RowTable, adapters: bool = False) -> None:
        self._memory = make_memory(model.device)
        self._mixing = model.mixing
        self.plain = StepGraphs.of(model, states, rows, adapted=False)
        self.adapted = StepGraphs.of(model, states, rows, adapted=True)
        self._wanted = (self.plain, self.adapted) if adapters else (self.plain,)
        self._later: deque[Callable[[], None]] = deque()
        self._seconds, self._before = 0.0, 0

    def of(self, plan: StepPlan) -> "StepGraphs":
        """Those for a step."""
        return self.adapted if plan.adapted else self.plain

    def record(self, decode_rows: Sequence[int], recorder: Recorder) -> None:
        """Record decode steps of some of these numbers of rows, and steps of few tokens; `record_more` does the rest.

        The largest are among the first: what they take of the memory that all share is taken now.
        """
        self._seconds, self._before = 0.0, self._memory.used_bytes()
        first: list[Callable[[], None]] = []
        for graphs in self._wanted:
            for kind, sizes, apart in (
                (graphs.tokens, TOKENS, TOKENS_APART),
                (graphs.decodes, decode_rows, ROWS_APART),
            ):
                now, later = by_need(sizes, apart)
                first += [partial(kind.record, [size], recorder) for size in now]
                self._later += [partial(kind.record, [size], recorder) for size in later]
        progress = Progress("record", "Recording: {:.0f} of {:.0f} steps")
        for done, one in enumerate(first, 1):
            self._timed(one)
            progress(done, len(first))
        if not self.plain.decodes:
            logger.warning("No step is recorded: {} cannot be replayed", self._mixing)
            self._later.clear()
            return
        self._tell(f"{len(self._later)} more follow while nobody asks")

    def record_more(self) -> bool:
        """Record one more size; whether any is left after that."""
        if self._later:
            self._timed(self._later.popleft())
            if not self._later:
                self._tell("these are all")
        return bool(self._later)

    def _timed(self, work: Callable[[], None]) -> None:
        began = time.monotonic()
        work()
        self._seconds += time.monotonic() - began

    def _tell(self, what_follows: str) -> None:
        decodes, tokens = (sum(map(len, kinds)) for kinds in zip(*(g.kinds() for g in self._wanted), strict=True))
        taken = self._memory.used_bytes() - self._before
        logger.bind(phase="graphs", seconds=self._seconds, bytes=taken).info(
            "Recorded {} steps of a token a row and {} of few tokens in {:.1f} s and {:.2f} GiB; {}",
            *(decodes, tokens, self._seconds, taken / 2**30, what_follows),
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

    def kinds(self) -> tuple[DecodeGraphs, TokenGraphs]:
        """Both."""
        return self.decodes, self.tokens


def by_need(sizes: Sequence[int], apart: int) -> tuple[list[int], list[int]]:
    """Sizes that must be there at once, the largest first, and then those that only save a part of a step.

    Of the first each is at least so many times the next one, but for the least of all.

    >>> by_need([1, 2, 4, 8, 16, 24], 4)
    ([24, 4, 1], [16, 8, 2])
    """
    now: list[int] = []
    later: list[int] = []
    for size in sorted(sizes, reverse=True):
        (later if now and size * apart > now[-1] and size > min(sizes) else now).append(size)
    return now, later
