"""The one model that runs every spec of an encoder and a decoder. Knows neither specs nor checkpoints.

The encoder reads a sequence's source once, when it is admitted, and leaves keys and values for the decoder's
cross-attention in the source's slots. From there on a step is a decoder's. The hidden state travels as a pair, as in
`models/decoder.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from text_generation_server.attention.base import AttentionPlan, LayerAttention
from text_generation_server.attention.crossing import CrossingAttention, CrossingStep, EachTokenStep
from text_generation_server.cache.layout import RowLayout
from text_generation_server.cache.paged import PagedCache, PagedSpec
from text_generation_server.cache.sources import Sources, SourcesSpec
from text_generation_server.cache.states import State
from text_generation_server.layers.embedding import ParallelLMHead, VocabParallelEmbedding
from text_generation_server.layers.linear import ColumnParallelLinear, LinearStep, RowParallelLinear
from text_generation_server.layers.norm import Norm
from text_generation_server.models.decoder import DenseMlp, HiddenState, LayerStep, SelfAttention, SequentialBlock
from text_generation_server.models.step import SourceInput, StepInput


class CrossAttention:
    """Queries of the decoder's tokens to keys and values that the encoder left, without any notion of distance."""

    def __init__(
        self, queries: ColumnParallelLinear, out: RowParallelLinear, head_dim: int, layer: LayerAttention
    ) -> None:
        self._queries, self._out, self._head_dim, self._layer = queries, out, head_dim, layer

    def __call__(self, x: Tensor, step: LayerStep, plan: AttentionPlan) -> Tensor:
        """[T, hidden] to the same shape."""
        queries = self._queries(x, step.tokens).view(len(x), -1, self._head_dim)
        return self._out(plan.run(queries, self._layer, step.cache), step.tokens)


@dataclass(frozen=True, slots=True)
class CrossBlock:
    """x += attention(n1(x)); x += cross(n2(x)); x += mlp(n3(x))."""

    norm1: Norm
    attention: SelfAttention
    norm2: Norm
    cross: CrossAttention
    norm3: Norm
    mlp: DenseMlp

    def __call__(self, delta: Tensor, residual: Tensor, step: LayerStep, plan: AttentionPlan) -> HiddenState:
        """[T, hidden] each to the same shapes."""
        delta = self.attention(self.norm1.of_sum(delta, residual), step)
        delta = self.cross(self.norm2.of_sum(delta, residual), step, plan)
        return self.mlp(self.norm3.of_sum(delta, residual), step.tokens), residual


@dataclass(frozen=True, slots=True)
class Encoder:
    """Satisfies `SourceEncoder`. keys_values: a linear for each layer of the decoder, keys first.

    attention: of encoder and decoder.
    residual_dtype: of the stream that layers add to, here and in the decoder.
    """

    start: int
    embedding: VocabParallelEmbedding
    blocks: Sequence[SequentialBlock]
    final_norm: Norm
    attention: CrossingAttention
    keys_values: Sequence[ColumnParallelLinear]
    head_dim: int
    residual_dtype: torch.dtype

    def __call__(self, source: SourceInput, states: Sequence[State]) -> None:
        """See `SourceEncoder`. Its own keys and values pass through the same slots, a layer after the other."""
        cache, sources = cast(PagedCache, states[0]), cast(Sources, states[1])
        sources.hold(source.rows, torch.split(source.slots, list(source.lens)))
        plan = self.attention.reading(sources.table, source.rows, source.lens)
        tokens = LinearStep(None)
        step = LayerStep(plan, cache, source.slots, (), tokens, tokens)
        delta = self.embedding(source.token_ids)
        residual = torch.zeros_like(delta, dtype=self.residual_dtype)
        for block in self.blocks:
            delta, residual = block(delta, residual, step)
        read = self.final_norm.of_sum(delta, residual)
        for layer, linear in enumerate(self.keys_values):
            cache.write(layer, source.slots, linear(read, tokens).view(len(read), -1, self.head_dim))


@dataclass(frozen=True, slots=True)
class Seq2SeqModel:
    """One rank of a model; satisfies `ServedModel`. kv: of the decoder's tokens and of sources alike.

    attention: of the decoder.
    """

    kv: PagedSpec
    attention: CrossingAttention
    vocab_size: int
    max_positions: int | None
    encoder: Encoder
    embedding: VocabParallelEmbedding
    blocks: Sequence[CrossBlock]
    final_norm: Norm
    head: ParallelLMHead
    linears: tuple[()] = ()
    reader: None = None

    @property
    def records(self) -> bool:
        """See `ServedModel`."""
        return self.attention.records

    @property
    def mixing(self) -> str:
        """See `ServedModel`."""
        return f"{self.attention.name} attention to sources"

    @property
    def states(self) -> tuple[PagedSpec, SourcesSpec]:
        """See `ServedModel`."""
        return self.kv, SourcesSpec(self.device)

    @property
    def dtype(self) -> torch.dtype:
        """See `ServedModel`."""
        return self.kv.dtype

    @property
    def device(self) -> torch.device:
        """See `ServedModel`."""
        return self.kv.device

    def prepare(self, layout: RowLayout) -> CrossingStep:
        """See `ServedModel`: plans need the sources, which are in the states."""
        return self.attention.step(layout)

    def decode_plans(self, rows: Tensor, seq_lens: Tensor, block_table: Tensor) -> Sequence[EachTokenStep]:
        """See `ServedModel`."""
        return (self.attention.replayed(block_table),)

    def token_plans(self, tokens: int, block_table: Tensor) -> Sequence[EachTokenStep]:
        """See `ServedModel`."""
        return (self.attention.replayed(block_table),)

    def hidden(self, step: StepInput) -> Tensor:
        """See `ServedModel`."""
        cache, sources = cast(PagedCache, step.states[0]), cast(Sources, step.states[1])
        own, across = cast(CrossingStep, step.prepared).plans(step.rows, step.positions, sources)
        tokens = LinearStep(None)
        layer_step = LayerStep(own, cache, step.slot_mapping, (), tokens, tokens)
        delta = self.embedding(step.token_ids)
        residual = torch.zeros_like(delta, dtype=self.encoder.residual_dtype)
        for block in self.blocks:
            delta, residual = block(delta, residual, layer_step, across)
        hidden = self.final_norm.of_sum(delta, residual)
        return hidden if step.logit_rows is None else hidden[step.logit_rows]

    def logits(self, hidden: Tensor, rows: Tensor | None) -> Tensor:
        """See `ServedModel`."""
        return self.head(hidden if rows is None else hidden[rows])
