"""One request on its way through queue and batch, and how long that took. Knows neither queue nor batch."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from text_generation_router.blocks import Allocation
from text_generation_router.errors import ApiError
from text_generation_router.traces import GenerationTrace
from text_generation_router.types import Generation, ValidRequest, WireRequest

Push = Callable[[Generation | ApiError], None]
"""Takes a step of a request, or the error that ends it."""


@dataclass(slots=True)
class Timeline:
    """When things happened to a client's request, in seconds of the monotonic clock; 0 stands for not yet."""

    started: float
    queued: float = 0.0
    batched: float = 0.0
    last_token: float = 0.0


@dataclass(frozen=True, slots=True)
class Times:
    """How long the parts of a request took, in seconds."""

    total: float
    validation: float
    queue: float
    inference: float
    per_token: float

    def fields(self) -> dict[str, float]:
        """The same under the names that text-generation-inference logs and traces them by."""
        return {
            "total_time": self.total,
            "validation_time": self.validation,
            "queue_time": self.queue,
            "inference_time": self.inference,
            "time_per_token": self.per_token,
        }

    @classmethod
    def of(cls, timeline: Timeline, generated_tokens: int) -> "Times":
        """The times of a request that has just finished."""
        now = time.monotonic()
        inference = now - timeline.batched
        return cls(
            total=now - timeline.started,
            validation=timeline.queued - timeline.started,
            queue=timeline.batched - timeline.queued,
            inference=inference,
            per_token=inference / generated_tokens,
        )


class Entry:
    """A request from being queued to its last token, in one stay with the shards or more.

    generated_ids: of its tokens so far. stay: how many tokens it has cache space for this time.
    resumable: it may come back for more.
    push: what each of its steps, or the error that ends it all, is handed to. Never waits.
    """

    __slots__ = (
        "allocation",
        "cancelled",
        "chunk_len",
        "generated_ids",
        "id",
        "push",
        "request",
        "resumable",
        "stay",
        "timeline",
        "trace",
    )

    def __init__(self, request: ValidRequest, timeline: Timeline, trace: GenerationTrace, push: Push) -> None:
        self.request = request
        self.timeline = timeline
        self.trace = trace
        self.push = push
        self.cancelled = False
        self.id = 0
        self.generated_ids: list[int] = []
        self.stay = 0
        self.resumable = False
        self.allocation: Allocation | None = None
        self.chunk_len: int | None = None

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
