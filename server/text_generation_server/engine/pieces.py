"""Steps of few tokens recorded in pieces, from one attention to the next, and replayed whatever rows the tokens are of.

What a prompt's attention does depends on numbers that only the host has, so it is launched as ever; what lies between
does not, and is replayed. A step runs as the smallest recorded number of tokens that holds it. The tokens in excess go
to a slot of their own, attention passes them over, and nobody reads what comes out there.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from text_generation_server.attention.base import AttentionPlan, LayerAttention
from text_generation_server.cache.paged import PagedCache
from text_generation_server.engine.recorder import Recorder
from text_generation_server.models.step import ServedModel, StepInput

TOKENS = (16, 32, 64, 96, 128, 192, 256, 384, 512)
"""Recorded sizes. With more tokens the device works longer on a layer than the host takes to launch it."""


class Interruption:
    """An attention plan for recording: where it is run the recording is interrupted, and replays run the step's plan.

    of_step, tokens: the plan of the step that is replayed, and how many tokens it is for.
    """

    def __init__(self, recorder: Recorder) -> None:
        self.of_step: AttentionPlan | None = None
        self.tokens = 0
        self._recorder = recorder
        self._out: Tensor | None = None

    def run(self, q: Tensor, layer: LayerAttention, cache: PagedCache, out: Tensor | None = None) -> Tensor:
        """See `AttentionPlan`. All layers answer in one tensor: each answer is read before the next is written."""
        if self._out is None:
            self._out = q.new_zeros(len(q), q.shape[1] * q.shape[2])
        self._recorder.interrupt(partial(self._attend, self._recorder.borrowed(q), layer, cache))
        return self._out

    def _attend(self, q: Tensor, layer: LayerAttention, cache: PagedCache) -> None:
        assert self.of_step is not None and self._out is not None
        self.of_step.run(q[: self.tokens], layer, cache, self._out[: self.tokens])


@dataclass(frozen=True, slots=True)
class TokenGraph:
    """A recorded step. inputs: ids, positions, spans and slots of its tokens [4, size] int64."""

    inputs: Tensor
    attention: Interruption
    replay: Callable[[], Tensor]


class TokenGraphs:
    """All recorded sizes of one model and cache, whose last slot belongs to no sequence."""

    def __init__(self, model: ServedModel, cache: PagedCache) -> None:
        self._model = model
        self._cache = cache
        padding = torch.tensor([0, 0, 1, cache.num_slots - 1], device=model.state.device)
        self._padding = padding[:, None]
        self._graphs: list[TokenGraph] = []

    def record(self, sizes: Sequence[int], recorder: Recorder) -> None:
        """Record steps of these numbers of tokens; the largest first, whose memory the others then share."""
        for size in sorted(sizes, reverse=True):
            inputs = self._padding.repeat(1, size)
            attention = Interruption(recorder)
            replay = recorder.record(partial(self._hidden, inputs, attention))
            self._graphs.append(TokenGraph(inputs, attention, replay))
        self._graphs.sort(key=lambda graph: graph.inputs.shape[1])

    def run(self, step: StepInput) -> Tensor | None:
        """Hidden states [T, …] of a step, to be used before the next step; None if no graph holds it."""
        tokens = len(step.token_ids)
        graph = next((graph for graph in self._graphs if graph.inputs.shape[1] >= tokens), None)
        if graph is None:
            return None
        graph.inputs[:, :tokens] = torch.stack((step.token_ids, step.positions, step.spans, step.slots))
        graph.inputs[:, tokens:] = self._padding
        graph.attention.of_step, graph.attention.tokens = step.attention, tokens
        return graph.replay()[:tokens]

    def _hidden(self, inputs: Tensor, attention: Interruption) -> Tensor:
        ids, positions, spans, slots = inputs
        step = StepInput(ids, positions, spans, slots, logit_rows=None, attention=attention, cache=self._cache)
        return self._model.hidden(step)
