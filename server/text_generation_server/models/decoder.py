"""The one decoder that runs every spec. Knows neither specs nor checkpoints: `build.py` hands it finished parts.

The hidden state travels as a pair (last branch's output, residual stream): "add, then norm" is one call everywhere.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from text_generation_server.attention.base import AttentionBackend, AttentionPlan, LayerAttention
from text_generation_server.cache.coordinates import Coordinates, CoordinatesSpec
from text_generation_server.cache.features import Features, FeaturesSpec
from text_generation_server.cache.paged import PagedCache, PagedSpec
from text_generation_server.cache.states import StateSpec
from text_generation_server.distributed.group import TensorParallel
from text_generation_server.layers.embedding import ParallelLMHead, VocabParallelEmbedding
from text_generation_server.layers.linear import (
    Adaptable,
    ColumnParallelLinear,
    LinearKernel,
    LinearStep,
    RowParallelLinear,
)
from text_generation_server.layers.moe import Experts, Router
from text_generation_server.layers.norm import Norm
from text_generation_server.layers.qk_norm import QkNorm
from text_generation_server.layers.rotary import Angles, Rotary, rotate_and_write
from text_generation_server.models.attending import AttendingModel
from text_generation_server.models.step import FEATURE, Reader, StepInput, at_least_one

HiddenState = tuple[Tensor, Tensor]
"""The last branch's output, and the residual stream that it is yet to be added to."""


@dataclass(frozen=True, slots=True)
class LayerStep:
    """What the layers of one step share. slot_mapping: where each token goes [T]. angles: of each kind of rotation.

    tokens: what linears may know of all T. outputs: the same of the L whose keys and values are not all that is wanted.
    """

    attention: AttentionPlan
    cache: PagedCache
    slot_mapping: Tensor
    angles: Sequence[Angles]
    tokens: LinearStep
    outputs: LinearStep

    def wanted(self, x: Tensor) -> Tensor:
        """[T, …] to [L, …]."""
        rows = self.outputs.wanted
        return x if rows is None else x[rows]


class SelfAttention:
    """One fused projection to queries, keys and values, norms and rotation, attention, output projection.

    rotary: which of the step's angles, None where a layer has no positions. clip: bound of the projection's outputs.
    """

    def __init__(
        self,
        qkv: ColumnParallelLinear,
        out: RowParallelLinear,
        *,
        kv_heads: int,
        head_dim: int,
        layer: LayerAttention,
        rotary: int | None,
        qk_norm: QkNorm | None,
        clip: float | None,
    ) -> None:
        self._qkv = qkv
        self._out = out
        self._kv_heads = kv_heads
        self._head_dim = head_dim
        self._layer = layer
        self._rotary = rotary
        self._qk_norm = qk_norm
        self._clip = clip

    def __call__(self, x: Tensor, step: LayerStep) -> Tensor:
        """[T, hidden] to [L, hidden]."""
        return self._out(step.wanted(self._attend(x, step)), step.outputs)

    def partial(self, x: Tensor, step: LayerStep) -> Tensor:
        """This rank's part of the sum."""
        return self._out.partial(step.wanted(self._attend(x, step)), step.outputs)

    def _attend(self, x: Tensor, step: LayerStep) -> Tensor:
        qkv = self._qkv(x, step.tokens).view(x.shape[0], -1, self._head_dim)  # [T, H + 2 K, d]
        if self._clip is not None:
            qkv.clamp_(-self._clip, self._clip)
        if self._qk_norm is not None:
            self._qk_norm(qkv[:, : -self._kv_heads])
        angles = None if self._rotary is None else step.angles[self._rotary]
        layer = self._layer
        rotate_and_write(qkv, self._kv_heads, angles, step.cache, layer.layer, step.slot_mapping, layer.scales)
        attended = step.attention.run(qkv[:, : -2 * self._kv_heads], layer, step.cache)
        return attended if layer.scales.value == 1.0 else attended.mul_(layer.scales.value)


class Mlp(Protocol):
    """The second branch of a layer."""

    def __call__(self, x: Tensor, step: LinearStep) -> Tensor:
        """[T, hidden] to [T, hidden]."""

    def partial(self, x: Tensor, step: LinearStep) -> Tensor:
        """This rank's part of the sum."""


Inner = Callable[[Tensor, LinearStep], Tensor]
"""An MLP but for its last linear: [T, hidden] to this rank's activated numbers [T, n]."""


class DenseMlp:
    """`down(inner(x))`."""

    def __init__(self, inner: Inner, down: RowParallelLinear) -> None:
        self._inner = inner
        self._down = down

    def __call__(self, x: Tensor, step: LinearStep) -> Tensor:
        """See `Mlp`."""
        return self._down(self._inner(x, step), step)

    def partial(self, x: Tensor, step: LinearStep) -> Tensor:
        """See `Mlp`."""
        return self._down.partial(self._inner(x, step), step)


class SharedExpert:
    """An MLP for every token, as much of it as its gate, of one output, lets through; all of it without one."""

    def __init__(self, mlp: DenseMlp, gate: ColumnParallelLinear | None) -> None:
        self._mlp = mlp
        self._gate = gate

    def partial(self, x: Tensor, step: LinearStep) -> Tensor:
        """This rank's part of the sum."""
        out = self._mlp.partial(x, step)
        return out if self._gate is None else out.mul_(self._gate(x, step).sigmoid())


class SparseMlp:
    """The experts that the router chooses for each token, and one that all share, if there is one."""

    def __init__(self, router: Router, experts: Experts, shared: SharedExpert | None, group: TensorParallel) -> None:
        self._router = router
        self._experts = experts
        self._shared = shared
        self._group = group

    def __call__(self, x: Tensor, step: LinearStep) -> Tensor:
        """See `Mlp`."""
        return self._group.all_reduce(self.partial(x, step))

    def partial(self, x: Tensor, step: LinearStep) -> Tensor:
        """See `Mlp`."""
        out = self._experts(x, *self._router(x, step), step)
        return out if self._shared is None else out.add_(self._shared.partial(x, step))


class Block(Protocol):
    """A layer: adds the last branch's output to the residual stream, in place, and adds a branch of its own."""

    def __call__(self, delta: Tensor, residual: Tensor, step: LayerStep) -> HiddenState:
        """[T, hidden] each to [L, hidden] each."""


@dataclass(frozen=True, slots=True)
class BranchNorms:
    """What a branch does to its input and to its output."""

    before: Norm
    after: Norm


class Mixer(Protocol):
    """The first branch of a layer: lets tokens see each other."""

    def __call__(self, x: Tensor, step: LayerStep) -> Tensor:
        """[T, hidden] to [L, hidden]."""


class SequentialBlock:
    """x += a1(mixer(n1(x))); x += a2(mlp(n2(x))). Any of the four may be the identity."""

    def __init__(self, norms1: BranchNorms, mixer: Mixer, norms2: BranchNorms, mlp: Mlp) -> None:
        self._norms1, self._mixer, self._norms2, self._mlp = norms1, mixer, norms2, mlp

    def __call__(self, delta: Tensor, residual: Tensor, step: LayerStep) -> HiddenState:
        """See `Block`."""
        mixed = self._norms1.after(self._mixer(self._norms1.before.of_sum(delta, residual), step))
        residual = step.wanted(residual)
        return self._norms2.after(self._mlp(self._norms2.before.of_sum(mixed, residual), step.outputs)), residual


class PostNormBlock:
    """x = n1(x + attention(x)); x = n2(x + mlp(x))"""

    def __init__(self, attention: SelfAttention, norm1: Norm, mlp: Mlp, norm2: Norm) -> None:
        self._attention, self._norm1, self._mlp, self._norm2 = attention, norm1, mlp, norm2

    def __call__(self, delta: Tensor, residual: Tensor, step: LayerStep) -> HiddenState:
        """See `Block`. The norm takes the residual stream's place, so nothing is left there."""
        attended = self._attention(residual.add_(delta), step)
        residual = step.wanted(residual)
        x = self._norm1.of_sum(attended, residual)
        return self._norm2(self._mlp(x, step.outputs).add_(x)), residual.zero_()


class ParallelBlock:
    """y = n1(x); x += attention(y) + mlp(y). Summed over branches before ranks: one all-reduce a layer."""

    def __init__(self, norm: Norm, attention: SelfAttention, mlp: Mlp, group: TensorParallel) -> None:
        self._norm, self._attention, self._mlp, self._group = norm, attention, mlp, group

    def __call__(self, delta: Tensor, residual: Tensor, step: LayerStep) -> HiddenState:
        """See `Block`."""
        hidden = self._norm.of_sum(delta, residual)
        attended = self._attention.partial(hidden, step)
        out = self._group.all_reduce(attended.add_(self._mlp.partial(step.wanted(hidden), step.outputs)))
        return out, step.wanted(residual)


class ParallelTwoNormsBlock:
    """x += attention(n1(x)) + mlp(n2(x)); one all-reduce a layer."""

    def __init__(self, norm1: Norm, attention: SelfAttention, norm2: Norm, mlp: Mlp, group: TensorParallel) -> None:
        self._norm1, self._attention, self._norm2, self._mlp, self._group = norm1, attention, norm2, mlp, group

    def __call__(self, delta: Tensor, residual: Tensor, step: LayerStep) -> HiddenState:
        """See `Block`."""
        attended = self._attention.partial(self._norm1.of_sum(delta, residual), step)
        residual = step.wanted(residual)
        return self._group.all_reduce(attended.add_(self._mlp.partial(self._norm2(residual), step.outputs))), residual


class Embedding:
    """Token embeddings, scaled, projected, with learned positions and a norm, as far as a model has them."""

    def __init__(
        self,
        tokens: VocabParallelEmbedding,
        scale: float,
        projection: LinearKernel | None,
        positions: Tensor | None,
        norm: Norm,
    ) -> None:
        self._tokens, self._scale, self._projection = tokens, scale, projection
        self._positions, self._norm = positions, norm

    def __call__(self, step: StepInput) -> Tensor:
        """Those of a step's tokens [T, hidden], a new tensor."""
        if step.pictured:
            return _with_features(self._of(step.token_ids.clamp(min=0), step.positions), step)
        return self._of(step.token_ids, step.positions)

    def _of(self, token_ids: Tensor, positions: Tensor) -> Tensor:
        x = self._tokens(token_ids)
        if self._scale != 1.0:
            x = x.mul_(self._scale)
        if self._projection is not None:
            x = self._projection(x)
        if self._positions is not None:
            x = x.add_(F.embedding(positions, self._positions).to(x.dtype))
        return self._norm(x)


def _with_features(x: Tensor, step: StepInput) -> Tensor:
    """The embeddings [T, hidden], and in place of some of them the features of images that stand there.

    The last `hidden` of a feature's numbers: those before are added behind layers.
    """
    places, pool = FEATURE - step.token_ids, cast(Features, step.states[-1]).pool
    return torch.where((places >= 0)[:, None], pool[places.clamp(min=0), -x.shape[1] :], x)


def _features_behind(layer: int, x: Tensor, step: StepInput) -> Tensor:
    """What images add behind a layer to the hidden state [T, hidden]: zeros where none stands."""
    places, pool = FEATURE - step.token_ids, cast(Features, step.states[-1]).pool
    found = pool[places.clamp(min=0), layer * x.shape[1] : (layer + 1) * x.shape[1]]
    return found.masked_fill_((places < 0)[:, None], 0.0)


@dataclass(frozen=True, slots=True)
class Decoder(AttendingModel):
    """One rank of a decoder; satisfies `ServedModel`. kv: what it keeps of tokens. linears: what adapters may change in
    its layers, in any order. reader: of images, None where it takes none; `features` is what that leaves.
    coordinates: of tokens, None where rotations turn by positions. added: behind how many of the first blocks images
    add features; not behind the last.
    """

    kv: PagedSpec
    attention: AttentionBackend
    vocab_size: int
    max_positions: int | None
    embedding: Embedding
    rotaries: Sequence[Rotary]
    blocks: Sequence[Block]
    linears: Sequence[Adaptable]
    final_norm: Norm
    projection: LinearKernel | None
    head: ParallelLMHead
    records: bool = True
    reader: Reader | None = None
    features: FeaturesSpec | None = None
    coordinates: CoordinatesSpec | None = None
    added: int = 0

    @property
    def states(self) -> tuple[StateSpec, ...]:
        """See `ServedModel`."""
        return tuple(state for state in (self.kv, self.coordinates, self.features) if state is not None)

    def hidden(self, step: StepInput) -> Tensor:
        """See `ServedModel`."""
        delta = self.embedding(step)
        residual = torch.zeros_like(delta)
        tokens = LinearStep(step.adapters)
        layer_step = self.layer_step(step, tokens)
        *blocks, last = self.blocks
        for layer, block in enumerate(blocks):
            delta, residual = block(delta, residual, layer_step)
            if layer < self.added and step.pictured:
                residual.add_(_features_behind(layer, residual, step))
        outputs = tokens.narrowed(at_least_one(step.logit_rows))
        delta, residual = last(delta, residual, replace(layer_step, outputs=outputs))
        hidden = self.final_norm.of_sum(delta, residual)
        return hidden if step.logit_rows is None else hidden[: len(step.logit_rows)]

    def layer_step(self, step: StepInput, tokens: LinearStep) -> LayerStep:
        """What layers share of a step whose linears know this of its tokens."""
        turned = step.positions
        if self.coordinates is not None:
            turned = cast(Coordinates, step.states[1]).of(step.slot_mapping)
        angles = [rotary.angles(turned, step.spans) for rotary in self.rotaries]
        attention, cache = cast(AttentionPlan, step.prepared), cast(PagedCache, step.states[0])
        return LayerStep(attention, cache, step.slot_mapping, angles, tokens, tokens)

    def logits(self, hidden: Tensor, rows: Tensor | None) -> Tensor:
        """See `ServedModel`."""
        x = hidden if rows is None else hidden[rows]
        if not len(x):
            return x.new_empty(0, self.vocab_size)
        return self.head(x if self.projection is None else self.projection(x))
