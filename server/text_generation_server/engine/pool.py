"""Admits requests: gives each a row, slots and text state, and takes it all back. Knows neither batches nor steps."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from text_generation_server.adapters.known import KnownAdapter
from text_generation_server.adapters.registry import AdapterRegistry
from text_generation_server.adapters.sources import AdapterSource
from text_generation_server.cache.blocks import LocalBlocks
from text_generation_server.cache.places import FeaturePlaces
from text_generation_server.cache.references import SlotReferences
from text_generation_server.cache.rows import FreeRows
from text_generation_server.cache.tags import PrefixTags, PromptPart, PromptWrites, SlotTags
from text_generation_server.engine.detokenizer import IncrementalText
from text_generation_server.engine.drafts import NgramDrafts
from text_generation_server.engine.limits import SCRATCH_SLOTS, PoolLimits, fitted, tokens_needed
from text_generation_server.engine.sequence import Sequence, Source
from text_generation_server.engine.shown import ShownImages
from text_generation_server.engine.stopping import IdRule, TextRule
from text_generation_server.engine.types import HEALTH_REQUEST_ID, RefusedRequest, Request
from text_generation_server.errors import InvalidRequest, OutOfBlocks
from text_generation_server.grammar.compiler import GrammarCompiler
from text_generation_server.grammar.state import GrammarState
from text_generation_server.sampling.params import SamplingParams
from text_generation_server.sampling.sampler import TokenCounts
from text_generation_server.specs.vision import Sight
from text_generation_server.tokenization.adapter import Tokenizer


class SequencePool:
    """Owns free rows, free local blocks, counts rows and slot tags of one allocated cache."""

    def __init__(
        self,
        limits: PoolLimits,
        tokenizer: Tokenizer,
        counts: TokenCounts,
        grammars: GrammarCompiler,
        adapters: AdapterRegistry,
    ) -> None:
        self.limits = limits
        self.rows = FreeRows(limits.max_rows)
        self.blocks = LocalBlocks(limits.num_slots, limits.block_size)
        self.tags = SlotTags(limits.all_slots)
        self.features = FeaturePlaces(limits.feature_places)
        self._tokenizer = tokenizer
        self._counts = counts
        self._grammars = grammars
        self._adapters = adapters
        self._health_row = limits.max_rows
        self._scratch = np.arange(limits.num_slots, limits.num_slots + SCRATCH_SLOTS)

    def admit(
        self, requests: tuple[Request, ...], found: Mapping[str, AdapterSource]
    ) -> tuple[list[Sequence], list[RefusedRequest]]:
        """Sequences for the requests that can be served as they are, and the other requests.

        found: as in `PrefillCommand`.

        Raises:
            OutOfBlocks: no row or not enough cache is free; none was admitted.
        """
        admitted: list[Sequence] = []
        refused: list[RefusedRequest] = []
        try:
            for request in requests:
                try:
                    admitted.append(self._admit(request, found))
                except InvalidRequest as error:
                    refused.append(RefusedRequest(request.id, str(error)))
        except Exception:
            for sequence in admitted:
                self.release(sequence)
            raise
        return admitted, refused

    def new_references(self) -> SlotReferences:
        """For the slots that the sequences of one batch hold."""
        return SlotReferences(self.limits.num_slots + SCRATCH_SLOTS)

    def release(self, sequence: Sequence) -> None:
        """Take back everything the sequence holds; steps in flight may still touch it, later ones come after them."""
        sequence.leave()
        if sequence.row != self._health_row:
            self.rows.release(sequence.row)
        if sequence.local_slots:
            self.blocks.release(sequence.local_slots)
        self._counts.take_back(sequence.counts_rows)
        if sequence.adapter is not None:
            self._adapters.let_go(sequence.adapter, sequence.seated)

    def mark_written(self, sequences: list[Sequence]) -> PromptWrites:
        """Mark the slots that the sequences' next step writes; none is shared before `tags.settle` has the result."""
        writes = PromptWrites(self.tags.new_mark(), [])
        written: list[NDArray[np.int64]] = []
        for sequence in sequences:
            if sequence.row == self._health_row:
                continue
            start = sequence.computed
            slots = sequence.slots[start : start + sequence.step_tokens]
            written.append(slots)
            if sequence.tags is not None and (rest := sequence.remaining_prompt):
                writes.prompts.append(PromptPart(slots[:rest], sequence.tags, start))
        if written:
            self.tags.mark(np.concatenate(written), writes.mark)
        return writes

    def _admit(self, request: Request, found: Mapping[str, AdapterSource]) -> Sequence:
        self.limits.check_ids(request)
        if request.id == HEALTH_REQUEST_ID:
            request = fitted(replace(request, images=()), len(self._scratch))
            return self._sequence(request, self._health_row, self._scratch)
        if request.slots is not None:
            request = fitted(request, len(request.slots))
        self.limits.check(request)
        with ExitStack() as taken:  # goes back if something is missing
            shown = self._shown(request)
            if shown is not None:
                taken.callback(shown.release)
            adapter = self._held_adapter(request, found)
            if adapter is not None:
                taken.callback(self._adapters.let_go, adapter, seated=False)
            local_slots: tuple[int, ...] = ()
            tags, cache_len = None, 0
            if request.slots is None:
                local_slots = self.blocks.acquire(tokens_needed(request))
                taken.callback(self.blocks.release, local_slots)
            slots = np.array(local_slots or request.slots, dtype=np.int64)
            if request.slots is not None:
                tags, cache_len = self._shared(request, adapter, slots)
            row = self.rows.take()
            taken.callback(self.rows.release, row)
            sequence = self._sequence(request, row, slots, local_slots, cache_len, adapter, tags, shown)
            taken.pop_all()
        return sequence

    def _shown(self, request: Request) -> ShownImages | None:
        """Its images. Where layers attend to them they are held as long as answers take, so one that finds no room for
        them ends alone, and no others with it.
        """
        try:
            return ShownImages.hold(request, self.features, self.limits.views)
        except OutOfBlocks as error:
            if self.limits.views is None:
                raise
            raise InvalidRequest(f"request {request.id}: {error}") from error

    def _held_adapter(self, request: Request, found: Mapping[str, AdapterSource]) -> KnownAdapter | None:
        try:
            return self._adapters.hold(request.adapter, found.get(request.adapter or ""))
        except InvalidRequest as error:
            raise InvalidRequest(f"request {request.id}: {error}") from error

    def _shared(
        self, request: Request, adapter: KnownAdapter | None, slots: NDArray[np.int64]
    ) -> tuple[PrefixTags | None, int]:
        """What tells its prompt's slots from others, None while nobody knows, and how many of them hold it already."""
        if adapter is not None and adapter.salt is None:
            return None, 0
        tags = PrefixTags(None if adapter is None else adapter.salt, request.content)
        limit = min(request.cache_len, len(request.prompt_ids) - 1) if self.limits.shares_prefixes else 0
        return tags, self.tags.matching(slots, tags, limit)

    def _sequence(
        self,
        request: Request,
        row: int,
        slots: NDArray[np.int64],
        local_slots: tuple[int, ...] = (),
        cache_len: int = 0,
        adapter: KnownAdapter | None = None,
        tags: PrefixTags | None = None,
        shown: ShownImages | None = None,
    ) -> Sequence:
        slots, source = slots[: tokens_needed(request)], None
        if self.limits.start is not None:
            own_slot = self.limits.num_slots + SCRATCH_SLOTS + row
            request, slots, source = _apart(request, slots, self.limits.start, own_slot)
        stopping = request.stopping
        stop = IdRule(stopping, self._tokenizer.eos_ids, request.generated)
        sampling = self._sampling(request, stop)
        text = IncrementalText(request.prompt_ids, self._tokenizer, request.generated)
        return Sequence(
            request,
            row=row,
            slots=slots,
            source=source,
            local_slots=local_slots,
            adapter=adapter,
            cache_len=cache_len,
            tags=tags if source is None else None,
            sampling=sampling,
            counts_rows=self._counts.lend(sampling.penalises, sampling.penalises_answer),
            grammar=self._grammar(request),
            stop=stop,
            text=TextRule(text, stopping.stop_sequences, stopping.min_new_tokens - request.generated),
            drafts=self._drafts(request),
            shown=shown,
            blocks=self._blocks(request, shown),
        )

    def _blocks(self, request: Request, shown: ShownImages | None) -> list[tuple[int, int]]:
        """First positions and ends of what sees all of itself."""
        match self.limits.sight:
            case Sight.CAUSAL:
                return []
            case Sight.IMAGES:
                return [] if shown is None else shown.spans
            case Sight.PROMPTS:
                return [(0, len(request.prompt_ids) - request.generated)]

    def _sampling(self, request: Request, stop: IdRule) -> SamplingParams:
        """How its tokens are chosen: as it says, and none too early that ends it."""
        least = request.stopping.min_new_tokens
        if least <= request.generated:
            return request.sampling
        ends = sorted(token for token in stop.ends if token < self.limits.vocab_size)
        return replace(request.sampling, least=least, ends=tuple(ends))

    def _drafts(self, request: Request) -> NgramDrafts | None:
        """Guesses only where the choice after a guess needs nothing but its logits."""
        if not self.limits.speculate or request.sampling.depends_on_last_token:
            return None
        return NgramDrafts(request.prompt_ids, self.limits.speculate)

    def _grammar(self, request: Request) -> GrammarState | None:
        """Starts compiling it; whether it can be used shows when the first token is chosen."""
        sampling = request.sampling
        if not sampling.grammar:
            return None
        compiled = self._grammars.start(sampling.grammar_type, sampling.grammar)
        return GrammarState(compiled, request.generated_ids)


def _apart(
    request: Request, slots: NDArray[np.int64], start: int, own_slot: int
) -> tuple[Request, NDArray[np.int64], Source]:
    """A prompt as an encoder's source, in its slots, and the request as a decoder sees it: from the start on.

    The start has a slot that is the row's own, so that prompt and answer need as many as where one continues the other.
    """
    count = len(request.prompt_ids) - request.generated
    source = Source(request.prompt_ids[:count], slots[:count])
    prompt_ids = (start, *request.prompt_ids[count:])
    return replace(request, prompt_ids=prompt_ids, chunk=None), np.concatenate(([own_slot], slots[count:])), source
