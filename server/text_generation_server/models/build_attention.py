"""Makes one rank's self-attention of each layer from a spec and a checkpoint. Knows no architecture.

Query heads are cut over ranks; with fewer key/value heads than ranks, ranks hold copies.
"""

import torch
from torch import Tensor

from text_generation_server.attention.base import AttentionVariant, LayerAttention
from text_generation_server.distributed.group import TensorParallel
from text_generation_server.layers.alibi import spec_slopes
from text_generation_server.layers.linear import ColumnParallelLinear
from text_generation_server.layers.qk_norm import AllHeadsRmsNorm, HeadLayerNorm, HeadRmsNorm, QkNorm
from text_generation_server.layers.rotary import Rotary
from text_generation_server.models.build_mlp import read_row
from text_generation_server.models.decoder import SelfAttention
from text_generation_server.models.spec import DecoderSpec, NormKind, QkNormScope, QkNormSpec
from text_generation_server.models.tensors import StoredLinear, TensorReader
from text_generation_server.weights.layout import QkvLayout, half_split_order, heads_of, part_of, qkv_places, qkv_sizes


class AttentionBuilder:
    """What all layers share is made at once, each layer's own when asked for.

    variants: the kinds of attention among the layers. rotaries: the kinds of rotation.

    Raises:
        UnsupportedModel: these ranks cannot divide the heads.
    """

    def __init__(self, spec: DecoderSpec, reader: TensorReader, group: TensorParallel) -> None:
        attention, layers = spec.attention, range(spec.num_layers)
        self._spec = spec
        self._reader = reader
        self._group = group
        self.heads = heads_of(attention.heads, attention.kv_heads, group.rank, group.world_size)
        slopes = None if attention.alibi is None else spec_slopes(attention.alibi, attention.heads, self.heads.query)
        self._variant_of = [AttentionVariant(self._window(layer), slopes, attention.softcap) for layer in layers]
        self.variants = list(dict.fromkeys(self._variant_of))
        ropes = dict.fromkeys(rope for layer in layers if (rope := attention.rope_of(layer)) is not None)
        self._ropes = list(ropes)
        self.rotaries = [Rotary(rope, reader.dtype, reader.device) for rope in ropes]
        self.shares_prefixes = not any(rope.depends_on_span for rope in ropes)

    def layer(self, prefix: str, layer: int) -> SelfAttention:
        """The attention of a layer whose tensors' names start with `prefix`."""
        spec, hidden = self._spec.attention, self._spec.hidden_size
        rope, order = spec.rope_of(layer), self._order(layer)
        names, layout = self._qkv_names(prefix)
        shape = layout, spec.heads, spec.kv_heads, spec.head_dim
        stored = [
            StoredLinear(prefix + name, size, hidden) for name, size in zip(names, qkv_sizes(*shape), strict=True)
        ]
        inner = spec.heads * spec.head_dim
        mine = part_of(inner, self._group.rank, self._group.world_size)
        out = StoredLinear(prefix + self._spec.names.attention_out, hidden, inner)
        return SelfAttention(
            ColumnParallelLinear(self._reader.column(stored, qkv_places(*shape, self.heads, order), spec.qkv_bias)),
            read_row(self._reader, self._group, out, mine, spec.out_bias),
            kv_heads=len(self.heads.kv),
            head_dim=spec.head_dim,
            layer=LayerAttention(layer, self.variants.index(self._variant_of[layer]), spec.scale_of(layer)),
            rotary=None if rope is None else self._ropes.index(rope),
            qk_norm=None if spec.qk_norm is None else self._qk_norm(spec.qk_norm, prefix, order),
            clip=spec.clip_qkv,
        )

    def _window(self, layer: int) -> int | None:
        """The layer's window, None too where one is longer than any sequence: plain attention is faster."""
        window, longest = self._spec.attention.window_of(layer), self._spec.max_positions
        return None if window is None or (longest is not None and window >= longest) else window

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
        q = self._head_weights(prefix + names.q_norm, spec.scope, attention.heads, self.heads.query)
        k = self._head_weights(prefix + names.k_norm, spec.scope, attention.kv_heads, self.heads.kv)
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
