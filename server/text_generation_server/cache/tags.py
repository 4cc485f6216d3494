"""Remembers which prompt prefix each cache slot holds, so that a router's claim of a cached prefix can be checked.

A tag is the chained hash of the adapter and all prompt tokens up to the slot's position. Routers may claim prefixes
that were never computed, or not from these tokens (protocol §5.4, H1 to H3); what does not match is computed again.
"""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass

UNKNOWN = 0
"""Tag of a slot whose content is no prompt prefix."""


def prefix_tags(adapter: str | None, prompt_ids: Sequence[int]) -> list[int]:
    """The tag of every position of a prompt, 64-bit signed, never `UNKNOWN`."""
    tags: list[int] = []
    tag = hash(adapter) if adapter else 1
    for token in prompt_ids:
        tag = hash((tag, token)) or 1
        tags.append(tag)
    return tags


@dataclass(frozen=True, slots=True)
class PromptWrites:
    """What a launched step is to write: the slots of prompt tokens and their tags, and the mark they bear till then."""

    mark: int
    prompts: list[tuple[Sequence[int], Sequence[int]]]


class SlotTags:
    """One tag a slot, or the mark of the step that is to write it: a step may yet fail."""

    def __init__(self, num_slots: int) -> None:
        self._tags = array("q", bytes(8 * num_slots))
        self._marks = 0

    def matching(self, slots: Sequence[int], tags: Sequence[int], limit: int) -> int:
        """How many of the first `limit` positions really are in `slots`."""
        held = self._tags
        for position in range(limit):
            if held[slots[position]] != tags[position]:
                return position
        return limit

    def new_mark(self) -> int:
        """A mark that no step has had: as unlikely as any number to be a tag."""
        self._marks -= 1
        return self._marks

    def mark(self, slots: Sequence[int], mark: int) -> None:
        """Record that a step is to write the slots."""
        held = self._tags
        for slot in slots:
            held[slot] = mark

    def settle(self, writes: PromptWrites) -> None:
        """Record that the step has succeeded: its slots hold what it wrote, but for those a later step is to write."""
        held = self._tags
        for slots, tags in writes.prompts:
            for slot, tag in zip(slots, tags, strict=True):
                if held[slot] == writes.mark:
                    held[slot] = tag

    def forget(self, slots: Sequence[int]) -> None:
        """Record that the slots hold nothing that can be shared."""
        held = self._tags
        for slot in slots:
            held[slot] = UNKNOWN
