"""The one model that runs every spec of recurrences alone. Knows neither specs nor checkpoints: see `build_recurrent`.

The hidden state travels as a pair, as in `models/decoder.py`: "add, then norm" is one call.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from text_generation_server.cache.layout import RowLayout
from text_generation_server.cache.recurrent import RecurrentState, RecurrentStateSpec
from text_generation_server.layers.causal_conv import CausalConv
from text_generation_server.layers.embedding import ParallelLMHead, VocabParallelEmbedding
from text_generation_server.layers.linear import Adaptable, ColumnParallelLinear, LinearStep, RowParallelLinear
from text_generation_server.layers.norm import Norm
from text_generation_server.layers.recurrence import Answers, RecurrentPlan, ReplayedPlan
from text_generation_server.layers.selective_scan import Selected, SelectiveScan
from text_generation_server.layers.ssd import Ssd
from text_generation_server.models.decoder import HiddenState
from text_generation_server.models.step import StepInput, at_least_one


@dataclass(frozen=True, slots=True)
class RecurrentStep:
    """What the layers of one step share. tokens, outputs: what linears may know, as in `LayerStep` of decoders."""

    plan: RecurrentPlan
    state: RecurrentState
    tokens: LinearStep
    outputs: LinearStep

    def wanted(self, x: Tensor) -> Tensor:
        """[T, …] to [L, …]."""
        rows = self.outputs.wanted
        return x if rows is None else x[rows]


@dataclass(frozen=True, slots=True)
class Selection:
    """Makes time steps, B and C from what the convolution made: two linears, and norms where a model has them.

    parts: the numbers of a time step before its own linear, of B and of C. eps: of the norms of each; None for none.
    """

    parts: RowParallelLinear
    steps: ColumnParallelLinear
    sizes: tuple[int, int, int]
    eps: float | None

    def __call__(self, x: Tensor, step: LinearStep) -> Selected:
        """[T, D] of a rank; B and C are the same on every rank."""
        low, write, read = torch.split(self.parts(x, step), list(self.sizes), -1)
        if self.eps is not None:
            low, write, read = (F.rms_norm(part, part.shape[-1:], None, self.eps) for part in (low, write, read))
        return Selected(self.steps(low, step), write, read)


class SsmMixer:
    """Projection to inputs and gates, convolution, selective scan, projection out. layer: whose state it keeps."""

    def __init__(
        self,
        projection_in: ColumnParallelLinear,
        conv: CausalConv,
        selection: Selection,
        scan: SelectiveScan,
        projection_out: RowParallelLinear,
        layer: int,
    ) -> None:
        self._in = projection_in
        self._conv = conv
        self._selection = selection
        self._scan = scan
        self._out = projection_out
        self._layer = layer

    def __call__(self, x: Tensor, step: RecurrentStep) -> Tensor:
        """[T, hidden] to [L, hidden]."""
        inputs, gate = self._in(x, step.tokens).chunk(2, dim=-1)
        inputs = self._conv(inputs, step.state.windows[self._layer], step.plan)
        selected = self._selection(inputs, step.tokens)
        y = self._scan(inputs, gate, selected, step.state.sums[self._layer], step.plan)
        return self._out(step.wanted(y), step.outputs)


class SsdMixer:
    """Projection to gates, inputs and steps, convolution, recurrence of heads, norm, projection out."""

    def __init__(
        self,
        projection_in: ColumnParallelLinear,
        conv: CausalConv,
        scan: Ssd,
        norm: Callable[[Tensor], Tensor],
        projection_out: RowParallelLinear,
        sizes: tuple[int, int, int],
        layer: int,
    ) -> None:
        """sizes: gates, what the convolution sees, steps. layer: whose state it keeps."""
        self._in, self._conv, self._scan, self._norm, self._out = projection_in, conv, scan, norm, projection_out
        self._sizes = list(sizes)
        self._layer = layer

    def __call__(self, x: Tensor, step: RecurrentStep) -> Tensor:
        """[T, hidden] to [L, hidden]."""
        gate, inputs, steps = torch.split(self._in(x, step.tokens), self._sizes, -1)
        inputs = self._conv(inputs, step.state.windows[self._layer], step.plan)
        y = self._scan(inputs, gate, steps, step.state.sums[self._layer], step.plan)
        return self._out(self._norm(step.wanted(y)), step.outputs)


@dataclass(frozen=True, slots=True)
class RecurrentBlock:
    """x += mixer(norm(x))."""

    norm: Norm
    mixer: SsmMixer | SsdMixer

    def __call__(self, delta: Tensor, residual: Tensor, step: RecurrentStep) -> HiddenState:
        """[T, hidden] each to [L, hidden] each."""
        out = self.mixer(self.norm.of_sum(delta, residual), step)
        return out, step.wanted(residual)


@dataclass(frozen=True, slots=True)
class RecurrentModel:
    """One rank of a model; satisfies `ServedModel`.

    residual_dtype: of the stream that layers add to. answers: of layers in steps that are replayed.
    """

    state: RecurrentStateSpec
    vocab_size: int
    max_positions: int | None
    embedding: VocabParallelEmbedding
    blocks: Sequence[RecurrentBlock]
    linears: Sequence[Adaptable]
    final_norm: Norm
    head: ParallelLMHead
    residual_dtype: torch.dtype
    answers: Answers = field(default_factory=Answers)
    mixing: str = "a recurrence"
    records: bool = True
    encoder: None = None
    reader: None = None

    @property
    def states(self) -> tuple[RecurrentStateSpec]:
        """See `ServedModel`."""
        return (self.state,)

    @property
    def dtype(self) -> torch.dtype:
        """See `ServedModel`."""
        return self.state.dtype

    @property
    def device(self) -> torch.device:
        """See `ServedModel`."""
        return self.state.device

    def prepare(self, layout: RowLayout) -> RecurrentPlan:
        """See `ServedModel`."""
        return RecurrentPlan.of(layout)

    def decode_plans(self, rows: Tensor, seq_lens: Tensor, block_table: Tensor) -> Sequence[RecurrentPlan]:
        """See `ServedModel`: whatever is kept is found by row."""
        return (RecurrentPlan.of_singles(rows),)

    def token_plans(self, tokens: int, block_table: Tensor) -> Sequence[ReplayedPlan]:
        """See `ServedModel`."""
        return (ReplayedPlan(tokens, self.device, self.answers),)

    def hidden(self, step: StepInput) -> Tensor:
        """See `ServedModel`."""
        delta = self.embedding(step.token_ids)
        residual = torch.zeros_like(delta, dtype=self.residual_dtype)
        tokens = LinearStep(step.adapters)
        prepared, state = cast(RecurrentPlan | ReplayedPlan, step.prepared), cast(RecurrentState, step.states[0])
        layer_step = RecurrentStep(prepared.plan, state, tokens, tokens)
        *blocks, last = self.blocks
        for block in blocks:
            delta, residual = block(delta, residual, layer_step)
        outputs = tokens.narrowed(at_least_one(step.logit_rows))
        delta, residual = last(delta, residual, replace(layer_step, outputs=outputs))
        hidden = self.final_norm.of_sum(delta, residual)
        return hidden if step.logit_rows is None else hidden[: len(step.logit_rows)]

    def logits(self, hidden: Tensor, rows: Tensor | None) -> Tensor:
        """See `ServedModel`."""
        return self.head(hidden if rows is None else hidden[rows])
