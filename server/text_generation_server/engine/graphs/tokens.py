"""Steps with prompts recorded once for certain numbers of tokens and replayed. Knows no device: a recorder does that.

A step of n tokens runs as the smallest recorded size that holds it, whatever rows they are of. The tokens in excess are
of a row of their own; attention passes them over, and nobody reads what comes out there. Everything that differs
between steps is read from device memory.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from text_generation_server.cache.layout import TokenPreparation
from text_generation_server.cache.rows import RowTable
from text_generation_server.cache.states import State
from text_generation_server.device.copies import fill
from text_generation_server.device.recorder import Recorder
from text_generation_server.engine.plan import StepPlan
from text_generation_server.engine.token_arrays import token_arrays
from text_generation_server.models.step import ServedModel, StepBuilder

TOKENS = (16, 64, 128, 256, 384, 512, 640, 768, 896, 1024, 1280, 1536, 2048)
"""Recorded sizes. With more tokens the device works longer on a layer than the host takes to launch it."""


@dataclass(frozen=True, slots=True)
class TokenGraph:
    """A recorded step. inputs: ids (or NEWEST), positions and rows of its tokens [3, size] int64 on the device."""

    inputs: Tensor
    plan: TokenPreparation
    replay: Callable[[], Tensor]


class TokenGraphs:
    """All recorded sizes of one model, its states and a row table. `padding_row` is held by no sequence.

    adapted: whether rows may have adapters.
    """

    def __init__(
        self, model: ServedModel, states: Sequence[State], rows: RowTable, padding_row: int, adapted: bool = False
    ) -> None:
        self._model = model
        self._rows = rows
        self._build = StepBuilder(rows, states, adapted)
        self._padding = np.array([[0], [0], [padding_row]])
        self._graphs: list[TokenGraph] = []

    def __len__(self) -> int:
        return len(self._graphs)

    def record(self, sizes: Sequence[int], recorder: Recorder) -> None:
        """Record steps of these numbers of tokens; the largest first, whose memory the others then share."""
        for size in sorted(sizes, reverse=True):
            inputs = torch.from_numpy(self._padding.repeat(size, 1)).to(self._rows.block_table.device)
            for plan in self._model.token_plans(size, self._rows.block_table):
                replay = recorder.record(partial(self._hidden, inputs, plan))
                self._graphs.append(TokenGraph(inputs, plan, replay))
        self._graphs.sort(key=lambda graph: graph.inputs.shape[1])

    def run(self, plan: StepPlan) -> tuple[Tensor, Callable[[], Tensor]] | None:
        """Hidden states [T, …] of a step and what makes its tokens' ids [T], both to be used before the next step.

        None if no graph is for it.
        """
        tokens = sum(plan.query_lens)
        for graph in self._graphs if not plan.blocks else ():
            if graph.inputs.shape[1] >= tokens and graph.plan.suits(plan.query_lens, plan.seq_lens):
                self._fill(graph.inputs, plan, tokens)
                graph.plan.prepare(plan.rows, plan.query_lens, plan.seq_lens)
                return graph.replay()[:tokens], partial(self._ids, graph.inputs[:, :tokens])
        return None

    def _fill(self, inputs: Tensor, plan: StepPlan, tokens: int) -> None:
        more = self._padding.repeat(inputs.shape[1] - tokens, 1)
        fill(inputs, *np.concatenate((token_arrays(plan), more), axis=1))

    def _ids(self, inputs: Tensor) -> Tensor:
        ids, _, rows = inputs
        return self._build.token_ids(ids, rows)

    def _hidden(self, inputs: Tensor, plan: TokenPreparation) -> Tensor:
        _, positions, rows = inputs
        reader = self._model.reader
        pictured = reader is not None and reader.views is None
        return self._model.hidden(self._build(self._ids(inputs), positions, rows, plan, pictured=pictured))
