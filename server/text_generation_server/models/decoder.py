"""The one decoder that runs every spec. Knows neither specs nor checkpoints: `build.py` hands it finished parts.

The hidden state travels as a pair (last branch's output, residual stream): "add, then norm" is one call everywhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from text_generation_server.attention.base import AttentionBackend, AttentionPlan, LayerAttention
from text_generation_server.cache.paged import PagedCache, StateSpec
from text_generation_server.distributed.group import TensorParallel
from text_generation_server.layers.activation import Elementwise
from text_generation_server.layers.embedding import ParallelLMHead, VocabParallelEmbedding
from text_generation_server.layers.linear import ColumnParallelLinear, RowParallelLinear
from text_generation_server.layers.norm import Norm, add_norm
from text_generation_server.layers.rotary import Angles, Rotary
from text_generation_server.models.step import StepInput


@dataclass(frozen=True, slots=True)
class LayerStep:
    """What the layers of one step share. angles: None where positions are not rotary."""

    attention: AttentionPlan
    cache: PagedCache
    angles: Angles | None


class SelfAttention:
    """One fused projection to queries, keys and values, rotation, attention, output projection."""

    def __init__(
        self,
        qkv: ColumnParallelLinear,
        out: RowParallelLinear,
        rotary: Rotary | None,
        kv_heads: int,
        head_dim: int,
        layer: LayerAttention,
    ) -> None:
        self._qkv = qkv
        self._out = out
        self._rotary = rotary
        self._kv_heads = kv_heads
        self._head_dim = head_dim
        self._layer = layer

    def __call__(self, x: Tensor, step: LayerStep) -> Tensor:
        """[T, hidden] to [T, hidden]."""
        return self._out(self._attend(x, step))

    def partial(self, x: Tensor, step: LayerStep) -> Tensor:
        """This rank's part of the sum."""
        return self._out.partial(self._attend(x, step))

    def _attend(self, x: Tensor, step: LayerStep) -> Tensor:
        qkv = self._qkv(x).view(x.shape[0], -1, self._head_dim)  # [T, H + 2 K, d]
        if self._rotary is not None and step.angles is not None:
            self._rotary.rotate(qkv[:, : -self._kv_heads], step.angles)
        kv = 2 * self._kv_heads
        return step.attention.run(qkv[:, :-kv], qkv[:, -kv:], self._layer, step.cache)


class Mlp:
    """`down(act(up(x)))`; with a gated activation `up` gives both halves."""

    def __init__(self, up: ColumnParallelLinear, activation: Elementwise, down: RowParallelLinear) -> None:
        self._up = up
        self._activation = activation
        self._down = down

    def __call__(self, x: Tensor) -> Tensor:
        """[T, hidden] to [T, hidden]."""
        return self._down(self._activation(self._up(x)))

    def partial(self, x: Tensor) -> Tensor:
        """This rank's part of the sum."""
        return self._down.partial(self._activation(self._up(x)))


class Block(Protocol):
    """A layer: adds the last branch's output to the residual stream, in place, and returns its own branch's output."""

    def __call__(self, delta: Tensor, residual: Tensor, step: LayerStep) -> Tensor:
        """[T, hidden] each."""


class SequentialBlock:
    """x += attention(n1(x)); x += mlp(n2(x))"""

    def __init__(self, norm1: Norm, attention: SelfAttention, norm2: Norm, mlp: Mlp) -> None:
        self._norm1, self._attention, self._norm2, self._mlp = norm1, attention, norm2, mlp

    def __call__(self, delta: Tensor, residual: Tensor, step: LayerStep) -> Tensor:
        """See `Block`."""
        attended = self._attention(add_norm(self._norm1, delta, residual), step)
        return self._mlp(add_norm(self._norm2, attended, residual))


class ParallelBlock:
    """y = n1(x); x += attention(y) + mlp(y). Summed over branches before ranks: one all-reduce a layer."""

    def __init__(self, norm: Norm, attention: SelfAttention, mlp: Mlp, group: TensorParallel) -> None:
        self._norm, self._attention, self._mlp, self._group = norm, attention, mlp, group

    def __call__(self, delta: Tensor, residual: Tensor, step: LayerStep) -> Tensor:
        """See `Block`."""
        hidden = add_norm(self._norm, delta, residual)
        return self._group.all_reduce(self._attention.partial(hidden, step).add_(self._mlp.partial(hidden)))


class ParallelTwoNormsBlock:
    """x += attention(n1(x)) + mlp(n2(x)); one all-reduce a layer."""

    def __init__(self, norm1: Norm, attention: SelfAttention, norm2: Norm, mlp: Mlp, group: TensorParallel) -> None:
        self._norm1, self._attention, self._norm2, self._mlp, self._group = norm1, attention, norm2, mlp, group

    def __call__(self, delta: Tensor, residual: Tensor, step: LayerStep) -> Tensor:
        """See `Block`."""
        attended = self._attention.partial(add_norm(self._norm1, delta, residual), step)
        return self._group.all_reduce(attended.add_(self._mlp.partial(self._norm2(residual))))


class Embedding:
    """Token embeddings, scaled, with learned positions and a norm where a model has them."""

    def __init__(
        self, tokens: VocabParallelEmbedding, scale: float, positions: Tensor | None, norm: Norm | None
    ) -> None:
        self._tokens, self._scale, self._positions, self._norm = tokens, scale, positions, norm

    def __call__(self, token_ids: Tensor, positions: Tensor) -> Tensor:
        """[T] and [T] to [T, hidden], a new tensor."""
        x = self._tokens(token_ids)
        if self._scale != 1.0:
            x = x.mul_(self._scale)
        if self._positions is not None:
            x = x.add_(F.embedding(positions, self._positions).to(x.dtype))
        return x if self._norm is None else self._norm(x)


@dataclass(frozen=True, slots=True)
class Decoder:
    """One rank of a decoder; satisfies `ServedModel`."""

    state: StateSpec
    attention: AttentionBackend
    vocab_size: int
    max_positions: int | None
    embedding: Embedding
    head: ParallelLMHead
    rotary: Rotary | None
    blocks: Sequence[Block]
    final_norm: Norm

    def forward(self, step: StepInput) -> Tensor:
        """See `ServedModel`."""
        delta = self.embedding(step.token_ids, step.positions)
        residual = torch.zeros_like(delta)
        angles = None if self.rotary is None else self.rotary.angles(step.positions)
        layer_step = LayerStep(step.attention, step.cache, angles)
        for block in self.blocks:
            delta = block(delta, residual, layer_step)
        rows = step.logit_rows
        return self.head(add_norm(self.final_norm, delta[rows], residual[rows]))
