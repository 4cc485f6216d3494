"""Remembers which prompt prefix each cache slot holds, so that a router's claim of a cached prefix can be checked.

A tag is the chained hash of the adapter's content and of all prompt tokens and images up to the slot's position.
Routers may claim prefixes that were never computed, or not from these tokens (docs/protocol.md#prefixes); what does not
match is computed again.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

UNKNOWN = 0
"""Tag of a slot whose content is no prompt prefix."""


class PrefixTags:
    """The tag of every position of a prompt, 64-bit signed, never `UNKNOWN`; made as far as they are asked for.

    salt: what keys and values depend on beside the prompt: the adapter's content, None for none. prompt: a number
    for what they depend on at each position: a token, or an image.
    Making them takes a third of a microsecond a token, in which a device can do better than wait.
    """

    def __init__(self, salt: str | None, prompt: Sequence[int]) -> None:
        self._prompt = prompt
        self._last = hash(salt) if salt else 1
        self._made = np.empty(0, dtype=np.int64)

    def until(self, end: int) -> NDArray[np.int64]:
        """The tags of at least the first `end` positions."""
        if end > len(self._made):
            more, tag = [], self._last
            for token in self._prompt[len(self._made) : end]:
                tag = hash((tag, token)) or 1
                more.append(tag)
            self._last = tag
            self._made = np.concatenate((self._made, np.array(more, dtype=np.int64)))
        return self._made


@dataclass(frozen=True, slots=True)
class PromptPart:
    """Positions of a prompt from `start` on, one for each of `slots`."""

    slots: NDArray[np.int64]
    tags: PrefixTags
    start: int

    def made(self) -> NDArray[np.int64]:
        """The positions' tags."""
        end = self.start + len(self.slots)
        return self.tags.until(end)[self.start : end]


@dataclass(frozen=True, slots=True)
class PromptWrites:
    """What a launched step is to write of prompts, and the mark that their slots bear till then."""

    mark: int
    prompts: list[PromptPart]

    def make_tags(self) -> None:
        """Make the tags that will be needed when the step is done."""
        for part in self.prompts:
            part.made()


class SlotTags:
    """One tag a slot, or the mark of the step that is to write it: a step may yet fail."""

    def __init__(self, num_slots: int) -> None:
        self._tags = np.full(num_slots, UNKNOWN, dtype=np.int64)
        self._marks = 0

    def matching(self, slots: NDArray[np.int64], tags: PrefixTags, limit: int) -> int:
        """How many of the first `limit` positions really are in `slots`."""
        same = self._tags[slots[:limit]] == tags.until(limit)[:limit]
        return limit if same.all() else int(same.argmin())

    def new_mark(self) -> int:
        """A mark that no step has had: as unlikely as any number to be a tag."""
        self._marks -= 1
        return self._marks

    def mark(self, slots: NDArray[np.int64], mark: int) -> None:
        """Record that a step is to write the slots."""
        self._tags[slots] = mark

    def settle(self, writes: PromptWrites) -> None:
        """Record that the step has succeeded: its slots hold what it wrote, but for those a later step is to write."""
        for part in writes.prompts:
            marked = self._tags[part.slots] == writes.mark
            self._tags[part.slots[marked]] = part.made()[marked]

    def forget(self, slots: NDArray[np.int64]) -> None:
        """Record that the slots hold nothing that can be shared."""
        self.mark(slots, UNKNOWN)
