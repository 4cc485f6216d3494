"""Makes one rank of an encoder and its decoder from a spec and a checkpoint. Knows no architecture.

Heads and inner sizes are cut over ranks, as a decoder's are.
"""

from dataclasses import replace

import torch

from text_generation_server.attention.base import LayerAttention
from text_generation_server.attention.crossing import CrossingAttention
from text_generation_server.attention.gathered import RelativeBias
from text_generation_server.cache.paged import PagedSpec
from text_generation_server.distributed.group import TensorParallel
from text_generation_server.layers.linear import ColumnParallelLinear, RowParallelLinear
from text_generation_server.layers.norm import Identity, Norm, Rounded
from text_generation_server.models.build_ends import EndsBuilder, build_norm
from text_generation_server.models.build_mlp import build_dense_mlp
from text_generation_server.models.decoder import BranchNorms, DenseMlp, SelfAttention, SequentialBlock
from text_generation_server.models.kv_form import tell_narrow
from text_generation_server.models.layerwise import build_layers
from text_generation_server.models.seq2seq import CrossAttention, CrossBlock, Encoder, Seq2SeqModel
from text_generation_server.models.tensors import StoredLinear, TensorReader
from text_generation_server.specs.seq2seq import Seq2SeqSpec, StackNames
from text_generation_server.weights.layout import block_rows, head_places, heads_of


class Seq2SeqBuilder:
    """Builds the model of one rank. Sums that are beyond float16, of layers and of MLPs, are in float32 there.

    narrow: see `PagedSpec`.

    Raises:
        UnsupportedModel: these ranks cannot divide the heads.
    """

    def __init__(
        self, spec: Seq2SeqSpec, reader: TensorReader, group: TensorParallel, narrow: torch.dtype | None = None
    ) -> None:
        self._spec = spec
        self._narrow = narrow
        self._reader = reader
        self._group = group
        self._wide = reader.widened() if reader.dtype is torch.float16 else None
        self._mine = heads_of(spec.heads, spec.heads, group.rank, group.world_size).query

    def build(self) -> Seq2SeqModel:
        """Read this rank's part of every tensor.

        Raises:
            UnsupportedModel: the checkpoint is not what the spec says.
        """
        spec, reader, names = self._spec, self._reader, self._spec.names
        ends = EndsBuilder(
            reader,
            self._group,
            vocab_size=spec.vocab_size,
            width=spec.hidden_size,
            embedding=names.embedding,
            head=names.head,
        )
        table = ends.table()
        for name in names.unused:
            reader.checkpoint.leave(name)
        embedding = ends.embedding(table)
        sizes = spec.decoder_layers, len(self._mine), spec.head_dim
        kv = PagedSpec(*sizes, reader.dtype, reader.device, narrow=self._narrow)
        tell_narrow(kv, scaled=False)
        biases = self._bias(names.decoder, causal=True), self._bias(names.encoder, causal=False)
        attention = CrossingAttention(kv, *biases)
        return Seq2SeqModel(
            kv=replace(kv, slot_major=attention.slot_major),
            attention=attention,
            vocab_size=spec.vocab_size,
            max_positions=None if spec.max_positions is None else spec.max_positions.tokens,
            encoder=Encoder(
                start=spec.start,
                embedding=embedding,
                blocks=build_layers(self._encoder_block, spec.encoder_layers),
                final_norm=self._norm(names.encoder.final_norm),
                attention=attention,
                keys_values=[self._keys_values(layer) for layer in range(spec.decoder_layers)],
                head_dim=spec.head_dim,
                residual_dtype=(self._wide or reader).dtype,
            ),
            embedding=embedding,
            blocks=build_layers(self._decoder_block, spec.decoder_layers),
            final_norm=self._norm(names.decoder.final_norm),
            head=ends.head(table, spec.head),
        )

    def _encoder_block(self, layer: int) -> SequentialBlock:
        names = self._spec.names.encoder
        prefix = names.layer.format(layer) + "."
        norm1, norm2 = self._norm(prefix + names.attention_norm), self._norm(prefix + names.mlp_norm)
        # All layers share the first's place in the cache: each is read before the next writes.
        attention = self._attention(prefix, names, cached_as=0)
        return SequentialBlock(
            BranchNorms(norm1, Identity()), attention, BranchNorms(norm2, Identity()), self._mlp(prefix, names)
        )

    def _decoder_block(self, layer: int) -> CrossBlock:
        spec, names = self._spec, self._spec.names.decoder
        prefix = names.layer.format(layer) + "."
        queries, *_, out = (prefix + name for name in names.cross)
        return CrossBlock(
            self._norm(prefix + names.attention_norm),
            self._attention(prefix, names, cached_as=layer),
            self._norm(prefix + names.cross_norm),
            CrossAttention(self._heads([queries]), self._out(out), spec.head_dim, LayerAttention(layer, 0, 1.0)),
            self._norm(prefix + names.mlp_norm),
            self._mlp(prefix, names),
        )

    def _attention(self, prefix: str, names: StackNames, cached_as: int) -> SelfAttention:
        *qkv, out = (prefix + name for name in names.attention)
        return SelfAttention(
            self._heads(qkv),
            self._out(out),
            kv_heads=len(self._mine),
            head_dim=self._spec.head_dim,
            layer=LayerAttention(cached_as, 0, 1.0),
            rotary=None,
            qk_norm=None,
            clip=None,
        )

    def _keys_values(self, layer: int) -> ColumnParallelLinear:
        names = self._spec.names.decoder
        _, keys, values, _ = (f"{names.layer.format(layer)}.{name}" for name in names.cross)
        return self._heads([keys, values])

    def _heads(self, names: list[str]) -> ColumnParallelLinear:
        """This rank's heads of each of these projections, one after the other."""
        spec = self._spec
        stored = [StoredLinear(name, spec.heads * spec.head_dim, spec.hidden_size) for name in names]
        every = (head_places(number, self._mine, spec.head_dim, spec.head_dim) for number in range(len(names)))
        return self._reader.column(stored, [place for places in every for place in places], False)

    def _out(self, name: str) -> RowParallelLinear:
        spec = self._spec
        stored = StoredLinear(name, spec.hidden_size, spec.heads * spec.head_dim)
        return self._reader.row(stored, head_places(0, self._mine, spec.head_dim, spec.head_dim), False, self._group)

    def _mlp(self, prefix: str, names: StackNames) -> DenseMlp:
        up, down = [prefix + name for name in names.up], prefix + names.down
        return build_dense_mlp(self._reader, self._group, self._spec.mlp, self._spec.hidden_size, up, down, self._wide)

    def _bias(self, names: StackNames, causal: bool) -> RelativeBias:
        spec = self._spec
        weight = self._reader.tensor(f"{names.bias}.weight", (spec.bias.buckets, spec.heads))
        mine = weight[:, block_rows(self._mine, 1)]
        return RelativeBias.of(mine, spec.bias.max_distance, causal)

    def _norm(self, name: str) -> Norm:
        norm = build_norm(self._wide or self._reader, self._spec.norm, name, self._spec.hidden_size)
        return norm if self._wide is None else Rounded(norm, self._reader.dtype)
