"""Makes one rank's decoder from a spec and a checkpoint, layer by layer. Knows no architecture and no form of weights.

Names come from the spec, rows and their order from `weights/layout.py`, the form from the reader's quantisation scheme.
"""

import torch
from loguru import logger
from torch import Tensor

from text_generation_server.distributed.group import TensorParallel
from text_generation_server.layers.embedding import ParallelLMHead, VocabParallelEmbedding
from text_generation_server.layers.linear import LinearKernel
from text_generation_server.layers.norm import Identity, Norm, Scale, layer_norm, rms_norm
from text_generation_server.models.build_attention import AttentionBuilder
from text_generation_server.models.build_mlp import MlpBuilder
from text_generation_server.models.decoder import (
    Block,
    BranchNorms,
    Decoder,
    Embedding,
    ParallelBlock,
    ParallelTwoNormsBlock,
    PostNormBlock,
    SequentialBlock,
)
from text_generation_server.models.layerwise import build_layers
from text_generation_server.models.tensors import StoredLinear, TensorReader
from text_generation_server.specs.decoder import DIFFERENT_HEAD, DecoderSpec, HeadTie, NormKind, Wiring
from text_generation_server.weights.layout import Partition, partition_of


class DecoderBuilder:
    """Builds the decoder of one rank. backend: names the attention.

    Raises:
        UnsupportedModel: these ranks cannot divide the model, or the backend cannot compute it.
    """

    def __init__(self, spec: DecoderSpec, reader: TensorReader, group: TensorParallel, backend: str) -> None:
        self._spec = spec
        self._reader = reader
        self._group = group
        self._attention = AttentionBuilder(spec, reader, group, backend)
        self._mlp = MlpBuilder(spec, reader, group)
        self._vocab = partition_of(spec.vocab_size, group.rank, group.world_size)

    def build(self) -> Decoder:
        """Read this rank's part of every tensor.

        Raises:
            UnsupportedModel: the checkpoint is not what the spec says.
        """
        spec, reader, attention = self._spec, self._reader, self._attention
        # First, because these are the largest tensors: while they are read, little else is in memory.
        table = reader.table(spec.names.embedding, spec.vocab_size, self._embedding_size, self._vocab)
        return Decoder(
            kv=attention.state,
            attention=attention.backend,
            vocab_size=spec.vocab_size,
            max_positions=None if spec.max_positions is None else spec.max_positions.tokens,
            embedding=self._embedding(table),
            head=self._head(table),
            rotaries=attention.rotaries,
            blocks=build_layers(self._block, spec.num_layers),
            linears=reader.linears,
            final_norm=self._norm(spec.names.final_norm),
            projection=self._projection(spec.names.embedding_out, self._embedding_size, spec.hidden_size),
        )

    @property
    def _embedding_size(self) -> int:
        return self._spec.embedding_size or self._spec.hidden_size

    def _block(self, layer: int) -> Block:
        names = self._spec.names
        prefix = names.layer.format(layer) + "."
        attention, mlp = self._attention.layer(prefix, layer), self._mlp.layer(prefix, layer)
        norm1, norm2 = (self._norm(prefix + name if name else "") for name in (names.attention_norm, names.mlp_norm))
        match self._spec.wiring:
            case Wiring.PARALLEL:
                return ParallelBlock(norm1, attention, mlp, self._group)
            case Wiring.PARALLEL_TWO_NORMS:
                return ParallelTwoNormsBlock(norm1, attention, norm2, mlp, self._group)
            case Wiring.POST_NORM:
                return PostNormBlock(attention, norm1, mlp, norm2)
            case Wiring.SEQUENTIAL:
                scale = self._spec.branch_scale
                after1: Norm = Identity() if scale == 1.0 else Scale(scale)
                after2 = after1
            case Wiring.SANDWICH | Wiring.OUTPUT_NORMS:
                after1, after2 = (self._norm(prefix + name) for name in (names.attention_out_norm, names.mlp_out_norm))
        return SequentialBlock(BranchNorms(norm1, after1), attention, BranchNorms(norm2, after2), mlp)

    def _norm(self, name: str) -> Norm:
        """The norm of this name; none where a model has none."""
        norm, hidden = self._spec.norm, self._spec.hidden_size
        if not name:
            return Identity()
        weight = self._reader.vector(f"{name}.weight", hidden) if norm.weight else None
        if norm.kind is NormKind.LAYER:
            bias = self._reader.vector(f"{name}.bias", hidden) if norm.bias else None
            return layer_norm(weight, bias, norm.eps, self._reader.device)
        if weight is None:
            weight = torch.ones(hidden, dtype=self._reader.dtype, device=self._reader.device)
        return rms_norm(weight, norm.eps, norm.offset)

    def _projection(self, name: str, outputs: int, inputs: int) -> LinearKernel | None:
        return self._reader.whole(StoredLinear(name, outputs, inputs)) if name else None

    def _embedding(self, table: Tensor) -> Embedding:
        spec, names = self._spec, self._spec.names
        positions = None
        if names.positions:
            assert spec.max_positions is not None
            first, size = spec.position_offset, spec.max_positions.tokens
            part = Partition(first, first + size, size)
            positions = self._reader.table(names.positions, first + size, spec.hidden_size, part)
        return Embedding(
            VocabParallelEmbedding(table, self._vocab.start, self._reader.dtype, self._group),
            torch.tensor(spec.embedding_scale, dtype=self._reader.dtype).item(),
            self._projection(names.embedding_in, spec.hidden_size, self._embedding_size),
            positions,
            self._norm(names.embedding_norm),
        )

    def _head(self, table: Tensor) -> ParallelLMHead:
        spec, head, reader = self._spec, self._spec.head, self._reader
        tied = self._is_tied()
        stored = StoredLinear(spec.names.embedding if tied else spec.names.head, spec.vocab_size, self._embedding_size)
        bias = f"{spec.names.head}.bias" if head.bias else None
        if tied:
            kernel = reader.tied_head(table, stored, self._vocab, bias)
            reader.checkpoint.leave(f"{spec.names.head}.weight")
        else:
            kernel = reader.head(stored, self._vocab, bias, head.normalised)
        return ParallelLMHead(kernel, spec.vocab_size, self._group, head.scale, head.softcap)

    def _is_tied(self) -> bool:
        """Whether the embedding is the head. One that differs counts more than a config; an equal one is kept once."""
        spec, checkpoint = self._spec, self._reader.checkpoint
        embedding, head = f"{spec.names.embedding}.weight", f"{spec.names.head}.weight"
        if spec.head.tie is HeadTie.SEPARATE or not checkpoint.has(head):
            return spec.head.tie is not HeadTie.SEPARATE
        shape = (spec.vocab_size, self._embedding_size)
        same = torch.equal(checkpoint.view(head, shape), checkpoint.view(embedding, shape))
        if not same and spec.head.tie is HeadTie.TIED:
            logger.warning(DIFFERENT_HEAD, head, embedding)
        return same
