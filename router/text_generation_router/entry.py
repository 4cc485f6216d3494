"""One request on its way through queue and batch, and the stream of its tokens. Knows neither queue nor batch."""

import asyncio
from collections import deque
from dataclasses import dataclass, replace

from text_generation_router.blocks import Allocation
from text_generation_router.errors import ApiError
from text_generation_router.traces import GenerationTrace
from text_generation_router.types import Generation, ValidRequest, WireRequest


@dataclass(slots=True)
class Timeline:
    """When things happened to a client's request, in seconds of the monotonic clock; 0 stands for not yet."""

    started: float
    queued: float = 0.0
    batched: float = 0.0
    last_token: float = 0.0


class Entry:
    """A request from being queued to its last token, in one stay with the shards or more.

    generated_ids: of its tokens so far. stay: how many tokens it has cache space for this time.
    resumable: it may come back for more.
    Its stream needs no bound of its own: a request makes at most `max_new_tokens`, however slowly they are read.
    """

    __slots__ = (
        "_events",
        "_reader",
        "allocation",
        "cancelled",
        "chunk_len",
        "generated_ids",
        "id",
        "request",
        "resumable",
        "stay",
        "timeline",
        "trace",
    )

    def __init__(self, request: ValidRequest, timeline: Timeline, trace: GenerationTrace) -> None:
        self.request = request
        self.timeline = timeline
        self.trace = trace
        self.cancelled = False
        self.id = 0
        self.generated_ids: list[int] = []
        self.stay = 0
        self.resumable = False
        self.allocation: Allocation | None = None
        self.chunk_len: int | None = None
        self._events: deque[Generation | ApiError] = deque()
        self._reader: asyncio.Future[None] | None = None

    @property
    def prompt(self) -> tuple[int, ...]:
        """What the shards compute before its next token."""
        return self.request.input_ids + tuple(self.generated_ids)

    @property
    def missing(self) -> int:
        """How many tokens it may still generate."""
        return self.request.max_new_tokens - len(self.generated_ids)

    @property
    def scores_prompt(self) -> bool:
        """Whether the prompt's log-probabilities are still to be made."""
        return self.request.prefill_logprobs and not self.generated_ids

    def push(self, event: Generation | ApiError) -> None:
        """Hand a step, or the error that ends it all, to the reader. Never waits."""
        self._events.append(event)
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    async def next(self) -> Generation:
        """The next step, for the one reader. Raises the error that ended the request."""
        if not self._events:
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        event = self._events.popleft()
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
        request = replace(self.request, max_new_tokens=self.stay, prefill_logprobs=self.scores_prompt)
        place = space.blocks, space.slots, space.cache_len
        return WireRequest(self.id, request, *place, self.chunk_len, self.generated_ids, self.resumable)
