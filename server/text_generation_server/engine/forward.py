"""Runs the model on a step plan, from host numbers to logits; replays it where such a step is recorded."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from text_generation_server.cache.layout import RowLayout
from text_generation_server.cache.rows import RowTable
from text_generation_server.cache.states import State
from text_generation_server.device.copies import upload
from text_generation_server.engine.graphs.recorded import RecordedSteps
from text_generation_server.engine.plan import StepPlan
from text_generation_server.engine.token_arrays import logit_rows, token_arrays
from text_generation_server.models.step import NEWEST, ServedModel, StepBuilder, StepInput


@dataclass(frozen=True, slots=True)
class Forwarded:
    """What came of a step of R rows.

    logits: [L, vocab], first those that tokens are chosen by, then those that prompts are scored by.
    rows: the plan's [R] int64. newest: makes the input tokens that the logits follow [L] int64.
    """

    logits: Tensor
    rows: Tensor
    newest: Callable[[], Tensor]


class StepForward:
    """A model with its states, its rows and its recorded steps.

    whole: up to so many tokens go through all layers whole, as they do where a step is replayed: products of another
    number of rows may be rounded otherwise. Of longer steps the last layer goes on with the wanted tokens only.
    """

    def __init__(
        self, model: ServedModel, states: Sequence[State], rows: RowTable, recorded: RecordedSteps, whole: int = 0
    ) -> None:
        self._whole = whole
        self._model = model
        self._rows = rows
        self._builders = {adapted: StepBuilder(rows, states, adapted) for adapted in (False, True)}
        self._recorded = recorded

    def __call__(self, plan: StepPlan) -> Forwarded:
        """Enqueue the forward of one step."""
        recorded, build = self._recorded.of(plan), self._builders[plan.adapted]
        if (replayed := recorded.decodes.run(plan)) is not None:
            logits, rows = replayed
            return Forwarded(logits, rows, lambda: build.newest(rows))
        if (found := recorded.tokens.run(plan)) is not None:
            hidden, ids = found
            at, rows = upload(self._device, logit_rows(plan), plan.rows)
            return Forwarded(self._model.logits(hidden, at), rows, lambda: ids()[at])
        one_each = not any(plan.prompts) and len(plan.chooses) == len(plan.rows)
        step, rows, wanted = self._decode_input(plan, build) if one_each else self._input(plan, build)
        hidden = self._model.hidden(step)
        logits = self._model.logits(hidden, wanted if step.logit_rows is None else None)
        return Forwarded(logits, rows, lambda: _chosen(step.token_ids, wanted))

    def _decode_input(self, plan: StepPlan, build: StepBuilder) -> tuple[StepInput, Tensor, Tensor | None]:
        """Each row's newest token."""
        rows, seq_lens, ends = upload(self._device, plan.rows, plan.seq_lens, range(len(plan.rows) + 1))
        layout = RowLayout(plan.rows, plan.query_lens, plan.seq_lens, self._rows.block_table, rows, seq_lens, ends)
        prepared = self._model.prepare(layout)
        return build(build.newest(rows), seq_lens - 1, rows, prepared), rows, None

    def _input(self, plan: StepPlan, build: StepBuilder) -> tuple[StepInput, Tensor, Tensor | None]:
        """Tokens that the plan brings, and where it brings none the row's newest; and which logits are wanted."""
        arrays = token_arrays(plan)
        ids, positions, row_of, rows, seq_lens, ends, at = upload(
            self._device,
            *arrays,
            plan.rows,
            plan.seq_lens,
            [*accumulate(plan.query_lens, initial=0)],
            logit_rows(plan),
        )
        if None in plan.prompts:
            ids = build.token_ids(ids, row_of)
        lens = plan.query_lens, plan.seq_lens
        layout = RowLayout(plan.rows, *lens, self._rows.block_table, rows, seq_lens, ends, plan.blocks)
        prepared = self._model.prepare(layout)
        pictured = bool(arrays[0].min() < NEWEST)
        return build(ids, positions, row_of, prepared, at if len(ids) > self._whole else None, pictured), rows, at

    @property
    def _device(self) -> torch.device:
        return self._rows.block_table.device


def _chosen(values: Tensor, at: Tensor | None) -> Tensor:
    return values if at is None else values[at]
