"""The batch side as a worker has it: everything is asked of the process that has it. See `Backend`.

Knows neither HTTP nor batches.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from itertools import count
from typing import Any

from text_generation_router.backend import Backend
from text_generation_router.entry import Timeline
from text_generation_router.errors import ApiError
from text_generation_router.inbox import Inbox
from text_generation_router.types import Generation, ValidRequest
from text_generation_router.workers.link import Link
from text_generation_server.tracing import Tracing


class RemoteRuns:
    """See `Runs`."""

    def __init__(self, link: Link, tracing: Tracing | None) -> None:
        self._link = link
        self._tracing = tracing
        self._keys = count()
        self._running: dict[int, tuple[Inbox, Timeline]] = {}

    @contextmanager
    def run(self, request: ValidRequest, timeline: Timeline) -> Iterator[Inbox]:
        """See `Runs`. What cannot be queued is said in the inbox."""
        key, inbox = next(self._keys), Inbox()
        inbox.leave = partial(self._link.note, "leave", key)
        self._running[key] = inbox, timeline
        self._link.note("run", key, request, timeline, self._parent())
        try:
            yield inbox
        finally:
            del self._running[key]
            self._link.note("end", key)

    def step(self, key: int, batched: float, event: Generation | ApiError) -> None:
        """What one of them has got. batched: when it entered its first batch, 0 if it has not."""
        if key in self._running:
            inbox, timeline = self._running[key]
            timeline.batched = batched
            inbox.push(event)

    def _parent(self) -> dict[str, str] | None:
        """What carries this task's span."""
        span = self._tracing.current() if self._tracing is not None else None
        return dict(self._tracing.carried(span)) if self._tracing is not None and span is not None else None


class RemotePermits:
    """See `Admission`."""

    def __init__(self, link: Link) -> None:
        self._link = link

    @asynccontextmanager
    async def held(self, count: int) -> AsyncIterator[None]:
        """See `Admission`."""
        taking = self._link.call("take", count)
        try:
            await asyncio.shield(taking)
        except asyncio.CancelledError:
            taking.add_done_callback(partial(self._give_unused, count))
            raise
        try:
            yield
        finally:
            self._link.note("give", count)

    def _give_unused(self, count: int, taking: asyncio.Future[None]) -> None:
        """Who asked had gone when the answer came."""
        if taking.exception() is None:
            self._link.note("give", count)


class RemoteAdapters:
    """See `AdapterNames`. names: which all processes have before anybody is told that they have changed."""

    def __init__(self, link: Link, names: Sequence[str]) -> None:
        self.names = names
        self._link = link

    def __contains__(self, name: object) -> bool:
        return name in self.names

    async def find(self, name: str) -> bool:
        """See `Adapters`."""
        return name in self.names or await self._ask("find", name)

    async def load(self, name: str, place: str, token: str | None = None) -> None:
        """See `Adapters`."""
        await self._ask("load", name, place, token)

    async def unload(self, name: str) -> None:
        """See `Adapters`."""
        await self._ask("unload", name)

    async def pin(self, name: str, pinned: bool) -> None:
        """See `Adapters`."""
        await self._ask("pin", name, pinned)

    async def listed(self) -> list[dict[str, Any]]:
        """See `Adapters`."""
        listed: list[dict[str, Any]] = await self._ask("listed")
        return listed

    def _ask(self, method: str, *arguments: Any) -> asyncio.Future[Any]:
        return self._link.call("adapters", method, *arguments)


class RemoteHealth:
    """See `Health`."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def check(self) -> None:
        """See `Health`."""
        await self._link.call("health")


class RemoteFigures:
    """See `Exposition`: those of all processes together."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def text(self) -> str:
        """See `Exposition`."""
        text: str = await self._link.call("figures")
        return text


def remote_backend(link: Link, runs: RemoteRuns, adapters: RemoteAdapters) -> Backend:
    """All of it."""
    return Backend(runs, adapters, RemoteHealth(link), RemotePermits(link), RemoteFigures(link))
