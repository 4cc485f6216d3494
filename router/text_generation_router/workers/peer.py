"""A worker as the process has it that makes batches: what it asks for, and what it holds. Knows no HTTP."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, suppress
from functools import partial
from typing import Any

from text_generation_router.entry import Timeline
from text_generation_router.errors import ApiError
from text_generation_router.parts import BatchSide
from text_generation_router.runs import Leave
from text_generation_router.types import Generation, ValidRequest
from text_generation_router.workers.link import Link, LinkLost

_PATIENCE_S = 1.0
"""For a worker that is asked for its figures."""


class Peer:
    """One worker's end. link: to it. figures: of this router; tell_names: tells all workers which adapters there are.

    Its methods `on_…` are what the worker says.
    """

    link: Link

    def __init__(self, figures: Callable[[], Awaitable[str]], tell_names: Callable[[], Awaitable[None]]) -> None:
        self.state: list[Any] | None = None
        self._figures = figures
        self._tell_names = tell_names
        self._side: BatchSide
        self._held = 0
        self._running: dict[int, tuple[AbstractContextManager[Leave], Leave]] = {}

    async def begin(self, side: BatchSide, *facts: Any) -> None:
        """Let it answer from now on. Raises StartError."""
        self._side = side
        await self.link.call("begin", *facts)

    async def ask_state(self) -> list[Any] | None:
        """Its metrics' values, or what they were when it last told them."""
        with suppress(TimeoutError, LinkLost):
            async with asyncio.timeout(_PATIENCE_S):
                self.state = await self.link.call("state")
        return self.state

    def drop(self) -> None:
        """It is gone: give back what it held."""
        for key in list(self._running):
            self.on_end(key)
        if self._held:
            self.on_give(self._held)

    # -- what it says

    def on_run(self, key: int, request: ValidRequest, timeline: Timeline, parent: Mapping[str, str] | None) -> None:
        """Run a request."""
        run = self._side.runs.running(request, timeline, partial(self._push, key, timeline), parent)
        try:
            self._running[key] = run, run.__enter__()
        except ApiError as error:
            self._push(key, timeline, error)

    def on_leave(self, key: int) -> None:
        """Take it out of queue and batch."""
        if key in self._running:
            self._running[key][1]()

    def on_end(self, key: int) -> None:
        """Nobody waits for it any more."""
        if key in self._running:
            self._running.pop(key)[0].__exit__(None, None, None)

    def on_take(self, count: int) -> None:
        """Hold permits. Raises Overloaded."""
        self._side.permits.take(count)
        self._held += count

    def on_give(self, count: int) -> None:
        """Hold them no more."""
        self._side.permits.give(count)
        self._held -= count

    async def on_health(self) -> None:
        """Raises Unhealthy."""
        await self._side.backend.health.check()

    async def on_figures(self) -> str:
        """Those of all processes."""
        return await self._figures()

    async def on_adapters(self, method: str, *arguments: Any) -> Any:
        """What `Adapters` has. Raises ApiError."""
        adapters = self._side.backend.adapters
        before = adapters.names
        try:
            return await getattr(adapters, method)(*arguments)
        finally:
            if adapters.names != before:
                await self._tell_names()

    def _push(self, key: int, timeline: Timeline, event: Generation | ApiError) -> None:
        self.link.note("step", key, timeline.batched, event)
