"""Requests that wait for a batch, and the rules by which they enter one. Knows nothing of what is running.

The rules are those of text-generation-inference's v3 queue, with the cache's free blocks as the one limit on memory.
"""

from collections import deque
from contextlib import suppress
from dataclasses import dataclass

from text_generation_router.blocks import BlockAllocator
from text_generation_router.entry import Entry
from text_generation_router.errors import ApiError
from text_generation_router.metrics import RequestMetrics


@dataclass(frozen=True, slots=True)
class Budget:
    """What the next batch may hold: tokens in its forward pass, and a range of requests."""

    prefill_tokens: int
    min_size: int
    max_size: int


STAY = 1024
"""Most tokens that a request gets cache space for at once, where it can be resumed: few answers are as long as they may
be, and what is reserved for one keeps another waiting."""


class WaitingQueue:
    """By priority, and then who came first; but who comes back for another stay comes before all.

    speculate: tokens a step may accept beyond the first. chunking: the shards take a prompt in pieces.
    longest_resumed: prompt and generated tokens with which a request may come back.
    """

    def __init__(
        self,
        allocator: BlockAllocator,
        speculate: int,
        chunking: bool,
        longest_resumed: int,
        metrics: RequestMetrics,
    ) -> None:
        self._allocator = allocator
        self._speculate = speculate
        self._chunking = chunking
        self._longest_resumed = longest_resumed
        self._metrics = metrics
        self._waiting: deque[Entry] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def append(self, entry: Entry) -> None:
        """Let a request wait, behind those that are to be started before."""
        place = len(self._waiting)
        while place and _comes_before(entry, self._waiting[place - 1]):
            place -= 1
        self._waiting.insert(place, entry)
        self._note_size()

    def put_first(self, entry: Entry) -> None:
        """Let a request wait for another stay, before all that have had none."""
        self._waiting.appendleft(entry)
        self._note_size()

    def discard(self, entry: Entry) -> None:
        """Let a request wait no longer, if it does: behind one that waits for space it would stay for long."""
        with suppress(ValueError):
            self._waiting.remove(entry)
            self._note_size()

    def take(self, budget: Budget) -> list[Entry]:
        """The requests of the next batch, with their cache space; only the last may have to be chunked."""
        taken: list[Entry] = []
        room = budget.prefill_tokens
        if len(self._waiting) < budget.min_size:
            return taken
        while room > 0 and len(taken) < budget.max_size and self._waiting:
            entry = self._waiting.popleft()
            if entry.cancelled:
                continue
            if (tokens := self._fit(entry, room)) is None:
                self._waiting.appendleft(entry)
                break
            room -= tokens
            taken.append(entry)
        if len(taken) < budget.min_size:
            self._put_back(taken)
            taken = []
        self._note_size()
        return taken

    def fail_all(self, error: ApiError) -> None:
        """End every waiting request."""
        for entry in self._waiting:
            entry.push(error)
        self._waiting.clear()
        self._note_size()

    def _fit(self, entry: Entry, room: int) -> int | None:
        """Give the request its space, and say how many of its tokens the next pass computes; None if it must wait."""
        prompt = entry.prompt
        # One that could not come back gets space for all that it may generate.
        entry.resumable = entry.missing > STAY and len(prompt) + STAY <= self._longest_resumed
        entry.stay = STAY if entry.resumable else entry.missing
        # The last token is never written to the cache, as nothing comes after it.
        needed = len(prompt) + entry.stay + self._speculate - 1
        space = self._allocator.allocate(needed, prompt, entry.request.adapter_id, reuse=not entry.scores_prompt)
        if space is None:
            return None
        rest = len(prompt) - space.cache_len
        if rest > room and not self._chunking:
            self._allocator.release(space)
            return None
        entry.allocation = space
        entry.chunk_len = room if rest > room else None
        return min(rest, room)

    def _put_back(self, entries: list[Entry]) -> None:
        for entry in reversed(entries):
            if entry.allocation is not None:
                self._allocator.release(entry.allocation)
                entry.allocation = None
            self._waiting.appendleft(entry)

    def _note_size(self) -> None:
        self._metrics.queue_size.set(len(self._waiting))


def _comes_before(entry: Entry, other: Entry) -> bool:
    """Whether a request without a stay is to be started before another."""
    if other.generated_ids:
        return False
    urgent, than = entry.request.priority, other.request.priority
    return urgent < than or (urgent == than and entry.timeline.started < other.timeline.started)
