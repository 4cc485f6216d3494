"""Makes one rank's layers that attend to images from a spec and a checkpoint, and what keeps keys and values for them.

Knows no architecture. Heads and inner sizes are cut over ranks as a decoder's are. Adapters change no such layer.
"""

from dataclasses import replace

from torch import Tensor

from text_generation_server.attention.base import LayerAttention
from text_generation_server.attention.viewing import ViewingAttention
from text_generation_server.cache.image_keys import ImageKeysSpec, ViewsSpec
from text_generation_server.cache.paged import PagedSpec
from text_generation_server.distributed.group import TensorParallel
from text_generation_server.layers.norm import Norm
from text_generation_server.layers.qk_norm import HeadRmsNorm
from text_generation_server.models.build_ends import build_norm
from text_generation_server.models.build_mlp import build_dense_mlp
from text_generation_server.models.crossing import CrossDecoder, GatedCrossBlock, ImageAttention
from text_generation_server.models.decoder import Decoder
from text_generation_server.models.tensors import StoredLinear, TensorReader
from text_generation_server.models.vision.build import ReaderBuilder
from text_generation_server.models.vision.build_tiled import TiledBuilder
from text_generation_server.models.vision.crossing import CrossReader, FeatureReader, KeysValues
from text_generation_server.specs.crossing import MOST_SEEN, CrossSpec
from text_generation_server.specs.decoder import DecoderSpec
from text_generation_server.specs.vision import TiledVisionSpec, VisionSpec
from text_generation_server.weights.layout import head_places, heads_of


class CrossBuilder:
    """Builds each layer when asked for. instead: see `CrossSpec`.

    Raises:
        UnsupportedModel: these ranks cannot divide the heads.
    """

    def __init__(self, spec: CrossSpec, decoder: DecoderSpec, reader: TensorReader, group: TensorParallel) -> None:
        self.instead = spec.instead
        self._spec, self._decoder = spec, decoder
        self._reader = reader.unadapted()
        self._group = group
        self._prefixes = dict(spec.layers)
        self._mine = heads_of(spec.heads, spec.kv_heads, group.rank, group.world_size)
        kv = PagedSpec(len(spec.layers), len(self._mine.kv), spec.head_dim, reader.dtype, reader.device)
        self._viewing = ViewingAttention(kv, len(self._mine.query))
        self._kept = ImageKeysSpec(replace(kv, slot_major=self._viewing.slot_major), spec.features)
        # After each image something may end what is seen.
        self._views = ViewsSpec(MOST_SEEN * spec.features, 2 * MOST_SEEN, reader.device)

    def has(self, layer: int) -> bool:
        """Whether the decoder has one at this layer."""
        return layer in self._prefixes

    def layer(self, layer: int) -> GatedCrossBlock:
        """The one at this layer."""
        spec, names, prefix = self._spec, self._spec.names, self._prefixes[layer]
        outer, hidden = spec.heads * spec.head_dim, self._decoder.hidden_size
        places = head_places(0, self._mine.query, spec.head_dim, spec.head_dim)
        number = list(self._prefixes).index(layer)
        attention = ImageAttention(
            self._reader.column([StoredLinear(prefix + names.attention[0], outer, hidden)], places, False),
            self._qk_norm(prefix, names.q_norm, len(self._mine.query)),
            self._reader.row(StoredLinear(prefix + names.attention[3], hidden, outer), places, False, self._group),
            spec.head_dim,
            LayerAttention(number, 0, spec.head_dim**-0.5),
        )
        up, down = [prefix + name for name in names.up], prefix + names.down
        return GatedCrossBlock(
            self._norm(prefix + names.attention_norm),
            attention,
            self._norm(prefix + names.mlp_norm),
            build_dense_mlp(self._reader, self._group, self._decoder.mlp, hidden, up, down),
            (self._gate(prefix + names.attention_gate), self._gate(prefix + names.mlp_gate)),
            spec.blind,
        )

    def decoder(self, decoder: Decoder) -> CrossDecoder:
        """The decoder with what reads images for these layers, and with their states."""
        layers = [self._keys_values(prefix) for prefix in self._prefixes.values()]
        reader = CrossReader(self._features(), layers, self._kept, self._spec.views)
        return CrossDecoder.of(replace(decoder, reader=reader), self._kept, self._views, self._viewing)

    def _features(self) -> FeatureReader:
        parts = self._reader, self._group, self._spec.width
        match vision := self._decoder.vision:
            case TiledVisionSpec():
                return TiledBuilder(vision, *parts).build()
            case VisionSpec():
                return ReaderBuilder(vision, *parts).build()
        raise AssertionError("nothing reads images")

    def _keys_values(self, prefix: str) -> KeysValues:
        spec, names = self._spec, self._spec.names
        sizes = spec.kv_heads * spec.head_dim, spec.width
        stored = [StoredLinear(prefix + name, *sizes) for name in names.attention[1:3]]
        every = (head_places(part, self._mine.kv, spec.head_dim, spec.head_dim) for part in range(2))
        linear = self._reader.column(stored, [place for places in every for place in places], False)
        return KeysValues(linear, self._qk_norm(prefix, names.k_norm, len(self._mine.kv)))

    def _qk_norm(self, prefix: str, name: str, heads: int) -> HeadRmsNorm | None:
        if not name:
            return None
        weight = self._reader.tensor(f"{prefix}{name}.weight", (self._spec.head_dim,))
        return HeadRmsNorm(weight.float().expand(heads, -1), self._spec.eps)

    def _gate(self, name: str) -> Tensor:
        return self._reader.tensor(name, self._spec.gate).flatten().tanh()

    def _norm(self, name: str) -> Norm:
        return build_norm(self._reader, self._decoder.norm, name, self._decoder.hidden_size)
