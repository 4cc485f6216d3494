"""What a decoder architecture is, as data: `models/decoder.py` runs a spec, `models/build.py` loads one.

Where a field's value comes from is said by the architecture that sets it.
"""

import math
from dataclasses import dataclass, field
from enum import Enum, auto

from text_generation_server.specs.activation import Activation
from text_generation_server.specs.alibi import AlibiSpec
from text_generation_server.specs.crossing import CrossSpec
from text_generation_server.specs.names import CheckpointNames
from text_generation_server.specs.rope import RopeSpec
from text_generation_server.specs.ssd import SsdSpec
from text_generation_server.specs.vision import TiledVisionSpec, VisionSpec


class NormKind(Enum):
    """Root mean square, or mean and variance."""

    RMS = auto()
    LAYER = auto()


@dataclass(frozen=True, slots=True)
class NormSpec:
    """offset: added to the weights (Gemma stores w of 1 + w). bias, weight: whether there are such tensors."""

    kind: NormKind
    eps: float
    offset: float = 0.0
    bias: bool = False
    weight: bool = True


def rms_norm(eps: float, offset: float = 0.0) -> NormSpec:
    """Root mean square norm (arXiv 1910.07467)."""
    return NormSpec(NormKind.RMS, eps, offset)


def layer_norm(eps: float, bias: bool = True, weight: bool = True) -> NormSpec:
    """Layer norm (arXiv 1607.06450), with weight and bias unless said otherwise."""
    return NormSpec(NormKind.LAYER, eps, bias=bias, weight=weight)


class QkNormScope(Enum):
    """What one norm of queries or keys spans, and so its weights in the checkpoint."""

    HEAD = auto()
    """Each head by itself, all with the same weights [head_dim]."""
    EACH_HEAD = auto()
    """Each head by itself, with weights of its own: [heads, head_dim], or a tensor a head."""
    ALL_HEADS = auto()
    """All heads of the model together: [heads · head_dim]."""


@dataclass(frozen=True, slots=True)
class QkNormSpec:
    """A norm of queries and of keys, before they are rotated. No bias."""

    norm: NormSpec
    scope: QkNormScope


@dataclass(frozen=True, slots=True)
class AttentionSpec:
    """Self-attention of every layer.

    rope: of every layer; ropes, if not empty: of each layer, None where one has no positions.
    windows: for each layer the newest keys a query sees, None for all; may be empty if no layer slides.
    scale: of the scores, None for 1/sqrt(head_dim). inverse_layer_scale: also divide by the layer's number, from 1.
    softcap: bounds scaled scores to ±softcap by tanh. clip_qkv: bounds queries, keys and values to ±clip_qkv.
    sinks: whether each head has a score of its own that takes part in the softmax, and no value (arXiv 2309.17453).
    """

    heads: int
    kv_heads: int
    head_dim: int
    qkv_bias: bool = False
    out_bias: bool = False
    rope: RopeSpec | None = None
    ropes: tuple[RopeSpec | None, ...] = ()
    alibi: AlibiSpec | None = None
    windows: tuple[int | None, ...] = ()
    scale: float | None = None
    inverse_layer_scale: bool = False
    softcap: float | None = None
    clip_qkv: float | None = None
    sinks: bool = False
    qk_norm: QkNormSpec | None = None

    def rope_of(self, layer: int) -> RopeSpec | None:
        """The rotary embedding of this layer, None if it has none."""
        return self.ropes[layer] if self.ropes else self.rope

    def window_of(self, layer: int) -> int | None:
        """Newest keys a query of this layer sees, None for all."""
        return self.windows[layer] if self.windows else None

    def scale_of(self, layer: int) -> float:
        """What this layer's scores are multiplied by."""
        scale = 1.0 / math.sqrt(self.head_dim) if self.scale is None else self.scale
        return scale / (layer + 1) if self.inverse_layer_scale else scale


@dataclass(frozen=True, slots=True)
class MlpSpec:
    """`down(act(up(x)))`, or gated: `down(act(gate(x)) * up(x))`."""

    inner_size: int
    activation: Activation
    gated: bool
    bias: bool = False


@dataclass(frozen=True, slots=True)
class MoeSpec:
    """A mixture of gated experts (arXiv 2101.03961): each token goes to the `top_k` that a softmax over all prefers.

    normalise: order of the norm that chosen weights are divided by (1: they sum to one), None to leave them.
    shared_size: inner size of an expert that every token passes, scaled by a sigmoid gate of its own; 0 for none.
    dense_layers: layers with the spec's plain MLP instead. bias, router_bias: of the experts' linears, of the router's.
    """

    experts: int
    top_k: int
    inner_size: int
    activation: Activation
    normalise: float | None = 1.0
    shared_size: int = 0
    dense_layers: frozenset[int] = frozenset()
    bias: bool = False
    router_bias: bool = False


class Wiring(Enum):
    """How a layer's branches join the residual stream x (n1, n2 are its norms, o1, o2 those of branches' outputs)."""

    SEQUENTIAL = auto()
    """x += attention(n1(x)); x += mlp(n2(x))"""
    SANDWICH = auto()
    """x += o1(attention(n1(x))); x += o2(mlp(n2(x)))"""
    OUTPUT_NORMS = auto()
    """x += o1(attention(x)); x += o2(mlp(x))"""
    POST_NORM = auto()
    """x = n1(x + attention(x)); x = n2(x + mlp(x))"""
    PARALLEL = auto()
    """y = n1(x); x += attention(y) + mlp(y)"""
    PARALLEL_TWO_NORMS = auto()
    """x += attention(n1(x)) + mlp(n2(x))"""


@dataclass(frozen=True, slots=True)
class PositionLimit:
    """How many positions a model is good for. source: the file and keys that say so, for messages."""

    tokens: int
    source: str = field(default="", compare=False)


class HeadTie(Enum):
    """Where the output head's weights are."""

    TIED = auto()
    """The embedding is the head, unless the checkpoint has another one: then its files are right, its config is not."""
    SEPARATE = auto()
    """A tensor of its own."""
    IF_ABSENT = auto()
    """As TIED, by a family's habit: a head that differs is nothing to be told."""


DIFFERENT_HEAD = (
    "tie_word_embeddings of config.json is true, but the checkpoint's {} differs from its {}: it is used as the head; "
    "set tie_word_embeddings to false to say so"
)
"""The warning, with places for the names of head and embedding."""


@dataclass(frozen=True, slots=True)
class HeadSpec:
    """The output head. The logits are multiplied by `scale`, then bounded to ±`softcap` by tanh.

    bias: of the linear. normalised: each token's weights are divided by their length. unchosen: so many tokens at the
    vocabulary's end have embeddings only, and are never chosen.
    """

    tie: HeadTie
    bias: bool = False
    scale: float = 1.0
    softcap: float | None = None
    normalised: bool = False
    unchosen: int = 0


@dataclass(frozen=True, slots=True)
class DecoderSpec:
    """One architecture with its sizes.

    more_tokens: how many of the vocabulary, the last, have embeddings and rows of the head in tensors of their own.
    mlp: of every layer, or of the dense ones where `moe` says which those are.
    max_positions: what rotary models are good for, the rows of a learned table, None if unbounded.
    position_offset: first row of a learned table that a position uses.
    embedding_scale: multiplies embeddings, rounded to their dtype first. embedding_size: their width, if not the
    hidden state's. branch_scale: multiplies what each branch of a sequential layer adds.
    ssd: what layers of `ssd_layers` have in place of attention; these are sequential.
    vision: what reads images for it, None where it takes none. crossing: what lets its tokens attend to them; None
    where features stand at positions of the prompt.
    """

    vocab_size: int
    hidden_size: int
    num_layers: int
    norm: NormSpec
    attention: AttentionSpec
    mlp: MlpSpec
    names: CheckpointNames
    head: HeadSpec
    wiring: Wiring = Wiring.SEQUENTIAL
    moe: MoeSpec | None = None
    max_positions: PositionLimit | None = None
    position_offset: int = 0
    embedding_scale: float = 1.0
    embedding_size: int | None = None
    branch_scale: float = 1.0
    ssd: SsdSpec | None = None
    ssd_layers: frozenset[int] = frozenset()
    vision: VisionSpec | TiledVisionSpec | None = None
    crossing: CrossSpec | None = None
    more_tokens: int = 0

    @property
    def attending(self) -> tuple[int, ...]:
        """The layers that keep keys and values of tokens, in order."""
        return tuple(layer for layer in range(self.num_layers) if layer not in self.ssd_layers | self._replaced)

    @property
    def _replaced(self) -> frozenset[int]:
        """The layers that attend to images in place of tokens."""
        crossing = self.crossing
        return frozenset(layer for layer, _ in crossing.layers) if crossing and crossing.instead else frozenset()

    @property
    def rotates(self) -> bool:
        """Whether positions are rotated into it, in any layer."""
        return self.attention.rope is not None or any(self.attention.ropes)
