"""Makes one rank's reader of images from a spec and a checkpoint. Knows no architecture.

Heads and inner sizes are cut over ranks, as a decoder's are; every rank gets all features. Weights are plain in every
form of a checkpoint.
"""

from collections.abc import Callable

from torch import Tensor

from text_generation_server.cache.features import FeaturesSpec
from text_generation_server.distributed.group import TensorParallel
from text_generation_server.layers.norm import Norm
from text_generation_server.models.build_ends import build_norm
from text_generation_server.models.build_mlp import build_dense_mlp
from text_generation_server.models.layerwise import build_layers
from text_generation_server.models.tensors import StoredLinear, TensorReader
from text_generation_server.models.vision import projector
from text_generation_server.models.vision.build_perceiver import PerceiverBuilder
from text_generation_server.models.vision.build_resampler import ResamplerBuilder
from text_generation_server.models.vision.packing import TilePacking
from text_generation_server.models.vision.reading import PATCHES, ImageReader, Packing
from text_generation_server.models.vision.tower import PatchEmbedding, Tower, TowerAttention, TowerBlock
from text_generation_server.specs.decoder import MlpSpec, layer_norm, rms_norm
from text_generation_server.specs.vision import (
    MlpProjector,
    PerceiverProjector,
    PooledProjector,
    ResamplerProjector,
    ShuffledProjector,
    VisionSpec,
)
from text_generation_server.weights.layout import head_places, heads_of


class ReaderBuilder:
    """Builds the reader of one rank. width: of the decoder's hidden state.

    Raises:
        UnsupportedModel: these ranks cannot divide the heads.
    """

    def __init__(self, spec: VisionSpec, reader: TensorReader, group: TensorParallel, width: int) -> None:
        self._spec = spec
        self._tower = spec.tower
        self._reader = reader.plain()
        self._group = group
        self._width = width
        self._mine = heads_of(spec.tower.heads, spec.tower.heads, group.rank, group.world_size).query

    def build(self) -> ImageReader:
        """Read this rank's part of every tensor.

        Raises:
            UnsupportedModel: the checkpoint is not what the spec says.
        """
        return ImageReader(
            self._build_tower(),
            self._projector(),
            self._packing(),
            FeaturesSpec(self._width, self._reader.dtype, self._reader.device),
            self._spec.sight,
            tiles=max(1, PATCHES // self._tower.side**2),
            patch_size=self._tower.patch_size if self._spec.ragged else None,
        )

    def _build_tower(self) -> Tower:
        spec, names = self._tower, self._tower.names
        for name in names.unused:
            self._reader.checkpoint.leave(name)
        return Tower(
            self._embedding(),
            self._norm(names.before),
            build_layers(self._block, max(spec.taken)),
            self._norm(names.after),
            spec.taken,
            extra=1 if names.class_token and not spec.keeps_class else 0,
        )

    def _embedding(self) -> PatchEmbedding:
        spec, names, reader = self._tower, self._tower.names, self._reader
        shape = spec.hidden_size, spec.channels, spec.patch_size, spec.patch_size
        linear = reader.convolution(names.patches, shape, spec.patch_bias)
        class_token = reader.vector(names.class_token, spec.hidden_size)[None] if names.class_token else None
        count = spec.side**2 + (class_token is not None)
        positions = reader.tensor(f"{names.positions}.weight", (count, spec.hidden_size))
        return PatchEmbedding(spec.patch_size, linear, positions, class_token, spec.by_fraction)

    def _block(self, layer: int) -> TowerBlock:
        spec, names, hidden = self._tower, self._tower.names, self._tower.hidden_size
        prefix, head_dim = names.layer.format(layer) + ".", hidden // self._tower.heads
        stored = [StoredLinear(prefix + name, hidden, hidden) for name in names.qkv]
        places = [place for part in range(3) for place in head_places(part, self._mine, head_dim, head_dim)]
        out = StoredLinear(prefix + names.out, hidden, hidden)
        mlp = MlpSpec(spec.inner_size, spec.activation, gated=False, bias=True)
        return TowerBlock(
            self._norm(prefix + names.norm1),
            TowerAttention(
                self._reader.column(stored, places, True),
                self._reader.row(out, head_places(0, self._mine, head_dim, head_dim), True, self._group),
                head_dim,
            ),
            self._norm(prefix + names.norm2),
            build_dense_mlp(self._reader, self._group, mlp, hidden, [prefix + names.up], prefix + names.down),
        )

    def _projector(self) -> Callable[[Tensor], Tensor]:
        match spec := self._spec.projector:
            case None:
                return lambda features: features
            case ResamplerProjector():
                return ResamplerBuilder(spec, self._reader, self._group, self._width).build()
            case MlpProjector():
                return self._mlp_projector(spec)
            case PooledProjector():
                norm = build_norm(self._reader, rms_norm(spec.eps, offset=1.0), spec.norm, self._tower.width)
                weight = self._reader.tensor(spec.weight, (self._tower.width, self._width))
                return projector.SquaresProjector(spec.pooled, norm, weight)
            case ShuffledProjector():
                shape = self._width, self._tower.width * spec.side**2
                return projector.ShuffledProjector(
                    spec.side, self._reader.whole(StoredLinear(spec.linear, *shape), spec.bias)
                )

            case PerceiverProjector():
                return PerceiverBuilder(spec, self._reader, self._group, self._tower.width, self._width).build()

    def _mlp_projector(self, spec: MlpProjector) -> projector.PatchProjector:
        mlp = MlpSpec(self._width, spec.activation, gated=False, bias=spec.bias)
        return projector.PatchProjector(
            build_dense_mlp(
                self._reader, self._group, mlp, self._tower.width, [spec.first], spec.second, outputs=self._width
            )
        )

    def _packing(self) -> Packing:
        spec = self._spec.packing
        if spec is None:
            return lambda features, _: features.flatten(0, 1)
        return TilePacking(self._reader.vector(spec.newline, self._width))

    def _norm(self, name: str) -> Norm:
        return build_norm(self._reader, layer_norm(self._tower.eps), name, self._tower.hidden_size)
