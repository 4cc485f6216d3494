"""Decode steps recorded once for certain numbers of rows and replayed. Knows no device: a recorder does that part.

A step of n rows runs as the smallest recorded size that holds it. The rows in excess are a row of their own, whose one
token goes to a slot of its own; nobody reads what comes out there. Everything that differs between steps is read from
device memory by row, so that a replay needs one small copy and what attention prepares on the host.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from text_generation_server.cache.layout import DecodePreparation
from text_generation_server.cache.rows import RowTable
from text_generation_server.cache.states import State
from text_generation_server.device.copies import fill
from text_generation_server.device.recorder import Recorder
from text_generation_server.engine.plan import StepPlan
from text_generation_server.models.step import ServedModel, StepBuilder, forward

LARGEST = 256
"""With more rows the device works longer on a step than the host takes to launch it."""


@dataclass(frozen=True, slots=True)
class DecodeGraph:
    """A recorded step of `inputs.shape[1]` rows. inputs: their rows and key lengths [2, rows] int64 on the device."""

    inputs: Tensor
    plan: DecodePreparation
    replay: Callable[[], Tensor]


class DecodeGraphs:
    """All recorded sizes of one model, its states and a row table. `padding_row` is held by no sequence.

    adapted: whether rows may have adapters.
    """

    def __init__(
        self, model: ServedModel, states: Sequence[State], rows: RowTable, padding_row: int, adapted: bool = False
    ) -> None:
        self._model = model
        self._rows = rows
        self._build = StepBuilder(rows, states, adapted)
        self._padding_row = padding_row
        self._graphs: list[DecodeGraph] = []

    def __len__(self) -> int:
        return len(self._graphs)

    def record(self, sizes: Sequence[int], recorder: Recorder) -> None:
        """Record steps of these numbers of rows; the largest first, whose memory the others then share."""
        for size in sorted(sizes, reverse=True):
            inputs = torch.empty(2, size, dtype=torch.int64, device=self._rows.block_table.device)
            for plan in self._model.decode_plans(inputs[0], inputs[1], self._rows.block_table):
                self._fill(inputs, [], [])
                plan.prepare([1] * size)
                replay = recorder.record(partial(self._forward, inputs, plan))
                self._graphs.append(DecodeGraph(inputs, plan, replay))
        self._graphs.sort(key=lambda graph: graph.inputs.shape[1])

    def run(self, plan: StepPlan) -> tuple[Tensor, Tensor] | None:
        """Logits [n, vocab] of a step of n rows, and the rows [n] int64; None if no graph is for it.

        Both are to be used before the next step.
        """
        if any(plan.prompts) or len(plan.chooses) < len(plan.rows):
            return None
        rows = len(plan.rows)
        for graph in self._graphs:
            size = graph.inputs.shape[1]
            if size >= rows and graph.plan.suits(seq_lens := [*plan.seq_lens, *[1] * (size - rows)]):
                self._fill(graph.inputs, plan.rows, plan.seq_lens)
                graph.plan.prepare(seq_lens)
                return graph.replay()[:rows], graph.inputs[0, :rows]
        return None

    def _fill(self, inputs: Tensor, rows: Sequence[int], seq_lens: Sequence[int]) -> None:
        more = inputs.shape[1] - len(rows)
        fill(inputs, [*rows, *[self._padding_row] * more], [*seq_lens, *[1] * more])

    def _forward(self, inputs: Tensor, plan: DecodePreparation) -> Tensor:
        rows, positions = inputs[0], inputs[1] - 1
        return forward(self._model, self._build(self._build.newest(rows), positions, rows, plan))


def usual_sizes(most: int) -> list[int]:
    """Numbers of rows worth recording, up to `most`: close together where a step's cost grows with each row.

    >>> usual_sizes(20)
    [1, 2, 4, 8, 16, 20]
    """
    steps = [1, 2, 4, *range(8, 64, 8), *range(64, 128, 16), *range(128, LARGEST + 1, 32)]
    return [*(size for size in steps if size < most), min(most, LARGEST)]


def sizes_up_to(most: int, sizes: Sequence[int]) -> tuple[int, ...]:
    """Of these numbers of rows those that steps of up to `most` rows need.

    >>> sizes_up_to(5, (1, 2, 4, 8, 16)), sizes_up_to(4, (1, 2)), sizes_up_to(4, ())
    ((1, 2, 4, 5), (1, 2), ())
    """
    fewer = {size for size in sizes if size < most}
    return tuple(sorted(fewer if len(fewer) == len(sizes) else {*fewer, most}))
