"""A step that the shards have been asked for. Knows neither queue nor shards."""

import time
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import NamedTuple

from text_generation_router.entry import Entry
from text_generation_router.traces import NO_STEP, StepTrace
from text_generation_router.types import StepAnswer


@dataclass(frozen=True, slots=True)
class Call:
    """A Prefill or Decode under way, and the requests it brings tokens for.

    paused: those of which a stay ends with it, but not the request.
    """

    method: str
    answer: Awaitable[StepAnswer]
    members: dict[int, Entry]
    batch_ids: list[int]
    trace: StepTrace = NO_STEP
    started: float = field(default_factory=time.monotonic)
    paused: set[int] = field(default_factory=set)

    def unanswered(self) -> "UnansweredStep":
        """What is waited for."""
        return UnansweredStep(self.method, len(self.members), time.monotonic() - self.started)


class UnansweredStep(NamedTuple):
    """A step that the shards have not answered: of how many requests, and for how many seconds."""

    method: str
    size: int
    waited_s: float
