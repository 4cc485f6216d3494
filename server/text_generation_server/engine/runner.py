"""Executes step plans on one rank's device: model, sampler, and the ids back to every rank's rows.

Knows nothing of requests, batches or stop rules. Everything it does to device state happens on the stream.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import torch
from loguru import logger

from text_generation_server.adapters.rank import NoAdapters, RankAdapters
from text_generation_server.cache.rows import RowTable
from text_generation_server.cache.states import (
    State,
    allocate,
    bytes_per_row,
    bytes_per_slot,
    rows_within,
    slots_within,
)
from text_generation_server.device.copies import upload
from text_generation_server.device.memory import make_memory
from text_generation_server.device.recorder import Recorder
from text_generation_server.device.stream import Pending, Reader, Stream
from text_generation_server.distributed.group import TensorParallel
from text_generation_server.engine.choosing import Chooser, SamplingInput, rehearse
from text_generation_server.engine.forward import Forwarded, StepForward
from text_generation_server.engine.graphs.recorded import RecordedSteps
from text_generation_server.engine.graphs.tokens import TOKENS
from text_generation_server.engine.launched_step import StepOutput
from text_generation_server.engine.plan import Admission, AllocateCache, Fitting, MeasureMemory, StepPlan
from text_generation_server.engine.scoring import HostScores
from text_generation_server.errors import GenerationError, ModelError, NotEnoughMemory
from text_generation_server.models.step import ImagePlaces, ServedModel, SourceInput
from text_generation_server.sampling.sampled import HostCopy, HostSampled
from text_generation_server.sampling.sampler import TokenCounts

PADDING_ROWS = 1
"""That no sequence has: recorded steps are filled up with it."""


class Runner:
    """The model, its cache, its rows and its adapters behind a stream.

    make_recorder: None where steps cannot be recorded.
    """

    def __init__(
        self,
        model: ServedModel,
        group: TensorParallel,
        stream: Stream,
        make_recorder: Callable[[], Recorder] | None = None,
        adapters: RankAdapters | None = None,
    ) -> None:
        self._adapters = adapters or NoAdapters()
        self._make_recorder = make_recorder if model.records else None
        self._model = model
        self._group = group
        self._stream = stream
        self._memory = make_memory(model.device)
        self._chooser = Chooser(model.vocab_size, model.device)
        self._rehearsed = self._rehearse() if self._make_recorder is not None else None
        self._states: tuple[State, ...] = ()
        self._held = 0, 0
        self._rows: RowTable | None = None
        self._forward: StepForward | None = None
        self._recorded: RecordedSteps | None = None

    @property
    def counts(self) -> TokenCounts:
        """The token counts of rows with penalties."""
        return self._chooser.counts

    @property
    def has_places(self) -> bool:
        """Whether the places for adapters are there, on every rank."""
        return self._adapters.reserved

    @property
    def device(self) -> torch.device:
        """Where the model lives."""
        return self._model.device

    @property
    def vocab_size(self) -> int:
        """Logits a row."""
        return self._model.vocab_size

    @property
    def bytes_per_slot(self) -> int:
        """Cache bytes of one token on this rank."""
        return bytes_per_slot(self._model.states)

    @property
    def bytes_per_row(self) -> int:
        """Cache bytes of one sequence on this rank, whatever its length."""
        return bytes_per_row(self._model.states)

    def allocate(self, command: AllocateCache) -> Pending[None]:
        """Replace the cache, the row table and recorded steps, and start measuring the peak of what follows."""
        return self._stream.enqueue(self._allocate, command)

    def record_more(self) -> Pending[bool]:
        """Record a size of step that was left for later; whether any is left after that."""
        return self._stream.enqueue(self._record_more)

    def fitting(self, command: MeasureMemory) -> Pending[Fitting]:
        """How many rows and slots a cache may have instead of the present one; the minimum over all ranks."""
        return self._stream.enqueue(self._fitting, command)

    def launch(self, plan: StepPlan, sampling: SamplingInput | None) -> Pending[StepOutput]:
        """Enqueue one step. `sampling` is None on ranks that receive the ids from rank 0.

        The result raises `GenerationError` when this step failed and others may succeed, `ModelError` when none can.
        """
        return self._stream.enqueue(self._execute, plan, sampling)

    def reserve_adapters(self) -> None:
        """Make the places for adapters, if they are not there.

        Raises:
            NotEnoughMemory: not on every rank.
        """
        if not self.has_places:
            self.reserving().result()

    def reserving(self) -> Pending[None]:
        """The same, not waited for."""
        return self._stream.enqueue(self._reserve)

    def put_adapter(self, key: int, place: int) -> Pending[None]:
        """Let an adapter in host memory be at a place, from the next step on."""
        return self._stream.enqueue(self._put, key, place)

    def drop_adapter(self, key: int) -> Pending[None]:
        """Forget an adapter in host memory, once it is wherever it was put before."""
        return self._stream.enqueue(self._drop, key)

    def close(self) -> None:
        """Finish the running step and drop those behind it."""
        self._stream.close()

    def _rehearse(self) -> Future[None]:
        """Have the kernels that choose tokens compiled while warm-up goes on."""
        aside = ThreadPoolExecutor(1, "rehearsal")
        try:
            return aside.submit(rehearse, self.vocab_size, self._model.dtype, self.device)
        finally:
            aside.shutdown(wait=False)

    def _allocate(self, command: AllocateCache) -> Reader[None]:
        # Free first: old and new cache together may not fit.
        self._rows = self._forward = self._recorded = None
        self._states, self._held = (), (0, 0)
        # A slot and a row more than asked for: those of the rows that pad recorded steps.
        sizes = command.num_slots + 1, command.num_rows + PADDING_ROWS
        states = allocate(self._model.states, *sizes, command.max_len)
        rows = RowTable(command.num_rows + PADDING_ROWS, command.max_len, self.device)
        rows.block_table[command.num_rows] = command.num_slots
        self._states, self._held, self._rows = states, sizes, rows
        recorded = RecordedSteps(self._model, states, rows, self._adapters.reserved)
        if self._make_recorder is not None and command.graphs:
            recorded.record(command.graphs, self._make_recorder())
        if self._rehearsed is not None:
            self._rehearsed.result()
        whole = TOKENS[-1] if self._make_recorder is not None else 0
        self._forward, self._recorded = StepForward(self._model, states, rows, recorded, whole), recorded
        self._memory.reset_peak()
        return lambda: None

    def _record_more(self) -> Reader[bool]:
        left = self._recorded is not None and self._recorded.record_more()
        return lambda: left

    def _fitting(self, command: MeasureMemory) -> Reader[Fitting]:
        num_slots, num_rows = self._held
        held = num_slots * self.bytes_per_slot + num_rows * self.bytes_per_row
        transient = self._memory.transient_bytes() if self._rows else 0
        free = self._memory.available_bytes(self._group.world_size, command.memory_fraction, held)
        if self._make_recorder is not None and command.graphs and self._rows:
            recorded = RecordedSteps(self._model, self._states, self._rows, self._adapters.reserved)
            free -= recorded.trial_bytes(command.graphs, self._make_recorder())
        free -= transient + PADDING_ROWS * self.bytes_per_row
        rows = command.num_rows
        if not command.all_rows:
            rows = self._group.min(rows_within(free, self.bytes_per_row, rows, self.bytes_per_slot > 0))
        free -= rows * self.bytes_per_row
        fitting = Fitting(self._group.min(slots_within(free, self.bytes_per_slot, rows)), rows)
        return lambda: fitting

    def _reserve(self) -> Reader[None]:
        try:
            self._adapters.reserve()
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            logger.error("There is no room for adapters: {}", error)
        everywhere = self._group.min(int(self._adapters.reserved))
        if not everywhere:
            self._adapters.release()

        def read() -> None:
            if not everywhere:
                raise NotEnoughMemory(
                    "not enough memory for the places of adapters: start with --max-device-loras, so that it is kept "
                    "for them, or fewer"
                )

        return read

    def _put(self, key: int, place: int) -> Reader[None]:
        with torch.inference_mode():
            self._adapters.put(key, place)
        return lambda: None

    def _drop(self, key: int) -> Reader[None]:
        self._adapters.drop(key)
        return lambda: None

    def _execute(self, plan: StepPlan, sampling: SamplingInput | None) -> Reader[StepOutput]:
        with self._failing_as(plan):
            enqueued = self._enqueue(plan, sampling)

        def read() -> StepOutput:
            with self._failing_as(plan):
                return enqueued()

        return read

    @contextmanager
    def _failing_as(self, plan: StepPlan) -> Iterator[None]:
        """Turns what a step may raise into what it means."""
        try:
            yield
        except (torch.OutOfMemoryError, MemoryError) as error:
            if self._group.world_size == 1:
                raise GenerationError(
                    f"not enough memory for a step of {sum(plan.query_lens)} tokens: {error}"
                ) from error
            raise ModelError(f"a rank ran out of memory, so the ranks no longer agree: {error}") from error
        except RuntimeError as error:
            # A rank that skipped a collective leaves its peers waiting.
            if not self._stream.outlives_failures or self._group.world_size > 1:
                raise ModelError(f"a step failed beyond recovery: {error}") from error
            raise GenerationError(f"a step failed: {error}") from error

    def _enqueue(self, plan: StepPlan, sampling: SamplingInput | None) -> Reader[StepOutput]:
        if self._forward is None or self._rows is None:
            raise ModelError("a step was launched before the cache was allocated")
        watch = self._stream.stopwatch()
        with torch.inference_mode():
            if plan.admissions:
                new = plan.admissions
                rows = self._rows.admit([a.row for a in new], [a.slots for a in new], [a.adapter for a in new])
                for state in self._states:
                    state.admit(rows)
                if self._model.encoder is not None:
                    self._model.encoder(self._source(new), self._states)
                if self._model.reader is not None:
                    self._model.reader.place([ImagePlaces(a.slots, a.images) for a in new], self._states)
                    if plan.images or plan.seen:
                        self._model.reader(plan.images, self._states, plan.seen)
            forwarded = self._forward(plan)
            sampled = self._choose(plan, forwarded, sampling, self._rows)
            scores = HostScores.start(forwarded.logits, sampling.scored) if sampling else None
        watch.stop()

        def read() -> StepOutput:
            chosen = HostSampled([], [], []) if sampled is None else sampled.read()
            return StepOutput(chosen, scores.read() if scores else (), watch.nanoseconds())

        return read

    def _source(self, admissions: Sequence[Admission]) -> SourceInput:
        ids, slots = upload(
            self.device,
            [token for admission in admissions for token in admission.source],
            np.concatenate([admission.source_slots for admission in admissions]),
        )
        return SourceInput([a.row for a in admissions], [len(a.source) for a in admissions], ids, slots)

    def _choose(
        self, plan: StepPlan, forwarded: Forwarded, sampling: SamplingInput | None, rows: RowTable
    ) -> HostCopy | None:
        """Choose on rank 0, tell every rank's rows, send the choice to the host."""
        # A row that verifies guesses is here several times; its next input comes with the plan, not from its row.
        drafts = zip(plan.chooses, plan.drafted, strict=True)
        chosen = [plan.rows[index] for index, drafted in drafts for _ in range(drafted + 1)]
        if not chosen:
            return None
        device_rows = forwarded.rows
        if chosen != list(plan.rows):
            (device_rows,) = upload(self.device, chosen)
        if sampling is None:
            ids = torch.empty(len(chosen), dtype=torch.int64, device=self.device)
            rows.last_token[device_rows] = self._group.broadcast(ids)
            return None
        sampled = self._chooser(forwarded.logits[: len(chosen)], sampling, forwarded.newest)
        rows.last_token[device_rows] = self._group.broadcast(sampled.ids)
        return sampled.start_copy()
