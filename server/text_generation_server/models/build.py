"""Makes one rank's decoder from a spec and a checkpoint, layer by layer. Knows no architecture and no form of weights.

Names come from the spec, rows and their order from `weights/layout.py`, the form from the reader's quantisation scheme.
"""

import torch
from torch import Tensor

from text_generation_server.attention.base import AttentionVariant, LayerAttention, create_backend
from text_generation_server.cache.paged import StateSpec
from text_generation_server.distributed.group import TensorParallel
from text_generation_server.layers.activation import activation, gated_activation
from text_generation_server.layers.alibi import spec_slopes
from text_generation_server.layers.embedding import ParallelLMHead, VocabParallelEmbedding
from text_generation_server.layers.linear import ColumnParallelLinear, RowParallelLinear
from text_generation_server.layers.norm import LayerNorm, Norm, OffsetRmsNorm, RmsNorm
from text_generation_server.layers.rotary import Rotary
from text_generation_server.models.decoder import (
    Block,
    Decoder,
    Embedding,
    Mlp,
    ParallelBlock,
    ParallelTwoNormsBlock,
    SelfAttention,
    SequentialBlock,
)
from text_generation_server.models.spec import DecoderSpec, HeadTie, NormKind, Wiring
from text_generation_server.models.tensors import StoredLinear, TensorReader
from text_generation_server.weights.layout import Part, heads_of, part_of, qkv_places, up_places


class DecoderBuilder:
    """Builds the decoder of one rank.

    Raises:
        UnsupportedModel: these ranks cannot divide the model.
    """

    def __init__(self, spec: DecoderSpec, reader: TensorReader, group: TensorParallel) -> None:
        attention, rank, world_size = spec.attention, group.rank, group.world_size
        self._spec = spec
        self._reader = reader
        self._group = group
        self._heads = heads_of(attention.heads, attention.kv_heads, rank, world_size)
        self._inner = part_of(spec.mlp.inner_size, rank, world_size)
        self._vocab = part_of(spec.vocab_size, rank, world_size)
        self._rotary = None if attention.rope is None else Rotary(attention.rope, reader.dtype, reader.device)
        slopes = None if attention.alibi is None else spec_slopes(attention.alibi, attention.heads, self._heads.query)
        self._variant_of = [AttentionVariant(attention.window_of(layer), slopes) for layer in range(spec.num_layers)]
        self._variants = list(dict.fromkeys(self._variant_of))

    def build(self, backend: str) -> Decoder:
        """Read this rank's part of every tensor; `backend` names the attention.

        Raises:
            UnsupportedModel: the checkpoint is not what the spec says, or the backend cannot compute it.
        """
        spec, reader = self._spec, self._reader
        state = StateSpec(spec.num_layers, len(self._heads.kv), spec.attention.head_dim, reader.dtype, reader.device)
        attention = create_backend(backend, self._variants, state)
        # First, because these are the largest tensors: while they are read, little else is in memory.
        table = reader.table(spec.names.embedding, spec.vocab_size, spec.hidden_size, self._vocab)
        return Decoder(
            state=state,
            attention=attention,
            vocab_size=spec.vocab_size,
            max_positions=spec.max_positions,
            embedding=self._embedding(table),
            head=self._head(table),
            rotary=self._rotary,
            blocks=[self._block(layer) for layer in range(spec.num_layers)],
            final_norm=self._norm(spec.names.final_norm),
        )

    def _block(self, layer: int) -> Block:
        names = self._spec.names
        prefix = names.layer.format(layer) + "."
        attention, mlp = self._attention(prefix, layer), self._mlp(prefix)
        norm1 = self._norm(prefix + names.attention_norm)
        match self._spec.wiring:
            case Wiring.SEQUENTIAL:
                return SequentialBlock(norm1, attention, self._norm(prefix + names.mlp_norm), mlp)
            case Wiring.PARALLEL:
                return ParallelBlock(norm1, attention, mlp, self._group)
            case Wiring.PARALLEL_TWO_NORMS:
                return ParallelTwoNormsBlock(norm1, attention, self._norm(prefix + names.mlp_norm), mlp, self._group)

    def _attention(self, prefix: str, layer: int) -> SelfAttention:
        spec, names, hidden = self._spec.attention, self._spec.names, self._spec.hidden_size
        inner, kv_inner = spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim
        sizes = [inner, kv_inner, kv_inner] if len(names.qkv) == 3 else [inner + 2 * kv_inner]
        stored = [StoredLinear(prefix + name, size, hidden) for name, size in zip(names.qkv, sizes, strict=True)]
        places = qkv_places(names.qkv_layout, spec.heads, spec.kv_heads, spec.head_dim, self._heads)
        mine = part_of(inner, self._group.rank, self._group.world_size)
        return SelfAttention(
            ColumnParallelLinear(self._reader.column(stored, places, spec.qkv_bias)),
            self._row(StoredLinear(prefix + names.attention_out, hidden, inner), mine, spec.out_bias),
            self._rotary,
            len(self._heads.kv),
            spec.head_dim,
            LayerAttention(layer, self._variants.index(self._variant_of[layer]), spec.scale_of(layer)),
        )

    def _mlp(self, prefix: str) -> Mlp:
        spec, names, hidden = self._spec.mlp, self._spec.names, self._spec.hidden_size
        size = spec.inner_size * (2 if spec.gated and len(names.up) == 1 else 1)
        stored = [StoredLinear(prefix + name, size, hidden) for name in names.up]
        places = up_places(len(names.up), spec.gated, spec.inner_size, self._inner)
        return Mlp(
            ColumnParallelLinear(self._reader.column(stored, places, spec.bias)),
            gated_activation(spec.activation) if spec.gated else activation(spec.activation),
            self._row(StoredLinear(prefix + names.down, hidden, spec.inner_size), self._inner, spec.bias),
        )

    def _row(self, stored: StoredLinear, mine: Part, has_bias: bool) -> RowParallelLinear:
        """The ranks' outputs are summed, so only the first adds the bias."""
        first = self._group.rank == 0
        if has_bias and not first:
            self._reader.checkpoint.leave(f"{stored.name}.bias")
        return RowParallelLinear(self._reader.row(stored, mine, has_bias and first), self._group)

    def _norm(self, name: str) -> Norm:
        norm, hidden = self._spec.norm, self._spec.hidden_size
        weight = self._reader.vector(f"{name}.weight", hidden)
        if norm.kind is NormKind.LAYER:
            return LayerNorm(weight, self._reader.vector(f"{name}.bias", hidden) if norm.bias else None, norm.eps)
        return OffsetRmsNorm(weight, norm.eps, norm.offset) if norm.offset else RmsNorm(weight, norm.eps)

    def _embedding(self, table: Tensor) -> Embedding:
        spec, names = self._spec, self._spec.names
        positions = None
        if names.positions:
            size = spec.max_positions or 0
            positions = self._reader.table(names.positions, size, spec.hidden_size, part_of(size, 0, 1))
        return Embedding(
            VocabParallelEmbedding(table, self._vocab.start, self._reader.dtype, self._group),
            torch.tensor(spec.embedding_scale, dtype=self._reader.dtype).item(),
            positions,
            self._norm(names.embedding_norm) if names.embedding_norm else None,
        )

    def _head(self, table: Tensor) -> ParallelLMHead:
        spec, reader = self._spec, self._reader
        tied = spec.head is HeadTie.TIED
        if spec.head is HeadTie.IF_ABSENT:
            tied = not reader.checkpoint.has(f"{spec.names.head}.weight")
        stored = StoredLinear(spec.names.embedding if tied else spec.names.head, spec.vocab_size, spec.hidden_size)
        kernel = reader.tied_head(table, stored, self._vocab) if tied else reader.head(stored, self._vocab)
        if tied:
            reader.checkpoint.leave(f"{spec.names.head}.weight")
        return ParallelLMHead(kernel, spec.vocab_size, self._group)
