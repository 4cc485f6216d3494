"""Launches steps: plans them, adds what rank 0 alone knows (parameters, uniforms), hands them to the runner."""

from collections.abc import Iterator
from typing import Protocol

from text_generation_server.cache.tags import PromptWrites
from text_generation_server.device.stream import Pending
from text_generation_server.engine.choosing import ChoosingRows, SamplingInput
from text_generation_server.engine.launched_step import LaunchedStep, StepOutput
from text_generation_server.engine.plan import AllocateCache, Fitting, MeasureMemory, StepPlan
from text_generation_server.engine.planner import PlannedStep, plan_step
from text_generation_server.engine.scoring import ScoredRows
from text_generation_server.engine.sequence import Sequence
from text_generation_server.grammar.masks import MaskMaker
from text_generation_server.grammar.state import TokenSource
from text_generation_server.sampling.params import WatermarkParams
from text_generation_server.sampling.sampler import TokenCounts
from text_generation_server.sampling.uniforms import uniform


class StepRunner(Protocol):
    """What rank 0's engine asks of the device: a `Runner`, alone or with the other ranks behind it."""

    @property
    def counts(self) -> TokenCounts: ...

    @property
    def vocab_size(self) -> int: ...

    @property
    def bytes_per_slot(self) -> int: ...

    @property
    def bytes_per_row(self) -> int: ...

    def allocate(self, command: AllocateCache) -> Pending[None]: ...

    def fitting(self, command: MeasureMemory) -> Pending[Fitting]: ...

    def record_more(self) -> Pending[bool]: ...

    def launch(self, plan: StepPlan, sampling: SamplingInput | None) -> Pending[StepOutput]: ...

    def reserve_adapters(self) -> None: ...

    def put_adapter(self, key: int, place: int) -> object: ...

    def drop_adapter(self, key: int) -> object: ...

    def close(self) -> None: ...


class StepLauncher:
    """Remembers which rows chose last: as long as the same do, the sampler need not plan again."""

    def __init__(self, runner: StepRunner, watermark: WatermarkParams) -> None:
        self._runner = runner
        self._watermark = watermark
        self._masks = MaskMaker(runner.vocab_size)
        self._choosing: list[Sequence] = []
        self._choosing_rows = self._rows([])

    def launch(self, sequences: list[Sequence], writes: PromptWrites) -> LaunchedStep:
        """Enqueue the next step of `sequences`, which must not be empty and are to write `writes`."""
        step = plan_step(sequences)
        output = self._runner.launch(step.plan, self._sampling_input(step))
        place = 0
        for sequence, drafted in zip(step.choosing, step.plan.drafted, strict=True):
            if sequence.grammar is not None:
                sequence.grammar.newest = _token_of(output, place)
            place += drafted + 1
        has_prompts = any(sequence.remaining_prompt for sequence in sequences)
        for sequence in sequences:
            sequence.advance()
        return LaunchedStep(
            sequences, writes, step.choosing, step.plan.drafted, step.scored, output, has_prompts, step.features
        )

    def _sampling_input(self, step: PlannedStep) -> SamplingInput:
        choices = [
            (sequence, sequence.sampled + guess)
            for sequence, drafted in zip(step.choosing, step.plan.drafted, strict=True)
            for guess in range(drafted + 1)
        ]
        choosing = [sequence for sequence, _ in choices]
        if choosing != self._choosing:
            self._choosing, self._choosing_rows = choosing, self._rows(choosing)
        grammars = [s.grammar for s in choosing if s.grammar is not None]
        return SamplingInput(
            rows=self._choosing_rows,
            uniforms=[
                uniform(s.sampling.seed, s.request.generated + chosen) if s.samples else 0.0 for s, chosen in choices
            ],
            lengths=[len(s.request.prompt_ids) + chosen for s, chosen in choices],
            generated=[s.request.generated + chosen for s, chosen in choices],
            histories=tuple(found for s, chosen in choices if not chosen for found in _histories(s)),
            masks=self._masks.start(grammars) if grammars else None,
            scored=ScoredRows(
                tuple(_targets(step, index, count) for index, (_, count) in enumerate(step.plan.scored)),
                tuple(sequence.request.prefill_top_n for sequence in step.scored),
            ),
        )

    def _rows(self, choosing: list[Sequence]) -> ChoosingRows:
        return ChoosingRows(
            [s.sampling for s in choosing],
            [s.request.top_n_tokens for s in choosing],
            [s.counts_rows for s in choosing],
            self._watermark,
        )


def _histories(sequence: Sequence) -> Iterator[tuple[int, tuple[int, ...]]]:
    """What the rows of counts begin with that the sequence holds."""
    held = sequence.counts_rows
    if held.whole is not None:
        yield held.whole, sequence.request.prompt_ids
    if held.answer is not None:
        yield held.answer, sequence.request.generated_ids


def _token_of(output: Pending[StepOutput], place: int) -> TokenSource:
    return lambda: output.result().sampled.ids[place]


def _targets(step: PlannedStep, scored: int, count: int) -> tuple[int, ...]:
    """The prompt tokens that follow the scored positions of the `scored`-th scored row."""
    row, _ = step.plan.scored[scored]
    start = step.plan.seq_lens[row] - step.plan.query_lens[row]
    return step.scored[scored].request.prompt_ids[start + 1 : start + 1 + count]
