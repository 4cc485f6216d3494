"""One request's host state, from admission to its last token. Knows nothing of devices, batches or the wire.

Two clocks run here: what has been *launched* (`computed`, `sampled`) and what has been *collected* (`output_ids`). With
run-ahead the first is up to one step ahead of the second.
"""

import math
from collections.abc import Sequence as Ordered
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from text_generation_server.adapters.known import KnownAdapter
from text_generation_server.cache.tags import PrefixTags
from text_generation_server.engine.drafts import NgramDrafts
from text_generation_server.engine.shown import ShownImages
from text_generation_server.engine.stopping import IdRule, TextRule
from text_generation_server.engine.types import Request
from text_generation_server.grammar.state import GrammarState
from text_generation_server.sampling.params import SamplingParams
from text_generation_server.sampling.sampler import CountsRows


@dataclass(frozen=True, slots=True)
class Source:
    """What an encoder reads of a request, and a slot for each token of it."""

    ids: tuple[int, ...]
    slots: NDArray[np.int64]


class Sequence:
    """A request that holds a row and slots.

    `slots[p]` is the cache slot of position p. `local_slots` is what must go back to the local allocator (empty when
    the router owns the slots). `source` is a prompt that an encoder reads, None where the answer continues the prompt;
    with one, position 0 is the start of every answer, and its slot the row's own. `adapter` is None for the model
    itself; until it is `seated` there, the sequence waits, and `place` is where it is on the device. `step_tokens` is
    the number of tokens its next step computes, `draft` those among them that are guesses. `drafts` makes guesses, None
    for sequences that take one token a step. `sampling`: how its tokens are chosen, `samples`: whether they are drawn.
    `shown`: images in its prompt, None for none; `inputs`: the prompt, with features where images stand. `blocks`:
    first positions and ends of parts of it whose positions see each other, which one step computes.
    """

    __slots__ = (
        "adapter",
        "admitted",
        "blocks",
        "cache_len",
        "computed",
        "counts_rows",
        "draft",
        "drafts",
        "grammar",
        "inputs",
        "local_slots",
        "output_ids",
        "place",
        "prompt_logprobs",
        "prompt_top",
        "released",
        "request",
        "row",
        "sampled",
        "samples",
        "sampling",
        "seated",
        "shown",
        "slots",
        "source",
        "step_tokens",
        "stop",
        "tags",
        "text",
    )

    def __init__(
        self,
        request: Request,
        *,
        row: int,
        slots: NDArray[np.int64],
        local_slots: tuple[int, ...],
        adapter: KnownAdapter | None,
        cache_len: int,
        tags: PrefixTags | None,
        sampling: SamplingParams,
        counts_rows: CountsRows,
        grammar: GrammarState | None,
        stop: IdRule,
        text: TextRule,
        drafts: NgramDrafts | None = None,
        source: Source | None = None,
        shown: ShownImages | None = None,
        blocks: Ordered[tuple[int, int]] = (),
    ) -> None:
        self.request = request
        self.sampling = sampling
        self.samples = sampling.samples
        self.row = row
        self.slots = slots
        self.source = source
        self.shown = shown
        self.blocks = blocks
        self.inputs = request.prompt_ids if shown is None else shown.inputs
        self.local_slots = local_slots
        self.adapter = adapter
        self.seated = adapter is None
        self.place = 0
        self.tags = tags
        self.counts_rows = counts_rows
        self.grammar = grammar
        self.stop = stop
        self.text = text
        self.drafts = drafts
        self.draft: tuple[int, ...] = ()
        self.admitted = False
        self.cache_len = cache_len
        self.computed = cache_len
        self.sampled = 0
        self.output_ids: list[int] = []
        # The first token and every cached one have no distribution to score by (docs/protocol.md#log-probabilities).
        unscored = cache_len + 1 if request.prefill_logprobs else 0
        self.prompt_logprobs = [math.nan] * unscored
        self.prompt_top: list[list[tuple[int, float]]] = [[]] * unscored if request.prefill_top_n else []
        self.step_tokens = self.next_chunk
        self.released = False
        self._let_go_images()

    @property
    def held_slots(self) -> NDArray[np.int64]:
        """Slots that nobody else gets while it lives: whole blocks, if they are local."""
        if self.local_slots:
            return np.array(self.local_slots, dtype=np.int64)
        return self.slots if self.source is None else np.concatenate((self.source.slots, self.slots[1:]))

    @property
    def remaining_prompt(self) -> int:
        """Prompt tokens that no launched step has computed."""
        return max(len(self.request.prompt_ids) - self.computed, 0)

    def sit(self) -> None:
        """Its adapter is on the device: it runs from now on."""
        assert self.adapter is not None
        self.seated, self.place = True, self.adapter.place
        if self.tags is None and self.request.slots is not None:
            self.tags = PrefixTags(self.adapter.salt, self.request.content)

    @property
    def next_chunk(self) -> int:
        """Prompt tokens that its next step computes if there is room: the rest, or at first what its router wants."""
        rest, chunk = self.remaining_prompt, self.request.chunk
        return rest if chunk is None or self.admitted else self.uncut(min(max(chunk, 1), rest))

    def uncut(self, tokens: int) -> int:
        """So many of its next tokens, or fewer, or if need be more, that none of its blocks is cut behind them."""
        past = self.computed + tokens
        for start, end in self.blocks:
            if start < past < end:
                return (start if start > self.computed else end) - self.computed
        return tokens

    @property
    def wants_step(self) -> bool:
        """Whether another step is needed even if every launched one goes on."""
        return self.sampled < self.request.stopping.max_new_tokens

    @property
    def verified_input(self) -> tuple[int, ...] | None:
        """What a decode step computes: the newest token and guesses after it; None for the newest token alone.

        Which row holds that token only the device knows where it is yet to be read.
        """
        known = self.drafts is not None and self.sampled == len(self.output_ids)
        return (self.output_ids[-1], *self.draft) if known else None

    def guess(self, count: int) -> None:
        """Draft up to `count` tokens for the next step, if that is a decode step."""
        if self.drafts is not None and not self.remaining_prompt:
            room = self.request.stopping.max_new_tokens - self.sampled - 1
            self.draft = self.drafts.propose(max(min(count, room), 0))

    def verify(self, drafts: NgramDrafts, chosen: Ordered[int]) -> int:
        """How many tokens stand of those chosen after each input of the launched step: all up to the first wrong guess.

        What was computed for wrong guesses is computed again.
        """
        stand = 1
        while stand < len(chosen) and chosen[stand - 1] == self.draft[stand - 1]:
            stand += 1
        self.computed -= len(chosen) - stand
        self.sampled += stand - 1
        drafts.extend(chosen[:stand])
        self.draft = ()
        return stand

    def advance(self) -> None:
        """Count the launch of its next step, which chooses a token (with guesses, at least one) behind the prompt."""
        self.admitted = True
        self.computed += self.step_tokens
        self.sampled += self.remaining_prompt == 0
        if self.shown is not None:
            self._let_go_images()

    def leave(self) -> None:
        """It holds nothing from now on."""
        self.released = True
        if self.shown is not None:
            self.shown.release()

    def _let_go_images(self) -> None:
        """Features are needed until the step that computes the last position with a use for them is launched."""
        if self.shown is not None:
            self.shown.let_go(self.computed)
