"""Makes one rank's self-attention of each layer from a spec and a checkpoint. Knows no architecture.

Query heads are cut over ranks; with fewer key/value heads than ranks, ranks hold copies.
"""

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor

from text_generation_server.attention.base import AttentionBackend, LayerAttention, choose_backend
from text_generation_server.attention.blockwise import BlockwiseAttention
from text_generation_server.cache.narrow import UNSCALED, KVScales
from text_generation_server.device.current import on_device
from text_generation_server.distributed.group import TensorParallel
from text_generation_server.layers.qk_norm import AllHeadsRmsNorm, HeadLayerNorm, HeadRmsNorm, QkNorm
from text_generation_server.layers.rotary import Rotary
from text_generation_server.models.attention_shape import attention_shape, layer_variants
from text_generation_server.models.decoder import SelfAttention
from text_generation_server.models.kv_form import read_scales, tell_narrow
from text_generation_server.models.tensors import StoredLinear, TensorReader
from text_generation_server.specs.decoder import DecoderSpec, NormKind, QkNormScope, QkNormSpec
from text_generation_server.specs.names import QkvLayout
from text_generation_server.specs.rope import RopeSpec
from text_generation_server.specs.vision import Sight
from text_generation_server.weights.layout import half_split_order, head_places, heads_of, qkv_places, qkv_sizes

ROTATED_BY_LENGTH = "it rotates the same prompt differently in longer requests"
WHOLE_PROMPT = "what it keeps of each token follows from the whole prompt"
"""Why keys of a prompt are not shared."""


class AttentionBuilder:
    """What all layers share is made at once but for the backend, and each layer's own when asked for.

    backend: the name it is chosen by. narrow: see `PagedSpec`. state: what the cache holds for it; its heads may be
    wider than the model's. rotaries: the kinds of rotation among the layers.

    Raises:
        UnsupportedModel: these ranks cannot divide the heads, or the backend cannot compute them.
    """

    def __init__(
        self, spec: DecoderSpec, reader: TensorReader, group: TensorParallel, backend: str, narrow: torch.dtype | None
    ) -> None:
        attention, layers = spec.attention, spec.attending
        self._spec = spec
        self._reader = reader
        self._group = group
        self._heads = heads_of(attention.heads, attention.kv_heads, group.rank, group.world_size)
        shape = attention_shape(spec, self._heads, reader.dtype, reader.device, narrow)
        self._variant_of = [shape.variants.index(variant) for variant in layer_variants(spec, self._heads)]
        self._shape, self._backend = shape, choose_backend(backend, shape)
        self._sight = Sight.CAUSAL if spec.vision is None else spec.vision.sight
        ropes = dict.fromkeys(rope for layer in layers if (rope := attention.rope_of(layer)) is not None)
        self._ropes = list(ropes)
        self.rotaries = [Rotary(rope, reader.dtype, reader.device) for rope in ropes]
        self.state = replace(
            shape.state,
            slot_major=self._backend.slot_major,
            head_dim=self._backend.cached_head_dim(shape),
            unshared=self._unshared(ropes),
        )
        first = (self._scales(spec.names.layer.format(layer) + ".") for layer in layers[:1])
        tell_narrow(self.state, any(scales != UNSCALED for scales in first))

    def _unshared(self, ropes: Iterable[RopeSpec]) -> str:
        if self._sight is Sight.PROMPTS:
            return WHOLE_PROMPT
        return ROTATED_BY_LENGTH if any(rope.depends_on_span for rope in ropes) else ""

    def make_backend(self) -> AttentionBackend:
        """What computes attention. May take seconds, and run beside the rest.

        Raises:
            StartError: it lacks something on this machine.
        """
        with on_device(self._reader.device):
            plain = self._backend(self._shape)
        if self._sight is Sight.CAUSAL:
            return plain
        return BlockwiseAttention(plain, self._shape, windows=self._sight is Sight.IMAGES)

    def layer(self, prefix: str, layer: int) -> SelfAttention:
        """The attention of a layer whose tensors' names start with `prefix`."""
        spec, hidden = self._spec.attention, self._spec.hidden_size
        rope, order = spec.rope_of(layer), self._order(layer)
        names, layout = self._qkv_names(prefix)
        shape = layout, spec.heads, spec.kv_heads, spec.head_dim
        stored = [
            StoredLinear(prefix + name, size, hidden) for name, size in zip(names, qkv_sizes(*shape), strict=True)
        ]
        head_dim = self.state.head_dim
        places = qkv_places(*shape, self._heads, order, head_dim)
        out = StoredLinear(prefix + self._spec.names.attention_out, hidden, spec.heads * spec.head_dim)
        out_places = head_places(0, self._heads.query, spec.head_dim, head_dim)
        scales = self._scales(prefix)
        return SelfAttention(
            self._reader.column(stored, places, spec.qkv_bias),
            self._reader.row(out, out_places, spec.out_bias, self._group),
            kv_heads=self.state.kv_heads,
            head_dim=head_dim,
            layer=self._of_layer(prefix, layer, scales),
            rotary=None if rope is None else self._ropes.index(rope),
            qk_norm=None if spec.qk_norm is None else self._qk_norm(spec.qk_norm, prefix, order),
            clip=spec.clip_qkv,
        )

    def _of_layer(self, prefix: str, layer: int, scales: KVScales) -> LayerAttention:
        spec, heads, sinks = self._spec.attention, self._heads.query, None
        if spec.sinks:
            rows = [slice(heads.start, heads.stop)]
            sinks = self._reader.pieces(prefix + self._spec.names.sinks, (spec.heads,), rows)
        place, scale = self._spec.attending.index(layer), spec.scale_of(layer) * scales.key
        return LayerAttention(place, self._variant_of[layer], scale, scales, sinks)

    def _scales(self, prefix: str) -> KVScales:
        names, _ = self._qkv_names(prefix)
        every = tuple(prefix + name for name in names)
        return read_scales(self._reader.checkpoint, every, self.state.narrow is not None)

    def _qkv_names(self, prefix: str) -> tuple[tuple[str, ...], QkvLayout]:
        names = self._spec.names
        if names.concat_qkv and self._reader.checkpoint.has(f"{prefix}{names.concat_qkv}.weight"):
            return (names.concat_qkv,), QkvLayout.CONCAT
        return names.qkv, names.qkv_layout

    def _order(self, layer: int) -> Tensor | None:
        spec = self._spec.attention
        rope = spec.rope_of(layer)
        return half_split_order(rope.dim, spec.head_dim) if rope is not None and rope.interleaved else None

    def _qk_norm(self, spec: QkNormSpec, prefix: str, order: Tensor | None) -> QkNorm:
        names, attention = self._spec.names, self._spec.attention
        q = self._head_weights(prefix + names.q_norm, spec.scope, attention.heads, self._heads.query)
        k = self._head_weights(prefix + names.k_norm, spec.scope, attention.kv_heads, self._heads.kv)
        weight = torch.cat((q, k)).float() + spec.norm.offset
        if order is not None:
            weight = weight[:, order]
        if spec.scope is QkNormScope.ALL_HEADS:
            return AllHeadsRmsNorm(weight, spec.norm.eps, attention.heads, attention.kv_heads, self._group)
        norm = HeadRmsNorm if spec.norm.kind is NormKind.RMS else HeadLayerNorm
        return norm(weight, spec.norm.eps)

    def _head_weights(self, name: str, scope: QkNormScope, heads: int, mine: range) -> Tensor:
        """A norm's weights [len(mine), head_dim] for these of `heads` heads."""
        head_dim, rows = self._spec.attention.head_dim, slice(mine.start, mine.stop)
        match scope:
            case QkNormScope.HEAD:
                return self._reader.tensor(f"{name}.weight", (head_dim,)).expand(len(mine), -1)
            case QkNormScope.ALL_HEADS:
                return self._reader.tensor(f"{name}.weight", (heads * head_dim,)).view(heads, head_dim)[rows]
            case QkNormScope.EACH_HEAD if "{}" in name:
                every = [self._reader.tensor(f"{name.format(head)}.weight", (head_dim,)) for head in range(heads)]
                return torch.stack(every)[rows]
            case QkNormScope.EACH_HEAD:
                return self._reader.tensor(f"{name}.weight", (heads, head_dim))[rows]
