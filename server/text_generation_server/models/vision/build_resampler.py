"""Makes one rank's resampler, a perceiver of the tower's own width, from a spec and a checkpoint.

Heads and inner sizes are cut over ranks.
"""

from text_generation_server.distributed.group import TensorParallel
from text_generation_server.layers.norm import Norm
from text_generation_server.models.build_ends import build_norm
from text_generation_server.models.build_mlp import build_dense_mlp
from text_generation_server.models.tensors import StoredLinear, TensorReader
from text_generation_server.models.vision.perceiver import Perceiver, PerceiverLayer
from text_generation_server.specs.activation import Activation
from text_generation_server.specs.decoder import MlpSpec, layer_norm
from text_generation_server.specs.vision import ResamplerProjector
from text_generation_server.weights.layout import head_places, heads_of

EPS = 1e-5
"""Of all its norms."""


class ResamplerBuilder:
    """width: of the tower's features, and of what is made of them.

    Raises:
        UnsupportedModel: these ranks cannot divide the heads.
    """

    def __init__(self, spec: ResamplerProjector, reader: TensorReader, group: TensorParallel, width: int) -> None:
        self._spec, self._reader, self._group, self._width = spec, reader, group, width
        self._mine = heads_of(spec.heads, spec.heads, group.rank, group.world_size).query

    def build(self) -> Perceiver:
        """Read this rank's part of every tensor."""
        spec, prefix = self._spec, self._spec.prefix
        return Perceiver(
            None,
            self._reader.tensor(f"{prefix}latents", (spec.latents, self._width)),
            [self._layer(f"{prefix}blocks.{layer}.") for layer in range(spec.depth)],
            self._norm(f"{prefix}layer_norm", self._width),
        )

    def _layer(self, prefix: str) -> PerceiverLayer:
        spec, reader, width, attention = self._spec, self._reader, self._width, f"{prefix}0."
        outer = spec.heads * spec.head_dim
        queries, *keys_values = (StoredLinear(f"{attention}{part}_proj", outer, width) for part in "qkv")
        places = [head_places(part, self._mine, spec.head_dim, spec.head_dim) for part in range(2)]
        out = StoredLinear(f"{attention}output_proj", width, outer)
        mlp = MlpSpec(4 * width, Activation.RELU, gated=False)
        norms = [self._norm(f"{attention}{part}_layer_norm", spec.head_dim) for part in "qk" if spec.normed]
        return PerceiverLayer(
            self._norm(f"{attention}latents_layer_norm", width),
            self._norm(f"{attention}context_layer_norm", width),
            reader.column([queries], places[0], False),
            reader.column(keys_values, [*places[0], *places[1]], False),
            reader.row(out, places[0], False, self._group),
            self._norm(f"{prefix}1.ln", width),
            build_dense_mlp(reader, self._group, mlp, width, [f"{prefix}1.fc"], f"{prefix}1.c_proj"),
            spec.head_dim,
            (norms[0], norms[1]) if norms else None,
        )

    def _norm(self, name: str, size: int) -> Norm:
        return build_norm(self._reader, layer_norm(EPS), name, size)
