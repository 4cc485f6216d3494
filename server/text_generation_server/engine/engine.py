"""Prefill, decode, filter and clear over cached batches, on the engine thread only. Knows neither the wire nor tensors.

One rule: each call returns, for every row, the result of exactly one step of that row. With run-ahead that step was
launched by the call before, and the next one is launched before the results of this one are read.
"""

import time
from collections.abc import Sequence as Ordered
from dataclasses import replace

from loguru import logger

from text_generation_server.adapters.registry import AdapterRegistry
from text_generation_server.engine.batch import Batch
from text_generation_server.engine.collecting import StepCollector
from text_generation_server.engine.finish import refusal
from text_generation_server.engine.graphs.decodes import sizes_up_to
from text_generation_server.engine.guessing import Guessing, GuessPace, MeasuredGain
from text_generation_server.engine.launched_step import LaunchedStep
from text_generation_server.engine.limits import SCRATCH_SLOTS, PoolLimits
from text_generation_server.engine.plan import AllocateCache
from text_generation_server.engine.planner import prefill_chunks
from text_generation_server.engine.pool import SequencePool
from text_generation_server.engine.sequence import Sequence
from text_generation_server.engine.settings import EngineSettings
from text_generation_server.engine.step_launcher import StepLauncher, StepRunner
from text_generation_server.engine.types import (
    BatchView,
    Generation,
    PrefillCommand,
    StepResult,
    WarmupCommand,
    WarmupResult,
)
from text_generation_server.engine.waiting import WaitingSequences
from text_generation_server.engine.warmup import LIVENESS_ROWS, CacheSizer
from text_generation_server.errors import InvalidRequest, ModelError, UnknownBatch
from text_generation_server.grammar.compiler import GrammarCompiler
from text_generation_server.tokenization.adapter import Tokenizer

SEAT_PATIENCE_S = 0.05
"""How long a call waits for the files of adapters where nothing of it can run: its caller would only ask again."""


class Engine:
    """Owns the cached batches of a shard. adapters: those that requests may name, by default none."""

    def __init__(
        self,
        runner: StepRunner,
        tokenizer: Tokenizer,
        settings: EngineSettings,
        adapters: AdapterRegistry | None = None,
        guessing: Guessing | None = None,
    ) -> None:
        """guessing: decides when guesses are verified; by default where that has been measured to pay."""
        self.settings = settings
        self.runner = runner
        self.adapters = adapters or AdapterRegistry(runner)
        self._waiting = WaitingSequences(self.adapters)
        self._tokenizer = tokenizer
        self._sizer = CacheSizer(runner, settings)
        self._launcher = StepLauncher(runner, settings.watermark)
        self._grammars = GrammarCompiler(tokenizer, runner.vocab_size)
        self._pool: SequencePool | None = None
        self._records = False
        self.max_prefill_tokens = self._sizer.default_prefill_tokens
        self._batches: dict[int, Batch] = {}
        self._pace = GuessPace(settings.speculate, guessing or MeasuredGain(time.perf_counter))
        self._collector = StepCollector(tokenizer, self._pace)

    @property
    def pool(self) -> SequencePool:
        """The rows and slots of the cache; a caller that never warms up gets a cache of default size."""
        if self._pool is None:
            sizes = self._sizer.unmeasured()
            self.resize(sizes.supported_tokens, sizes.max_total_tokens, self.settings.graphs, sizes.max_rows)
        assert self._pool is not None
        return self._pool

    @property
    def batch_ids(self) -> tuple[int, ...]:
        """Ids of the cached batches."""
        return tuple(self._batches)

    def warmup(self, command: WarmupCommand) -> WarmupResult:
        """Drop everything, run the largest prefill once, measure, and allocate the cache that fits.

        After an error it is as if there had been no warm-up.

        Raises:
            NotEnoughMemory: the limits asked for do not fit; the message says what does.
        """
        self.clear(None)
        try:
            result = self._sizer.measure(self, command)
            self.resize(result.supported_tokens, result.max_total_tokens, self.settings.graphs, result.max_rows)
        except Exception:
            self.clear(None)
            self._pool, self.max_prefill_tokens = None, self._sizer.default_prefill_tokens
            raise
        self.max_prefill_tokens = command.max_prefill_tokens
        held = result.supported_tokens * self.runner.bytes_per_slot + result.max_rows * self.runner.bytes_per_row
        report = logger.bind(phase="warmup", tokens=result.supported_tokens, bytes=held)
        report.info(
            "The cache holds {} tokens of {} requests in {:.2f} GiB a rank; the largest request may have {}",
            *(result.supported_tokens, result.max_rows, held / 2**30, result.max_total_tokens),
        )
        return result

    def resize(self, num_slots: int, max_len: int, graphs: tuple[int, ...] = (), max_rows: int | None = None) -> None:
        """Replace the cache by an empty one of `num_slots` tokens, of sequences up to `max_len`. No batch is cached.

        Decode steps of `graphs` rows are recorded with it. max_rows: sequences at once; None for the most there may be.
        """
        rows = self.settings.max_rows if max_rows is None else max_rows
        limits = PoolLimits(
            num_slots,
            max_len,
            max_rows=rows,
            block_size=self.settings.block_size,
            vocab_size=self.runner.vocab_size,
            shares_prefixes=self.settings.shares_prefixes,
            speculate=self.settings.speculate,
            start=self.settings.start,
            feature_places=self.settings.feature_places(rows),
            sight=self.settings.sight,
            views=self.settings.views,
        )
        sizes = sizes_up_to(rows, graphs)
        command = AllocateCache(limits.all_slots, rows + LIVENESS_ROWS, max(max_len, SCRATCH_SLOTS), sizes)
        self.runner.allocate(command).result()
        self._records = bool(graphs)
        self._pool = SequencePool(limits, self._tokenizer, self.runner.counts, self._grammars, self.adapters)

    def use_pause(self) -> bool:
        """Do a little of what need not be done at once: record a size of step. Whether anything is left.

        Raises:
            ModelError: it failed, and nobody knows what state the device is in.
        """
        if self._records:
            try:
                self._records = self.runner.record_more().result()
            except Exception as error:
                raise ModelError(f"a step could not be recorded: {error}") from error
        return self._records

    def prefill(self, command: PrefillCommand) -> StepResult:
        """Admit the requests; run their first step, or have it run with the next of the cached batch that they join.

        A request that cannot be served ends alone, as a `Failure`. On an error the new requests are gone,
        and the cached batch with them (docs/protocol.md#faults).

        Raises:
            InvalidRequest: none of the requests can be served, and they join no batch.
            OutOfBlocks: no row or not enough cache is free.
        """
        if not command.requests and not command.refused:
            raise InvalidRequest(f"batch {command.batch_id} has no requests; send at least one")
        joined = [] if command.cached_batch_id is None else [self._pop(command.cached_batch_id)]
        self._release_batch(command.batch_id)
        try:
            fresh, refused = self.pool.admit(command.requests, command.found)
        except Exception:
            self._drop([s for batch in joined for s in batch.sequences])
            raise
        refused = [*command.refused, *refused]
        if not fresh and not joined:
            raise InvalidRequest("; ".join(request.reason for request in refused))
        for request in refused:
            logger.error("Prefill: {}", request.reason)
        self._waiting.add(fresh)
        result = self._advance(joined[0].id if joined else command.batch_id, joined, fresh)
        ended = tuple(refusal(request, self._tokenizer) for request in refused)
        return replace(result, generations=result.generations + ended)

    def decode(self, batch_ids: Ordered[int]) -> StepResult:
        """One step of the named batches, merged in that order under the first one's id.

        Raises:
            UnknownBatch: one of them is not cached; the others stay.
        """
        if not batch_ids:
            raise InvalidRequest("Decode names no batch; send at least one")
        if len(set(batch_ids)) < len(batch_ids):
            raise InvalidRequest(f"Decode names a batch twice: {list(batch_ids)}")
        for batch_id in batch_ids:
            self._known(batch_id)
        return self._advance(batch_ids[0], [self._pop(i) for i in batch_ids], [])

    def filter(self, batch_id: int, keep: Ordered[int]) -> BatchView:
        """Keep exactly the requests `keep`, in that order; ids that have finished already are passed over.

        Raises:
            UnknownBatch: the batch is not cached.
            InvalidRequest: nothing would be left; the batch stays as it is.
        """
        batch = self._known(batch_id)
        place = {request_id: index for index, request_id in reversed(list(enumerate(keep)))}
        kept = sorted((s for s in batch.sequences if s.request.id in place), key=lambda s: place[s.request.id])
        if not kept:
            raise InvalidRequest(f"FilterBatch would leave batch {batch_id} empty; use ClearCache to drop it")
        for sequence in batch.sequences:
            if sequence.request.id not in place:
                self.pool.release(sequence)
        batch.keep(kept)
        return self._view(batch)

    def clear(self, batch_id: int | None) -> None:
        """Drop one batch, or all of them. Never fails: routers call it after errors."""
        for known in [batch_id] if batch_id is not None else list(self._batches):
            self._release_batch(known)

    def _advance(self, batch_id: int, joined: list[Batch], fresh: list[Sequence]) -> StepResult:
        """Launch what is not in flight, launch one step ahead, then collect: the order that keeps the device busy."""
        began = time.perf_counter_ns()
        merged = [s for batch in joined for s in batch.sequences] + fresh
        steps = [batch.in_flight for batch in joined if batch.in_flight]
        # Prompts go with the step that is launched next: one of their own would read all weights once more.
        idle = [s for batch in joined if not batch.in_flight for s in batch.sequences] + ([] if steps else fresh)
        concat_ns = time.perf_counter_ns() - began if len(joined) + bool(fresh) > 1 else None
        lost: list[Generation] = []
        try:
            if self._waiting:
                lost = self._seat(merged, fresh)
                merged, fresh = [[s for s in some if not s.released] for some in (merged, fresh)]
                idle = [] if steps else self._idle(merged)
            if idle:
                steps.append(self._launch(idle))
            ahead = self._launch_ahead(merged) if self._may_run_ahead(steps, merged) else None
            for step in steps:  # while the device is busy
                step.writes.make_tags()
            for step in steps:
                step.output.result()
            collected = time.perf_counter_ns()
            generations = [g for step in steps for g in self._collector.collect(step, self.pool)] + lost
            _raise_if_all_failed(merged)
        except Exception:
            self._drop(merged)
            raise
        self._pace.note(steps)
        batch = joined[0] if joined else Batch(batch_id, self.pool.new_references())
        return StepResult(
            generations=tuple(generations),
            batch=self._keep(batch, [s for s in merged if not s.released], ahead),
            forward_ns=sum(step.output.result().forward_ns for step in steps),
            decode_ns=time.perf_counter_ns() - collected,
            concat_ns=concat_ns,
        )

    def _seat(self, merged: list[Sequence], fresh: list[Sequence]) -> list[Generation]:
        """Let those run whose adapters have come by now; returns how those ended whose adapters cannot be had.

        Raises InvalidRequest if that is all of them.
        """
        lost = self._waiting.seat(merged, fresh, SEAT_PATIENCE_S)
        for sequence, refused in lost:
            logger.error("{}", refused.reason)
            self.pool.release(sequence)
        if lost and all(s.released for s in merged):
            raise InvalidRequest("; ".join(refused.reason for _, refused in lost))
        return [refusal(refused, self._tokenizer) for _, refused in lost]

    def _idle(self, merged: list[Sequence]) -> list[Sequence]:
        """Those that may run, where some have waited and nothing is in flight: as much of them as a step may be."""
        idle = [s for s in merged if s.seated and not s.released]
        if self._waiting.are_late(idle):
            self._schedule(idle)
        return idle

    def _may_run_ahead(self, steps: list[LaunchedStep], merged: list[Sequence]) -> bool:
        """Guesses follow the last token, which must have been read, and what is behind them depends on their number."""
        if not self.settings.run_ahead or any(map(any, (step.drafted for step in steps))):
            return False
        return not self._pace.guesses(merged)

    def _launch_ahead(self, merged: list[Sequence]) -> LaunchedStep | None:
        """The step after the one being read, of all rows that cannot have reached their length by then."""
        going_on = [s for s in merged if s.seated and s.wants_step]
        if not going_on:
            return None
        self._schedule(going_on)
        return self._launch(going_on)

    def _schedule(self, sequences: list[Sequence]) -> None:
        chunks = prefill_chunks(sequences, self._most_tokens(sequences))
        for sequence, tokens in zip(sequences, chunks, strict=True):
            sequence.step_tokens = tokens

    def _most_tokens(self, sequences: list[Sequence]) -> int:
        """Of the next step of `sequences`: a prompt alone keeps nobody waiting."""
        answering = any(not sequence.remaining_prompt for sequence in sequences)
        return min(self.max_prefill_tokens, self.settings.max_mixed_tokens) if answering else self.max_prefill_tokens

    def _launch(self, sequences: list[Sequence]) -> LaunchedStep:
        self._waiting.run(sequences)
        return self._launcher.launch(sequences, self.pool.mark_written(sequences))

    def _keep(self, batch: Batch, sequences: list[Sequence], ahead: LaunchedStep | None) -> BatchView | None:
        """Cache what is unfinished; `ahead` covers all of it that may run, or nothing is in flight."""
        if not sequences:
            self._pace.pause()
            return None
        if ahead is None:
            guesses = self._pace.guesses(sequences)
            for sequence in sequences:
                sequence.guess(guesses)
            self._schedule(sequences)
        batch.keep(sequences)
        batch.in_flight = ahead
        self._batches[batch.id] = batch
        return self._view(batch)

    def _view(self, batch: Batch) -> BatchView:
        return batch.view(self._most_tokens(batch.sequences))

    def _known(self, batch_id: int) -> Batch:
        if batch_id not in self._batches:
            raise UnknownBatch(f"batch {batch_id} is not cached; cached are {sorted(self._batches) or 'none'}")
        return self._batches[batch_id]

    def _pop(self, batch_id: int) -> Batch:
        batch = self._known(batch_id)
        del self._batches[batch_id]
        return batch

    def _release_batch(self, batch_id: int) -> None:
        batch = self._batches.pop(batch_id, None)
        for sequence in batch.sequences if batch else ():
            self.pool.release(sequence)

    def _drop(self, sequences: list[Sequence]) -> None:
        """Release sequences after a failure: what their slots hold is not known any more."""
        for sequence in sequences:
            if not sequence.released:
                self.pool.tags.forget(sequence.slots)
                self.pool.release(sequence)


def _raise_if_all_failed(sequences: list[Sequence]) -> None:
    """An error reaches every request of a call: only where all have failed may one be raised."""
    failures = [s.grammar.failure for s in sequences if s.grammar is not None and s.grammar.failure is not None]
    if failures and len(failures) == len(sequences):
        raise InvalidRequest("; ".join(dict.fromkeys(map(str, failures))))
