"""When requests are sent: one after the other on some streams, or whenever they arrive. Knows no servers."""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Protocol

from text_generation_benchmark.http.timeline import Timeline

Send = Callable[[int, float | None], Awaitable[Sequence[Timeline]]]
"""Sends the request of a number, and those that go on from its answer, each when the one before it has its own.

The first was due at a time of `time.perf_counter`, None for now; after a failure there are no more.
"""

_BREATH_S = 0.2
"""How long a stream rests after a failure: who is refused at once would do nothing but be refused."""


@dataclass(frozen=True, slots=True)
class Limit:
    """When no more requests are sent: after so many, or after so many seconds."""

    requests: int | None = None
    duration_s: float | None = None


class Load(Protocol):
    """A way to send requests. label: for people. level: for a plot's axis. side_by_side: for a warm-up."""

    @property
    def label(self) -> str: ...

    @property
    def level(self) -> float: ...

    @property
    def side_by_side(self) -> int: ...

    async def run(self, send: Send, limit: Limit, seed: str) -> list[Timeline]:
        """All requests until the limit, and their answers."""


@dataclass(frozen=True, slots=True)
class Streams:
    """A closed loop: each stream sends its next request when it has the answer to the last one."""

    count: int

    @property
    def label(self) -> str:
        """For people."""
        return f"{self.count} stream{'s' * (self.count > 1)}"

    @property
    def level(self) -> float:
        """Streams."""
        return self.count

    @property
    def side_by_side(self) -> int:
        """Streams."""
        return self.count

    async def run(self, send: Send, limit: Limit, seed: str) -> list[Timeline]:
        """Nothing is left to chance."""
        found: list[Timeline] = []
        numbers = _numbers(limit)

        async def stream() -> None:
            for number in numbers:
                timelines = await send(number, None)
                found.extend(timelines)
                if timelines[-1].error is not None:
                    await asyncio.sleep(_BREATH_S)

        async with asyncio.TaskGroup() as group:
            for _ in range(self.count):
                group.create_task(stream())
        return found


@dataclass(frozen=True, slots=True)
class Rate:
    """An open loop: requests arrive at random, by a Poisson process, whatever became of those before.

    max_in_flight: how many may wait for their answers; others are sent late, and their
    time counts from when they were due.
    """

    per_second: float
    max_in_flight: int

    @property
    def label(self) -> str:
        """For people."""
        return f"{self.per_second:g} a second"

    @property
    def level(self) -> float:
        """Requests a second."""
        return self.per_second

    @property
    def side_by_side(self) -> int:
        """A second's requests."""
        return min(max(1, round(self.per_second)), self.max_in_flight)

    async def run(self, send: Send, limit: Limit, seed: str) -> list[Timeline]:
        """The arrivals are those of the seed."""
        found: list[Timeline] = []
        room = asyncio.Semaphore(self.max_in_flight)
        started = time.perf_counter()

        async def answer(number: int, due: float) -> None:
            try:
                found.extend(await send(number, due))
            finally:
                room.release()

        async with asyncio.TaskGroup() as group:
            for number, arrival in enumerate(arrivals(self.per_second, limit, seed)):
                await asyncio.sleep(max(0.0, started + arrival - time.perf_counter()))
                await room.acquire()
                group.create_task(answer(number, started + arrival))
        return found


def arrivals(per_second: float, limit: Limit, seed: str) -> Iterator[float]:
    """Seconds after the start, by a Poisson process."""
    random, moment = Random(seed), 0.0
    for _ in itertools.count() if limit.requests is None else range(limit.requests):
        moment += random.expovariate(per_second)
        if limit.duration_s is not None and moment >= limit.duration_s:
            return
        yield moment


def _numbers(limit: Limit) -> Iterator[int]:
    ends = None if limit.duration_s is None else time.perf_counter() + limit.duration_s
    for number in itertools.count() if limit.requests is None else range(limit.requests):
        if ends is not None and time.perf_counter() >= ends:
            return
        yield number
