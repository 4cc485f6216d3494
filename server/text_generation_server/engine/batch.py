"""A cached batch: its unfinished sequences, the slots they hold and the step that is already running for them."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from text_generation_server.cache.references import SlotReferences
from text_generation_server.engine.launched_step import LaunchedStep
from text_generation_server.engine.sequence import Sequence
from text_generation_server.engine.types import BatchView


@dataclass(slots=True)
class Batch:
    """Invariant: a step in flight covers every sequence of the batch that was seated when it was launched, and perhaps
    some that have left it.
    """

    id: int
    references: SlotReferences
    sequences: list[Sequence] = field(default_factory=list)
    in_flight: LaunchedStep | None = None

    def keep(self, sequences: Iterable[Sequence]) -> None:
        """Go on with these sequences, in this order; slots are counted of those that come or go only."""
        before, self.sequences = set(self.sequences), list(sequences)
        now = set(self.sequences)
        for sequence in before - now:
            self.references.remove(sequence.held_slots)
        for sequence in now - before:
            self.references.add(sequence.held_slots)

    def view(self, most_tokens: int) -> BatchView:
        """What callers are told about the batch, of which the next step to be launched may have so many tokens."""
        return BatchView(
            id=self.id,
            request_ids=tuple(s.request.id for s in self.sequences),
            max_tokens=self.references.distinct,
            current_tokens=sum(s.step_tokens for s in self.sequences),
            prefill_room=max(most_tokens - sum(s.remaining_prompt or 1 for s in self.sequences if s.seated), 0),
        )
