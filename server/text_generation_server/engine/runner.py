"""Executes step plans on one rank's device: plan to tensors, model, sampler, and the ids back to every rank's rows.

Knows nothing of requests, batches or stop rules. Everything it does to device state happens on the stream.
"""

import time
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from text_generation_server.attention.base import RowLayout
from text_generation_server.cache.paged import PagedCache
from text_generation_server.distributed.group import TensorParallel
from text_generation_server.engine.launch import StepOutput
from text_generation_server.engine.memory import PeakMemory, available_bytes
from text_generation_server.engine.plan import AllocateCache, MeasureMemory, StepPlan
from text_generation_server.engine.rows import RowTable
from text_generation_server.engine.stream import ThreadStream
from text_generation_server.errors import GenerationError, ModelError
from text_generation_server.grammar.masks import Masks
from text_generation_server.models.step import ServedModel, StepInput
from text_generation_server.sampling.sampler import HostSampled, Sampler, SamplingPlan, TokenCounts


@dataclass(frozen=True, slots=True)
class SamplingInput:
    """What rank 0 alone knows about a step, for the rows that choose.

    uniforms: one random number in [0, 1) a row.
    lengths: prompt and generated tokens of a row so far.
    histories: (counts row, its tokens) of rows whose penalties start with this step.
    masks: what the grammars of rows that have one allow; may be known only while the step runs.
    targets: for each scored row the token that really follows each scored position.
    """

    plan: SamplingPlan
    uniforms: list[float]
    lengths: list[int]
    histories: tuple[tuple[int, tuple[int, ...]], ...] = ()
    masks: Future[Masks] | None = None
    targets: tuple[tuple[int, ...], ...] = ()


class Runner:
    """The model, its cache and its rows behind a stream."""

    def __init__(self, model: ServedModel, group: TensorParallel, stream: ThreadStream) -> None:
        self._model = model
        self._group = group
        self._stream = stream
        self._sampler = Sampler(model.vocab_size, model.state.device)
        self._cache: PagedCache | None = None
        self._rows: RowTable | None = None
        self._peak: PeakMemory | None = None

    @property
    def counts(self) -> TokenCounts:
        """The token counts of rows with penalties."""
        return self._sampler.counts

    @property
    def device(self) -> torch.device:
        """Where the model lives."""
        return self._model.state.device

    @property
    def vocab_size(self) -> int:
        """Logits a row."""
        return self._model.vocab_size

    @property
    def bytes_per_slot(self) -> int:
        """Cache bytes of one token on this rank."""
        return PagedCache.bytes_per_slot(self._model.state)

    def allocate(self, command: AllocateCache) -> Future[None]:
        """Replace the cache and the row table, and start measuring the peak of what follows."""
        return self._stream.enqueue(self._allocate, command)

    def fitting_slots(self, command: MeasureMemory) -> Future[int]:
        """How many slots a cache may have instead of the present one; the minimum over all ranks."""
        return self._stream.enqueue(self._fitting_slots, command)

    def launch(self, plan: StepPlan, sampling: SamplingInput | None) -> Future[StepOutput]:
        """Enqueue one step. `sampling` is None on ranks that receive the ids from rank 0.

        The future raises `GenerationError` when this step failed and others may succeed, `ModelError` when none can.
        """
        return self._stream.enqueue(self._guarded, plan, sampling)

    def close(self) -> None:
        """Finish the running step and drop those behind it."""
        self._stream.close()

    def _allocate(self, command: AllocateCache) -> None:
        # Free first: old and new cache together may not fit.
        self._cache = self._rows = None
        self._cache = PagedCache(self._model.state, command.num_slots)
        self._rows = RowTable(command.num_rows, command.max_len, self.device)
        self._peak = PeakMemory(self.device)

    def _fitting_slots(self, command: MeasureMemory) -> int:
        held = self._cache.num_slots * self.bytes_per_slot if self._cache else 0
        free = available_bytes(self.device, self._group.world_size, command.memory_fraction, held)
        transient = self._peak.transient_bytes() if self._peak else 0
        return self._group.min(max(0, free - transient) // self.bytes_per_slot)

    def _guarded(self, plan: StepPlan, sampling: SamplingInput | None) -> StepOutput:
        try:
            return self._execute(plan, sampling)
        except (torch.OutOfMemoryError, MemoryError) as error:
            if self._group.world_size == 1:
                raise GenerationError(
                    f"not enough memory for a step of {sum(plan.query_lens)} tokens: {error}"
                ) from error
            raise ModelError(f"a rank ran out of memory, so the ranks no longer agree: {error}") from error
        except RuntimeError as error:
            # A failed kernel makes a CUDA context unusable; a rank that skipped a collective leaves its peers waiting.
            if self.device.type == "cuda" or self._group.world_size > 1:
                raise ModelError(f"a step failed beyond recovery: {error}") from error
            raise GenerationError(f"a step failed: {error}") from error

    def _execute(self, plan: StepPlan, sampling: SamplingInput | None) -> StepOutput:
        if self._cache is None or self._rows is None:
            raise ModelError("a step was launched before the cache was allocated")
        started = time.perf_counter_ns()
        with torch.inference_mode():
            for admission in plan.admissions:
                self._rows.admit(admission.row, admission.slots)
            inputs = self._step_input(plan, self._cache, self._rows)
            logits = self._model.forward(inputs)
            sampled = self._choose(plan, inputs, logits, sampling, self._rows)
            prompt_logprobs = self._score(logits, sampling.targets) if sampling else ()
        return StepOutput(sampled, prompt_logprobs, time.perf_counter_ns() - started)

    def _step_input(self, plan: StepPlan, cache: PagedCache, rows: RowTable) -> StepInput:
        layout = RowLayout(plan.rows, plan.query_lens, plan.kv_lens, rows.slots)
        token_ids, positions = self._tokens(plan, rows)
        row_of = [row for row, count in zip(plan.rows, plan.query_lens, strict=True) for _ in range(count)]
        return StepInput(
            token_ids=token_ids,
            positions=positions,
            spans=rows.spans[self._tensor(row_of)],
            logit_rows=self._tensor(_logit_rows(plan)),
            attention=self._model.attention.plan(layout),
            cache=cache,
        )

    def _tokens(self, plan: StepPlan, rows: RowTable) -> tuple[Tensor, Tensor]:
        """Input ids and positions [T]; a decoding row's input never leaves the device."""
        if not any(plan.prompts):
            return rows.last_token[self._tensor(plan.rows)], self._tensor(plan.kv_lens) - 1
        ids: list[int] = []
        positions: list[int] = []
        decoding: list[int] = []
        sources: list[int] = []
        for row, tokens, end, prompt in zip(plan.rows, plan.query_lens, plan.kv_lens, plan.prompts, strict=True):
            if prompt is None:
                decoding.append(len(ids))
                sources.append(row)
            ids.extend(prompt or (0,))
            positions.extend(range(end - tokens, end))
        token_ids = self._tensor(ids)
        if decoding:
            token_ids[self._tensor(decoding)] = rows.last_token[self._tensor(sources)]
        return token_ids, self._tensor(positions)

    def _choose(
        self, plan: StepPlan, inputs: StepInput, logits: Tensor, sampling: SamplingInput | None, rows: RowTable
    ) -> HostSampled:
        """Choose on rank 0, tell every rank's rows, bring the choice to the host."""
        # A row that verifies guesses is here several times; its next input comes with the plan, not from its row.
        drafts = zip(plan.chooses, plan.drafted, strict=True)
        chosen = [plan.rows[index] for index, drafted in drafts for _ in range(drafted + 1)]
        if not chosen:
            return HostSampled([], [], [])
        if sampling is None:
            ids = torch.empty(len(chosen), dtype=torch.int64, device=self.device)
            rows.last_token[self._tensor(chosen)] = self._group.broadcast(ids)
            return HostSampled([], [], [])
        for counts_row, tokens in sampling.histories:
            self._sampler.counts.reset(counts_row, tokens)
        sampled = self._sampler(
            logits[: len(chosen)],
            sampling.plan,
            torch.tensor(sampling.uniforms, device=self.device),
            self._tensor(sampling.lengths),
            previous=inputs.token_ids[inputs.logit_rows[: len(chosen)]] if sampling.plan.watermarked else None,
            masks=None if sampling.masks is None else torch.from_numpy(sampling.masks.result()).to(self.device),
        )
        rows.last_token[self._tensor(chosen)] = self._group.broadcast(sampled.ids)
        return sampled.to_host()

    def _score(self, logits: Tensor, targets: tuple[tuple[int, ...], ...]) -> tuple[list[float], ...]:
        """Log-probability of each target under the raw logits; the scored rows are the last ones of `logits`."""
        if not targets:
            return ()
        flat = self._tensor([token for row in targets for token in row])
        scores = iter(logits[-len(flat) :].float().log_softmax(-1).gather(1, flat[:, None])[:, 0].tolist())
        return tuple(list(islice(scores, len(row))) for row in targets)

    def _tensor(self, values: list[int] | tuple[int, ...]) -> Tensor:
        return torch.tensor(values, dtype=torch.int64, device=self.device)


def _logit_rows(plan: StepPlan) -> list[int]:
    """Indices into T: the last positions of each choosing row, then the scored positions of each scored row."""
    starts, total = [], 0
    for tokens in plan.query_lens:
        starts.append(total)
        total += tokens
    ends = [starts[i] + plan.query_lens[i] for i in plan.chooses]
    last = [at for end, drafted in zip(ends, plan.drafted, strict=True) for at in range(end - drafted - 1, end)]
    return last + [starts[i] + offset for i, count in plan.scored for offset in range(count)]
