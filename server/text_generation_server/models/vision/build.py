"""Makes one rank's reader of images from a spec and a checkpoint. Knows no architecture.

Heads and inner sizes are cut over ranks, as a decoder's are; every rank gets all features. Weights are plain in every
form of a checkpoint.
"""

from collections.abc import Callable

from torch import Tensor

from text_generation_server.cache.coordinates import CoordinatesSpec
from text_generation_server.cache.features import FeaturesSpec
from text_generation_server.distributed.group import TensorParallel
from text_generation_server.layers.norm import Norm
from text_generation_server.layers.rotary import AxialRotary
from text_generation_server.models.build_ends import build_norm
from text_generation_server.models.build_mlp import build_dense_mlp
from text_generation_server.models.layerwise import build_layers
from text_generation_server.models.tensors import StoredLinear, TensorReader
from text_generation_server.models.vision import projector
from text_generation_server.models.vision.arrangement import Arranging
from text_generation_server.models.vision.build_perceiver import PerceiverBuilder
from text_generation_server.models.vision.build_resampler import ResamplerBuilder
from text_generation_server.models.vision.packing import TilePacking
from text_generation_server.models.vision.reading import PATCHES, ImageReader, Packing
from text_generation_server.models.vision.tower import (
    PackedEmbedding,
    PatchEmbedding,
    Tower,
    TowerAttention,
    TowerBlock,
)
from text_generation_server.specs.activation import Activation
from text_generation_server.specs.decoder import MlpSpec, layer_norm, rms_norm
from text_generation_server.specs.names import QkvLayout
from text_generation_server.specs.vision import (
    MergedProjector,
    MlpProjector,
    PackedSpec,
    PerceiverProjector,
    PooledProjector,
    ResamplerProjector,
    ShuffledProjector,
    StackedProjector,
    VisionSpec,
)
from text_generation_server.weights.layout import Heads, head_places, heads_of, qkv_places, qkv_sizes


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
        packed = self._tower.packed
        return ImageReader(
            self._build_tower(),
            self._projector(),
            self._packing(),
            FeaturesSpec((1 + self._spec.added) * self._width, self._reader.dtype, self._reader.device),
            self._spec.sight,
            tiles=PATCHES if packed is not None else max(1, PATCHES // self._tower.side**2),
            patch_size=self._tower.patch_size if self._spec.ragged else None,
            arranging=None if packed is None else self._arranging(packed),
            coordinates=CoordinatesSpec(self._reader.device) if self._spec.coordinates else None,
            merged=1 if packed is None else packed.merged,
        )

    def _arranging(self, spec: PackedSpec) -> Arranging:
        rotary = AxialRotary(self._tower.hidden_size // self._tower.heads, spec.theta, self._reader.device)
        return Arranging(spec, rotary, self._reader.device)

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

    def _embedding(self) -> PatchEmbedding | PackedEmbedding:
        spec, names, reader = self._tower, self._tower.names, self._reader
        shape = spec.hidden_size, spec.channels, spec.patch_size, spec.patch_size
        if spec.packed is not None:
            kernel = reader.convolution(names.patches, shape, spec.patch_bias, spec.packed.frames)
            size = spec.packed.side**2, spec.hidden_size
            return PackedEmbedding(kernel, reader.tensor(f"{names.positions}.weight", size) if size[0] else None)
        linear = reader.convolution(names.patches, shape, spec.patch_bias)
        class_token = reader.vector(names.class_token, spec.hidden_size)[None] if names.class_token else None
        count = spec.side**2 + (class_token is not None)
        positions = reader.tensor(f"{names.positions}.weight", (count, spec.hidden_size))
        return PatchEmbedding(spec.patch_size, linear, positions, class_token, spec.by_fraction)

    def _block(self, layer: int) -> TowerBlock:
        spec, names, hidden = self._tower, self._tower.names, self._tower.hidden_size
        prefix, head_dim = names.layer.format(layer) + ".", hidden // self._tower.heads
        layout = QkvLayout.SPLIT if len(names.qkv) == 3 else QkvLayout.CONCAT
        shape, mine = (layout, spec.heads, spec.heads, head_dim), Heads(self._mine, self._mine)
        stored = [
            StoredLinear(prefix + name, size, hidden) for name, size in zip(names.qkv, qkv_sizes(*shape), strict=True)
        ]
        out = StoredLinear(prefix + names.out, hidden, hidden)
        mlp = MlpSpec(spec.inner_size, spec.activation, gated=bool(names.gate), bias=True)
        up = [prefix + name for name in (names.gate, names.up) if name]
        windowed = spec.packed is not None and spec.packed.window > 0 and layer not in spec.packed.whole
        return TowerBlock(
            self._norm(prefix + names.norm1),
            TowerAttention(
                self._reader.column(stored, qkv_places(*shape, mine), True),
                self._reader.row(out, head_places(0, self._mine, head_dim, head_dim), True, self._group),
                head_dim,
                windowed,
            ),
            self._norm(prefix + names.norm2),
            build_dense_mlp(self._reader, self._group, mlp, hidden, up, prefix + names.down),
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
            case MergedProjector():
                return self._merged_projector(spec)
            case StackedProjector():
                return projector.StackedProjector([self._merged_projector(part) for part in spec.parts])
            case PerceiverProjector():
                return PerceiverBuilder(spec, self._reader, self._group, self._tower.width, self._width).build()

    def _mlp_projector(self, spec: MlpProjector) -> projector.PatchProjector:
        mlp = MlpSpec(self._width, spec.activation, gated=False, bias=spec.bias)
        return projector.PatchProjector(
            build_dense_mlp(
                self._reader, self._group, mlp, self._tower.width, [spec.first], spec.second, outputs=self._width
            )
        )

    def _merged_projector(self, spec: MergedProjector) -> projector.MergedProjector:
        inputs = spec.merged * self._tower.hidden_size
        mlp = MlpSpec(inputs, Activation.GELU, gated=False, bias=True)
        linears = build_dense_mlp(
            self._reader, self._group, mlp, inputs, [spec.first], spec.second, outputs=self._width
        )
        norm = self._norm(spec.norm, inputs if spec.norm_last else self._tower.hidden_size)
        return projector.MergedProjector(spec.merged, norm, linears, spec.norm_last)

    def _packing(self) -> Packing:
        spec = self._spec.packing
        if spec is None:
            return lambda features, _: features.flatten(0, 1)
        return TilePacking(self._reader.vector(spec.newline, self._width))

    def _norm(self, name: str, size: int | None = None) -> Norm:
        norm = rms_norm(self._tower.eps) if self._tower.rms else layer_norm(self._tower.eps)
        return build_norm(self._reader, norm, name, size or self._tower.hidden_size)
