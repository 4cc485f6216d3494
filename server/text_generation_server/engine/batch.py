"""A cached batch: an id, its unfinished sequences and the step that is already running for them."""

from dataclasses import dataclass

from text_generation_server.engine.launch import LaunchedStep
from text_generation_server.engine.sequence import Sequence
from text_generation_server.engine.types import BatchView


@dataclass(slots=True)
class Batch:
    """Invariant: a step in flight covers every sequence of the batch (and perhaps some that have left it)."""

    id: int
    sequences: list[Sequence]
    in_flight: LaunchedStep | None = None

    def view(self) -> BatchView:
        """What callers are told about the batch."""
        return BatchView(
            id=self.id,
            request_ids=tuple(s.request.id for s in self.sequences),
            # A shared prefix is counted by the sequence that computed it, not by those that read it.
            max_tokens=sum(s.written_slots for s in self.sequences),
            current_tokens=sum(s.step_tokens for s in self.sequences),
        )
