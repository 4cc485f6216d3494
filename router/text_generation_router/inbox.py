"""Where the steps of one request wait for the task that answers it. Knows not where they come from."""

import asyncio
from collections import deque
from collections.abc import Callable

from text_generation_router.errors import ApiError
from text_generation_router.types import Generation


class Inbox:
    """The steps of a request for its one reader. leave: takes the request out of queue and batch.

    It needs no bound of its own: a request makes at most `max_new_tokens`, however slowly they are read.
    """

    __slots__ = ("_events", "_loop", "_reader", "leave")

    def __init__(self) -> None:
        self.leave: Callable[[], None] = _nothing
        self._loop = asyncio.get_running_loop()
        self._events: deque[Generation | ApiError] = deque()
        self._reader: asyncio.Future[None] | None = None

    def push(self, event: Generation | ApiError) -> None:
        """Hand a step, or the error that ends it all, to the reader. Never waits."""
        self._events.append(event)
        reader = self._reader
        if reader is not None:
            self._reader = None
            if not reader.done():
                reader.set_result(None)

    async def next(self) -> Generation:
        """The next step. Raises the error that ended the request."""
        if not self._events:
            self._reader = self._loop.create_future()
            await self._reader
        event = self._events.popleft()
        if isinstance(event, ApiError):
            raise event
        return event


def _nothing() -> None:
    """There is nothing to leave yet."""
