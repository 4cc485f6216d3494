"""One request on its way through queue and batch, and the stream of its tokens. Knows neither queue nor batch."""

import asyncio
from dataclasses import dataclass

from text_generation_router.blocks import Allocation
from text_generation_router.errors import ApiError
from text_generation_router.types import Generation, ValidRequest, WireRequest


@dataclass(slots=True)
class Timeline:
    """When things happened to a client's request, in seconds of the monotonic clock; 0 stands for not yet."""

    started: float
    queued: float = 0.0
    batched: float = 0.0
    last_token: float = 0.0


class Entry:
    """A request from being queued to its last token.

    Its stream needs no bound of its own: a request makes at most `max_new_tokens`, however slowly they are read.
    """

    __slots__ = ("_events", "allocation", "cancelled", "chunk_len", "id", "request", "timeline")

    def __init__(self, request: ValidRequest, timeline: Timeline) -> None:
        self.request = request
        self.timeline = timeline
        self.cancelled = False
        self.id = 0
        self.allocation: Allocation | None = None
        self.chunk_len: int | None = None
        self._events: asyncio.Queue[Generation | ApiError] = asyncio.Queue()

    def push(self, event: Generation | ApiError) -> None:
        """Hand a step, or the error that ends it all, to the reader. Never waits."""
        self._events.put_nowait(event)

    async def next(self) -> Generation:
        """The next step. Raises the error that ended the request."""
        event = await self._events.get()
        if isinstance(event, ApiError):
            raise event
        return event

    def cancel(self) -> None:
        """Nobody reads on: the request is dropped at the next opportunity."""
        self.cancelled = True

    def on_wire(self) -> WireRequest:
        """What the shards get. The request must have its cache space."""
        space = self.allocation
        if space is None:
            raise RuntimeError(f"request {self.id} goes to the shards without cache space")
        return WireRequest(self.id, self.request, space.blocks, space.slots, space.cached_tokens, self.chunk_len)
