"""A cached batch: an id, its unfinished sequences and the step that is already running for them."""

from dataclasses import dataclass, field

from text_generation_server.engine.launch import LaunchedStep
from text_generation_server.engine.sequence import Sequence
from text_generation_server.engine.types import BatchView


@dataclass(slots=True)
class Batch:
    """Invariant: a step in flight covers every sequence of the batch (and perhaps some that have left it)."""

    id: int
    sequences: list[Sequence]
    in_flight: LaunchedStep | None = None
    _counted: list[Sequence] = field(default_factory=list, repr=False)
    _slots: int = 0

    def view(self) -> BatchView:
        """What callers are told about the batch."""
        return BatchView(
            id=self.id,
            request_ids=tuple(s.request.id for s in self.sequences),
            max_tokens=self._distinct_slots(),
            current_tokens=sum(s.step_tokens for s in self.sequences),
        )

    def _distinct_slots(self) -> int:
        """Slots that the sequences fill or read, a shared one once; counted again only when others are in the batch."""
        if self.sequences != self._counted:
            own = sum(len(s.local_slots or s.slots) - s.cached for s in self.sequences)
            shared = {slot for s in self.sequences for slot in s.slots[: s.cached].tolist()}
            if shared:
                shared.difference_update(*(s.slots[s.cached :].tolist() for s in self.sequences))
            self._counted, self._slots = self.sequences, own + len(shared)
        return self._slots
