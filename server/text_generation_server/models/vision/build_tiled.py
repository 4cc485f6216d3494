"""Makes one rank's tiled tower from a spec and a checkpoint. Heads and inner sizes are cut over ranks."""

from collections.abc import Mapping
from math import prod

from torch import Tensor

from text_generation_server.distributed.group import TensorParallel
from text_generation_server.layers.norm import Norm
from text_generation_server.models.build_ends import build_norm
from text_generation_server.models.build_mlp import build_dense_mlp
from text_generation_server.models.layerwise import build_layers
from text_generation_server.models.tensors import StoredLinear, TensorReader
from text_generation_server.models.vision.tiled import Shape, TiledBlock, TiledReader, TiledTower
from text_generation_server.specs.decoder import MlpSpec, layer_norm
from text_generation_server.specs.vision import TiledVisionSpec
from text_generation_server.weights.layout import head_places, heads_of

OUTER_EPS = 1e-5
"""Of norms that are not in a layer."""


class TiledBuilder:
    """Builds the reader of one rank. width: of its features.

    Raises:
        UnsupportedModel: these ranks cannot divide the heads.
    """

    def __init__(self, spec: TiledVisionSpec, reader: TensorReader, group: TensorParallel, width: int) -> None:
        self._spec, self._reader, self._group, self._width = spec, reader.plain(), group, width
        self._mine = heads_of(spec.heads, spec.heads, group.rank, group.world_size).query

    def build(self) -> TiledReader:
        """Read this rank's part of every tensor."""
        reader, linear = self._reader, StoredLinear(self._spec.names.projector, self._width, self._spec.width)
        return TiledReader(self._tower(), reader.whole(linear, has_bias=True), reader.device, reader.dtype)

    def _tower(self) -> TiledTower:
        spec, names, reader = self._spec, self._spec.names, self._reader
        kernel = spec.hidden_size, spec.channels, spec.patch_size, spec.patch_size
        return TiledTower(
            spec.patch_size,
            reader.convolution(names.patches, kernel, False),
            reader.vector(names.class_token, spec.hidden_size)[None],
            self._shapes(),
            self._norm(names.before, OUTER_EPS),
            build_layers(lambda layer: self._block(names.layer.format(layer), gated=False), spec.layers),
            self._norm(names.after, OUTER_EPS),
            build_layers(lambda layer: self._block(names.global_layer.format(layer), gated=True), spec.global_layers),
            spec.taken,
        )

    def _shapes(self) -> Mapping[tuple[int, ...], Shape]:
        spec, names, hidden, reader = self._spec, self._spec.names, self._spec.hidden_size, self._reader
        count, most = spec.tokens, spec.most_tiles
        before, after = (
            self._by_shape(f"{name}.embedding.weight", most, hidden).mul_(self._gate(f"{name}.gate"))
            for name in (names.before_tiles, names.after_tiles)
        )
        gate = self._gate(f"{names.places}.gate")
        of_tiles = self._by_shape(f"{names.places}.tile_embedding.weight", most, count, hidden).mul_(gate)
        of_tiles += reader.tensor(f"{names.places}.embedding", (count, hidden)).mul_(1 - gate)
        return {grid: Shape(before[n], of_tiles[n], after[n]) for n, grid in enumerate(spec.shapes, 1)}

    def _by_shape(self, name: str, *sizes: int) -> Tensor:
        """[shapes + 1, *sizes]: the first is of no image."""
        count = len(self._spec.shapes) + 1
        return self._reader.tensor(name, (count, prod(sizes))).view(count, *sizes)

    def _block(self, prefix: str, gated: bool) -> TiledBlock:
        spec, names, hidden = self._spec, self._spec.names, self._spec.hidden_size
        head_dim = hidden // spec.heads
        stored = [StoredLinear(f"{prefix}.{name}", hidden, hidden) for name in names.qkv]
        places = [place for part in range(3) for place in head_places(part, self._mine, head_dim, head_dim)]
        out_places = head_places(0, self._mine, head_dim, head_dim)
        mlp = MlpSpec(spec.inner_size, spec.activation, gated=False, bias=True)
        up, down = [f"{prefix}.{names.up}"], f"{prefix}.{names.down}"
        return TiledBlock(
            self._norm(f"{prefix}.{names.norm1}", spec.eps),
            self._reader.column(stored, places, False),
            self._reader.row(StoredLinear(f"{prefix}.{names.out}", hidden, hidden), out_places, False, self._group),
            self._norm(f"{prefix}.{names.norm2}", spec.eps),
            build_dense_mlp(self._reader, self._group, mlp, hidden, up, down),
            head_dim,
            (self._gate(f"{prefix}.gate_attn"), self._gate(f"{prefix}.gate_ffn")) if gated else None,
        )

    def _gate(self, name: str) -> Tensor:
        return self._reader.tensor(name, (1,)).tanh()

    def _norm(self, name: str, eps: float) -> Norm:
        return build_norm(self._reader, layer_norm(eps), name, self._spec.hidden_size)
