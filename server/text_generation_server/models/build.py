"""Makes one rank's decoder from a spec and a checkpoint, layer by layer. Knows no architecture and no form of weights.

Names come from the spec, rows and their order from `weights/layout.py`, the form from the reader's quantisation scheme.
"""

from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from text_generation_server.distributed.group import TensorParallel
from text_generation_server.layers.linear import LinearKernel
from text_generation_server.layers.norm import Identity, Norm, Scale
from text_generation_server.models.build_attention import AttentionBuilder
from text_generation_server.models.build_crossing import CrossBuilder
from text_generation_server.models.build_ends import EndsBuilder, build_norm
from text_generation_server.models.build_mlp import MlpBuilder
from text_generation_server.models.build_ssd import SsdBuilder
from text_generation_server.models.crossing import PrecededBlock
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
from text_generation_server.models.hybrid import HybridDecoder, RecurrentBranch
from text_generation_server.models.layerwise import build_layers
from text_generation_server.models.tensors import StoredLinear, TensorReader
from text_generation_server.models.vision.build import ReaderBuilder
from text_generation_server.specs.decoder import DecoderSpec, Wiring
from text_generation_server.specs.vision import VisionSpec
from text_generation_server.weights.layout import Partition


class DecoderBuilder:
    """Builds the decoder of one rank. backend: names the attention. narrow: see `PagedSpec`.

    Raises:
        UnsupportedModel: these ranks cannot divide the model, or the backend cannot compute it.
    """

    def __init__(
        self,
        spec: DecoderSpec,
        reader: TensorReader,
        group: TensorParallel,
        backend: str,
        narrow: torch.dtype | None = None,
    ) -> None:
        self._spec = spec
        self._reader = reader
        self._group = group
        self._attention = AttentionBuilder(spec, reader, group, backend, narrow)
        self._mlp = MlpBuilder(spec, reader, group)
        self._ssd_layers = sorted(spec.ssd_layers)
        self._ssd = None
        if spec.ssd is not None and spec.ssd_layers:
            self._ssd = SsdBuilder(spec.ssd, spec.hidden_size, len(spec.ssd_layers), reader, group)
        self._crossing = None if spec.crossing is None else CrossBuilder(spec.crossing, spec, reader, group)
        self._embedding_size = spec.embedding_size or spec.hidden_size
        self._ends = EndsBuilder(
            reader,
            group,
            vocab_size=spec.vocab_size,
            width=self._embedding_size,
            embedding=spec.names.embedding,
            head=spec.names.head,
            more=(spec.more_tokens, spec.names.more_embeddings, spec.names.more_head),
        )

    def build(self) -> Decoder:
        """Read this rank's part of every tensor.

        Raises:
            UnsupportedModel: the checkpoint is not what the spec says.
        """
        spec, reader, attention, crossing = self._spec, self._reader, self._attention, self._crossing
        vision = spec.vision if isinstance(spec.vision, VisionSpec) and crossing is None else None
        with ThreadPoolExecutor(1, "attention") as aside:
            backend = aside.submit(attention.make_backend)
            # First, because these are the largest tensors: while they are read, little else is in memory.
            table = self._ends.table()
            images = None if vision is None else ReaderBuilder(vision, reader, self._group, spec.hidden_size).build()
            decoder = Decoder(
                kv=attention.state,
                vocab_size=spec.vocab_size,
                max_positions=None if spec.max_positions is None else spec.max_positions.tokens,
                embedding=self._embedding(table),
                head=self._ends.head(table, spec.head),
                rotaries=attention.rotaries,
                blocks=build_layers(self._block, spec.num_layers),
                linears=reader.linears,
                final_norm=self._norm(spec.names.final_norm),
                projection=self._projection(spec.names.embedding_out, self._embedding_size, spec.hidden_size),
                reader=images,
                features=None if images is None else images.features,
                coordinates=None if images is None else images.coordinates,
                added=0 if vision is None else vision.added,
                attention=backend.result(),  # last: until here weights are read
            )
        if crossing is not None:
            return crossing.decoder(decoder)
        return decoder if self._ssd is None else HybridDecoder.of(decoder, self._ssd.state)

    def _block(self, layer: int) -> Block:
        if self._crossing is None or not self._crossing.has(layer):
            return self._own_block(layer)
        crossing = self._crossing.layer(layer)
        return crossing if self._crossing.instead else PrecededBlock(crossing, self._own_block(layer))

    def _own_block(self, layer: int) -> Block:
        names = self._spec.names
        prefix = names.layer.format(layer) + "."
        mlp = self._mlp.layer(prefix, layer)
        norm1, norm2 = (self._norm(prefix + name if name else "") for name in (names.attention_norm, names.mlp_norm))
        if self._ssd is not None and layer in self._spec.ssd_layers:
            mixer = RecurrentBranch(self._ssd.layer(prefix, self._ssd_layers.index(layer)))
            return SequentialBlock(BranchNorms(norm1, self._scale), mixer, BranchNorms(norm2, self._scale), mlp)
        attention = self._attention.layer(prefix, layer)
        match self._spec.wiring:
            case Wiring.PARALLEL:
                return ParallelBlock(norm1, attention, mlp, self._group)
            case Wiring.PARALLEL_TWO_NORMS:
                return ParallelTwoNormsBlock(norm1, attention, norm2, mlp, self._group)
            case Wiring.POST_NORM:
                return PostNormBlock(attention, norm1, mlp, norm2)
            case Wiring.SEQUENTIAL:
                after1 = after2 = self._scale
            case Wiring.SANDWICH | Wiring.OUTPUT_NORMS:
                after1, after2 = (self._norm(prefix + name) for name in (names.attention_out_norm, names.mlp_out_norm))
        return SequentialBlock(BranchNorms(norm1, after1), attention, BranchNorms(norm2, after2), mlp)

    @property
    def _scale(self) -> Norm:
        """Of what a branch of a sequential layer adds."""
        scale = self._spec.branch_scale
        return Identity() if scale == 1.0 else Scale(scale)

    def _norm(self, name: str) -> Norm:
        return build_norm(self._reader, self._spec.norm, name, self._spec.hidden_size)

    def _projection(self, name: str, outputs: int, inputs: int) -> LinearKernel | None:
        return self._reader.whole(StoredLinear(name, outputs, inputs)) if name else None

    def _embedding(self, table: Tensor) -> Embedding:
        spec, names = self._spec, self._spec.names
        positions = None
        if names.positions:
            assert spec.max_positions is not None
            first, size = spec.position_offset, spec.max_positions.tokens
            part = Partition(first, first + size, size)
            positions = self._reader.table([(names.positions, first + size)], spec.hidden_size, part)
        return Embedding(
            self._ends.embedding(table),
            torch.tensor(spec.embedding_scale, dtype=self._reader.dtype).item(),
            self._projection(names.embedding_in, spec.hidden_size, self._embedding_size),
            positions,
            self._norm(names.embedding_norm),
        )
