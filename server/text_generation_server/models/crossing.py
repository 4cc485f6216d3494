"""Decoders some of whose layers attend to images: gated cross-attention (arXiv 2204.14198, section 2.2).

Keys and values of an image are made once, when it is read (`models/vision/crossing.py`); which of them a token sees,
its row and position tell. All else is `models/decoder.py`'s. Knows neither specs nor checkpoints.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, cast

from torch import Tensor

from text_generation_server.attention.base import LayerAttention
from text_generation_server.attention.viewing import SeenPlan, ViewingAttention
from text_generation_server.cache.image_keys import ImageKeysSpec, RowViews, ViewsSpec
from text_generation_server.cache.layout import RowLayout
from text_generation_server.cache.paged import PagedCache
from text_generation_server.cache.states import StateSpec
from text_generation_server.layers.linear import ColumnParallelLinear, LinearStep, RowParallelLinear
from text_generation_server.layers.norm import Norm
from text_generation_server.layers.qk_norm import QkNorm
from text_generation_server.models.decoder import Block, Decoder, DenseMlp, HiddenState, LayerStep
from text_generation_server.models.step import StepInput


@dataclass(frozen=True, slots=True)
class CrossPlan:
    """Preparations of a step, or of those that it is replayed for. singles: whether each row has one token.

    attention: an `AttentionPlan`; of replayed steps a `DecodePlan` or a `TokenPlan`.
    """

    attention: Any
    singles: bool

    def suits(self, *lens: Sequence[int]) -> bool:
        """See `DecodePreparation` and `TokenPreparation`: attention to images suits always."""
        return bool(self.attention.suits(*lens))

    def prepare(self, *numbers: Sequence[int]) -> None:
        """See there."""
        self.attention.prepare(*numbers)


@dataclass(frozen=True, slots=True)
class CrossStep(LayerStep):
    """What layers share of a step. seen: attention to images, whose keys and values are in `images`."""

    seen: SeenPlan
    images: PagedCache


@dataclass(frozen=True, slots=True)
class ImageAttention:
    """Queries of tokens to keys of images, without any notion of distance."""

    queries: ColumnParallelLinear
    norm: QkNorm | None
    out: RowParallelLinear
    head_dim: int
    layer: LayerAttention

    def __call__(self, x: Tensor, step: CrossStep) -> Tensor:
        """[T, hidden] to [L, hidden]."""
        queries = self.queries(x, step.tokens).view(len(x), -1, self.head_dim)
        if self.norm is not None:
            self.norm(queries)
        return self.out(step.wanted(step.seen.run(queries, self.layer, step.images)), step.outputs)


@dataclass(frozen=True, slots=True)
class GatedCrossBlock:
    """x += g1 · attention(n1(x), images); x += g2 · mlp(n2(x)); satisfies `Block`.

    gates: g1, g2, of one number or [hidden]. blind: whether the second is for tokens that see no image.
    """

    norm1: Norm
    attention: ImageAttention
    norm2: Norm
    mlp: DenseMlp
    gates: tuple[Tensor, Tensor]
    blind: bool

    def __call__(self, delta: Tensor, residual: Tensor, step: LayerStep) -> HiddenState:
        """See `Block`."""
        crossing = cast(CrossStep, step)
        attended = self.attention(self.norm1.of_sum(delta, residual), crossing).mul_(self.gates[0])
        residual = step.wanted(residual)
        made = self.mlp(self.norm2.of_sum(attended, residual), step.outputs).mul_(self.gates[1])
        if not self.blind:
            made.masked_fill_(step.wanted(crossing.seen.blind)[:, None], 0.0)
        return made, residual


@dataclass(frozen=True, slots=True)
class PrecededBlock:
    """A layer that attends to images, then one of the decoder's own; satisfies `Block`."""

    first: Block
    second: Block

    def __call__(self, delta: Tensor, residual: Tensor, step: LayerStep) -> HiddenState:
        """See `Block`."""
        return self.second(*self.first(delta, residual, replace(step, outputs=step.tokens)), step)


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossDecoder(Decoder):
    """One rank of a model; satisfies `ServedModel`. images, views: its other states."""

    images: ImageKeysSpec
    views: ViewsSpec
    viewing: ViewingAttention

    @classmethod
    def of(cls, decoder: Decoder, images: ImageKeysSpec, views: ViewsSpec, viewing: ViewingAttention) -> "CrossDecoder":
        """A decoder some of whose blocks attend to images."""
        kept = {each.name: getattr(decoder, each.name) for each in fields(decoder)}
        return cls(
            **{**kept, "records": decoder.records and viewing.records}, images=images, views=views, viewing=viewing
        )

    @property
    def states(self) -> tuple[StateSpec, ...]:
        """See `ServedModel`."""
        return self.kv, self.images, self.views

    @property
    def mixing(self) -> str:
        """See `ServedModel`."""
        return f"{self.attention.name} attention, and to images"

    def prepare(self, layout: RowLayout) -> CrossPlan:
        """See `ServedModel`."""
        return CrossPlan(self.attention.plan(layout), max(layout.query_lens) == 1)

    def decode_plans(self, rows: Tensor, seq_lens: Tensor, block_table: Tensor) -> Sequence[CrossPlan]:
        """See `ServedModel`."""
        return [CrossPlan(plan, True) for plan in self.attention.decode_plans(rows, seq_lens, block_table)]

    def token_plans(self, tokens: int, block_table: Tensor) -> Sequence[CrossPlan]:
        """See `ServedModel`."""
        return [CrossPlan(plan, False) for plan in self.attention.token_plans(tokens, block_table)]

    def layer_step(self, step: StepInput, tokens: LinearStep) -> CrossStep:
        """See `Decoder`."""
        prepared = cast(CrossPlan, step.prepared)
        plain = Decoder.layer_step(self, replace(step, prepared=prepared.attention), tokens)
        images, views = cast(PagedCache, step.states[1]), cast(RowViews, step.states[2])
        seen = self.viewing.plan(views.windows, *views.of(step.rows, step.positions), prepared.singles)
        return CrossStep(**{each.name: getattr(plain, each.name) for each in fields(plain)}, seen=seen, images=images)
