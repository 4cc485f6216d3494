"""Makes one rank's perceiver from a spec and a checkpoint. Heads and inner sizes are cut over ranks."""

from text_generation_server.distributed.group import TensorParallel
from text_generation_server.layers.norm import Norm
from text_generation_server.models.build_ends import build_norm
from text_generation_server.models.build_mlp import build_dense_mlp
from text_generation_server.models.decoder import DenseMlp
from text_generation_server.models.tensors import StoredLinear, TensorReader
from text_generation_server.models.vision.perceiver import Perceiver, PerceiverLayer
from text_generation_server.specs.decoder import MlpSpec, rms_norm
from text_generation_server.specs.vision import PerceiverProjector
from text_generation_server.weights.layout import head_places, heads_of


class PerceiverBuilder:
    """inputs: width of the tower's features. width: of the decoder's hidden state.

    Raises:
        UnsupportedModel: these ranks cannot divide the heads.
    """

    def __init__(
        self, spec: PerceiverProjector, reader: TensorReader, group: TensorParallel, inputs: int, width: int
    ) -> None:
        self._spec = spec
        self._reader = reader
        self._group = group
        self._inputs, self._width = inputs, width
        self._mine = heads_of(spec.heads, spec.kv_heads, group.rank, group.world_size)

    def build(self) -> Perceiver:
        """Read this rank's part of every tensor."""
        spec = self._spec
        mlp = MlpSpec(spec.inner_size, spec.activation, gated=True)
        resampler = f"{spec.prefix}perceiver_resampler."
        return Perceiver(
            self._mlp(mlp, f"{spec.prefix}modality_projection.", self._inputs),
            self._reader.tensor(f"{resampler}latents", (spec.latents, self._width)),
            [self._layer(f"{resampler}layers.{layer}.") for layer in range(spec.depth)],
            self._norm(f"{resampler}norm"),
        )

    def _layer(self, prefix: str) -> PerceiverLayer:
        spec, reader, mine, width = self._spec, self._reader, self._mine, self._width
        outer, inner = spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim
        queries, out = StoredLinear(f"{prefix}self_attn.q_proj", outer, width), f"{prefix}self_attn.o_proj"
        keys_values = [StoredLinear(f"{prefix}self_attn.{part}_proj", inner, width) for part in "kv"]
        places = [place for part in range(2) for place in head_places(part, mine.kv, spec.head_dim, spec.head_dim)]
        query_places = head_places(0, mine.query, spec.head_dim, spec.head_dim)
        return PerceiverLayer(
            self._norm(f"{prefix}input_latents_norm"),
            self._norm(f"{prefix}input_context_norm"),
            reader.column([queries], query_places, False),
            reader.column(keys_values, places, False),
            reader.row(StoredLinear(out, width, outer), query_places, False, self._group),
            self._norm(f"{prefix}post_attention_layernorm"),
            self._mlp(MlpSpec(4 * width, spec.layer_activation, gated=True), f"{prefix}mlp.", width),
            spec.head_dim,
        )

    def _mlp(self, spec: MlpSpec, prefix: str, inputs: int) -> DenseMlp:
        up, down = [f"{prefix}gate_proj", f"{prefix}up_proj"], f"{prefix}down_proj"
        return build_dense_mlp(self._reader, self._group, spec, inputs, up, down, outputs=self._width)

    def _norm(self, name: str) -> Norm:
        return build_norm(self._reader, rms_norm(self._spec.eps), name, self._width)
