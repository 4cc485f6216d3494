"""Remembers which prompt prefix each cache slot holds, so that a router's claim of a cached prefix can be checked.

A tag is the chained hash of the adapter and all prompt tokens up to the slot's position. Routers may claim prefixes
that were never computed, or not from these tokens (protocol §5.4, H1 to H3); what does not match is computed again.
"""

from array import array
from collections.abc import Sequence

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


class SlotTags:
    """One tag a slot."""

    def __init__(self, num_slots: int) -> None:
        self._tags = array("q", bytes(8 * num_slots))

    def matching(self, slots: Sequence[int], tags: Sequence[int], limit: int) -> int:
        """How many of the first `limit` positions really are in `slots`."""
        held = self._tags
        for position in range(limit):
            if held[slots[position]] != tags[position]:
                return position
        return limit

    def write(self, slots: Sequence[int], tags: Sequence[int]) -> None:
        """Record that each slot now holds the prefix with the tag beside it."""
        held = self._tags
        for slot, tag in zip(slots, tags, strict=True):
            held[slot] = tag

    def forget(self, slots: Sequence[int]) -> None:
        """Record that the slots hold nothing that can be shared."""
        held = self._tags
        for slot in slots:
            held[slot] = UNKNOWN
