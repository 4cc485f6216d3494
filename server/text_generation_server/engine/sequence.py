"""One request's host state, from admission to its last token. Knows nothing of devices, batches or the wire.

Two clocks run here: what has been *launched* (`computed`, `sampled`) and what has been *collected* (`output_ids`). With
run-ahead the first is up to one step ahead of the second.
"""

import math

from text_generation_server.engine.detokenizer import IncrementalText
from text_generation_server.engine.stopping import StopState
from text_generation_server.engine.types import Request


class Sequence:
    """A request that holds a row and slots.

    `slots[p]` is the cache slot of position p. `local_slots` is what must go back to the local allocator (empty when
    the router owns the slots). `step_tokens` is the number of tokens its next step computes.
    """

    __slots__ = (
        "admitted",
        "computed",
        "counts_row",
        "local_slots",
        "output_ids",
        "prompt_logprobs",
        "released",
        "request",
        "row",
        "sampled",
        "slots",
        "step_tokens",
        "stop",
        "tags",
        "text",
        "written_slots",
    )

    def __init__(
        self,
        request: Request,
        *,
        row: int,
        slots: tuple[int, ...],
        local_slots: tuple[int, ...],
        cached: int,
        tags: list[int],
        counts_row: int | None,
        stop: StopState,
        text: IncrementalText,
    ) -> None:
        self.request = request
        self.row = row
        self.slots = slots
        self.local_slots = local_slots
        self.tags = tags
        self.counts_row = counts_row
        self.stop = stop
        self.text = text
        self.admitted = False
        self.computed = cached
        self.sampled = 0
        self.output_ids: list[int] = []
        # The first token and every cached one have no distribution to be scored by (protocol §6.5).
        self.prompt_logprobs = [math.nan] * (cached + 1) if request.prefill_logprobs else []
        self.written_slots = max(len(slots) - cached, 0)
        rest = len(request.prompt_ids) - cached
        self.step_tokens = rest if request.chunk is None else min(max(request.chunk, 1), rest)
        self.released = False

    @property
    def remaining_prompt(self) -> int:
        """Prompt tokens that no launched step has computed."""
        return max(len(self.request.prompt_ids) - self.computed, 0)

    @property
    def wants_step(self) -> bool:
        """Whether another step is needed even if every launched one goes on."""
        return self.sampled < self.request.stopping.max_new_tokens

    def advance(self) -> bool:
        """Count the launch of its next step; tells whether that step chooses a token."""
        self.admitted = True
        self.computed += self.step_tokens
        chooses = self.remaining_prompt == 0
        self.sampled += chooses
        return chooses


def schedule_chunks(sequences: list[Sequence], max_prefill_tokens: int) -> None:
    """Set how many tokens each sequence computes next: one, or a chunk of its prompt (protocol §4.4, step 3)."""
    budget = max_prefill_tokens - (len(sequences) - 1)
    for sequence in reversed(sequences):
        rest = sequence.remaining_prompt
        sequence.step_tokens = max(min(rest, budget), 1) if rest else 1
        budget -= sequence.step_tokens if rest else 0
