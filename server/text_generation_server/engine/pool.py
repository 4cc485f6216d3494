"""Admits requests: gives each a row, slots and text state, and takes it all back. Knows neither batches nor steps."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

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
from text_generation_server.engine.sequence import Sequence, Source
from text_generation_server.engine.shown import ShownImages
from text_generation_server.engine.stopping import IdRule, TextRule
from text_generation_server.engine.types import HEALTH_REQUEST_ID, RefusedRequest, Request
from text_generation_server.errors import InvalidRequest, OutOfBlocks
from text_generation_server.grammar.compiler import GrammarCompiler
from text_generation_server.grammar.state import GrammarState
from text_generation_server.sampling.params import SamplingParams
from text_generation_server.sampling.sampler import TokenCounts
from text_generation_server.specs.crossing import Views
from text_generation_server.specs.vision import Sight
from text_generation_server.tokenization.adapter import Tokenizer

SCRATCH_SLOTS = 64
"""Private tail of the cache for liveness prefills, which touch no router's slots (docs/protocol.md#liveness)."""


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """num_slots: slots routers may use. max_len: longest prompt plus answer. vocab_size: bounds token ids.

    shares_prefixes: whether a request may take over what another computed for the same prompt tokens.
    speculate: most tokens guessed at once.
    start: the token that answers begin behind where an encoder reads the prompts; None where answers continue them.
    feature_places: places for features of images, 0 where the model takes none. sight: which positions see what is
    behind them. views: which images they see where layers attend to those.
    """

    num_slots: int
    max_len: int
    max_rows: int
    block_size: int
    vocab_size: int
    shares_prefixes: bool
    speculate: int = 0
    start: int | None = None
    feature_places: int = 0
    sight: Sight = Sight.CAUSAL
    views: Views | None = None

    @property
    def all_slots(self) -> int:
        """Those of routers, of liveness prefills, and where answers have a start of their own, one for each row."""
        return self.num_slots + SCRATCH_SLOTS + (0 if self.start is None else self.max_rows + 1)


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
        self._check_ids(request)
        if request.id == HEALTH_REQUEST_ID:
            request = replace(request, images=())
            return self._sequence(_fitted(request, len(self._scratch)), self._health_row, self._scratch, (), 0, None)
        if request.slots is not None:
            request = _fitted(request, len(request.slots))
        self._check(request)
        shown = self._shown(request)
        try:
            return self._adapted(request, found, shown)
        except Exception:
            if shown is not None:
                shown.release()
            raise

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

    def _adapted(self, request: Request, found: Mapping[str, AdapterSource], shown: ShownImages | None) -> Sequence:
        """The request with its adapter, if it names one."""
        try:
            adapter = self._adapters.hold(request.adapter, found.get(request.adapter or ""))
        except InvalidRequest as error:
            raise InvalidRequest(f"request {request.id}: {error}") from error
        try:
            return self._placed(request, adapter, shown)
        except Exception:
            if adapter is not None:
                self._adapters.let_go(adapter, seated=False)
            raise

    def _placed(self, request: Request, adapter: KnownAdapter | None, shown: ShownImages | None) -> Sequence:
        """The request with the router's slots, or slots of its own."""
        if request.slots is None:
            return self._with_local_slots(request, adapter, shown)
        tags, limit = None, 0
        if adapter is None or adapter.salt is not None:
            tags = PrefixTags(None if adapter is None else adapter.salt, request.content)
            limit = min(request.cache_len, len(request.prompt_ids) - 1) if self.limits.shares_prefixes else 0
        slots = np.array(request.slots, dtype=np.int64)
        cache_len = 0 if tags is None else self.tags.matching(slots, tags, limit)
        return self._sequence(request, self.rows.take(), slots, (), cache_len, adapter, tags, shown)

    def _with_local_slots(self, request: Request, adapter: KnownAdapter | None, shown: ShownImages | None) -> Sequence:
        slots = self.blocks.acquire(_tokens_needed(request))
        try:
            row = self.rows.take()
        except Exception:
            self.blocks.release(slots)
            raise
        return self._sequence(request, row, np.array(slots, dtype=np.int64), slots, 0, adapter, shown=shown)

    def _sequence(
        self,
        request: Request,
        row: int,
        slots: NDArray[np.int64],
        local_slots: tuple[int, ...],
        cache_len: int,
        adapter: KnownAdapter | None,
        tags: PrefixTags | None = None,
        shown: ShownImages | None = None,
    ) -> Sequence:
        slots, source = slots[: _tokens_needed(request)], None
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

    def _check_ids(self, request: Request) -> None:
        size = self.limits.vocab_size
        largest = max(request.prompt_ids, default=0)
        if largest >= size:
            raise InvalidRequest(
                f"request {request.id}: token id {largest} is outside the model's vocabulary of {size}; the tokenizer "
                "does not belong to this model"
            )
        largest = max((token for token, _ in request.sampling.logit_bias), default=0)
        if largest >= size:
            raise InvalidRequest(
                f"request {request.id}: logit_bias names token {largest}, outside the model's vocabulary of {size}; "
                "leave it out"
            )

    def _check(self, request: Request) -> None:
        prompt, limits = request.prompt_ids, self.limits
        if not prompt:
            raise InvalidRequest(f"request {request.id}: the prompt has no tokens; send at least one")
        if request.stopping.max_new_tokens < 1:
            raise InvalidRequest(f"request {request.id}: max_new_tokens is 0; ask for at least 1")
        if _tokens_needed(request) > limits.max_len:
            raise InvalidRequest(
                f"request {request.id}: {len(prompt)} prompt tokens and {request.stopping.max_new_tokens} new tokens "
                f"exceed the {limits.max_len} tokens of a sequence; truncate the prompt or lower max_new_tokens"
            )
        if request.slots is not None and max(request.slots) >= limits.num_slots:
            raise InvalidRequest(
                f"request {request.id}: slot {max(request.slots)} is outside the cache of {limits.num_slots} slots; "
                "the router must use the limits that Warmup returned"
            )


def _tokens_needed(request: Request) -> int:
    """Positions that get a cache entry: the last generated token never does."""
    return len(request.prompt_ids) + request.stopping.max_new_tokens - 1


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


def _fitted(request: Request, slots: int) -> Request:
    """The request as it fits where the router counted fewer tokens (docs/protocol.md#slots).

    Its prompt is cut on the left; one with images is left whole, as their places say what is seen, and answers are
    shorter.
    """
    stopping, prompt = request.stopping, len(request.prompt_ids)
    room = slots - stopping.max_new_tokens + 1
    if room >= prompt:
        return request
    if request.images and slots >= prompt:
        return replace(request, stopping=replace(stopping, max_new_tokens=slots - prompt + 1))
    if request.images or room <= request.generated:
        raise InvalidRequest(
            f"request {request.id}: {slots} slots cannot hold a prompt and {request.stopping.max_new_tokens} "
            "new tokens; allocate prompt + max_new_tokens - 1"
        )
    return replace(request, prompt_ids=request.prompt_ids[-room:], cache_len=0)
