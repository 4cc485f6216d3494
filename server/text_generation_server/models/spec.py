"""What a decoder architecture is, as data: `decoder.py` runs a spec, `build.py` loads one. Knows no ranks.

Where a field's value comes from is said by the architecture that sets it.
"""

import math
from dataclasses import dataclass
from enum import Enum, auto

from text_generation_server.layers.activation import Activation
from text_generation_server.layers.alibi import AlibiSpec
from text_generation_server.layers.frequencies import RopeSpec
from text_generation_server.weights.layout import QkvLayout


class NormKind(Enum):
    """Root mean square, or mean and variance."""

    RMS = auto()
    LAYER = auto()


@dataclass(frozen=True, slots=True)
class NormSpec:
    """offset: added to the weights (Gemma stores w of 1 + w). bias: whether there is a bias tensor."""

    kind: NormKind
    eps: float
    offset: float = 0.0
    bias: bool = False


def rms_norm(eps: float, offset: float = 0.0) -> NormSpec:
    """Root mean square norm (arXiv 1910.07467)."""
    return NormSpec(NormKind.RMS, eps, offset)


def layer_norm(eps: float) -> NormSpec:
    """Layer norm with weight and bias (arXiv 1607.06450)."""
    return NormSpec(NormKind.LAYER, eps, bias=True)


@dataclass(frozen=True, slots=True)
class AttentionSpec:
    """Self-attention of every layer.

    scale: of the scores, None for 1/sqrt(head_dim). inverse_layer_scale: also divide by the layer's number, from 1.
    windows: for each layer the newest keys a query sees, None for all; empty if no layer slides.
    """

    heads: int
    kv_heads: int
    head_dim: int
    qkv_bias: bool = False
    out_bias: bool = False
    rope: RopeSpec | None = None
    alibi: AlibiSpec | None = None
    windows: tuple[int | None, ...] = ()
    scale: float | None = None
    inverse_layer_scale: bool = False

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


class Wiring(Enum):
    """How a layer's branches join the residual stream x (n1, n2 are its norms)."""

    SEQUENTIAL = auto()
    """x += attention(n1(x)); x += mlp(n2(x))"""
    PARALLEL = auto()
    """y = n1(x); x += attention(y) + mlp(y)"""
    PARALLEL_TWO_NORMS = auto()
    """x += attention(n1(x)) + mlp(n2(x))"""


class HeadTie(Enum):
    """Where the output head's weights are."""

    TIED = auto()
    """The embedding is the head, even if the checkpoint has a copy."""
    SEPARATE = auto()
    """A tensor of its own."""
    IF_ABSENT = auto()
    """A tensor of its own if the checkpoint has it, otherwise the embedding."""


@dataclass(frozen=True, slots=True)
class CheckpointNames:
    """Where each tensor is. Names without `.weight` and `.bias`; those of layers are relative to `layer`.

    family_prefix: may be missing from every name of a checkpoint. layer: has a place for the layer's number.
    qkv: three names (SPLIT) or one. up: gate and up, or one name for both, gate first, or for the one if not gated.
    mlp_norm: empty where the wiring has one norm. positions, embedding_norm: empty where there is none.
    conv1d: linears of layers are stored [in, out].
    """

    family_prefix: str
    embedding: str
    layer: str
    attention_norm: str
    mlp_norm: str
    qkv: tuple[str, ...]
    attention_out: str
    up: tuple[str, ...]
    down: str
    final_norm: str
    head: str = "lm_head"
    qkv_layout: QkvLayout = QkvLayout.SPLIT
    positions: str = ""
    embedding_norm: str = ""
    conv1d: bool = False


@dataclass(frozen=True, slots=True)
class DecoderSpec:
    """One architecture with its sizes.

    max_positions: what rotary models were made for, the rows of a learned table, None if unbounded.
    embedding_scale: multiplies embeddings, rounded to their dtype first.
    """

    vocab_size: int
    hidden_size: int
    num_layers: int
    norm: NormSpec
    attention: AttentionSpec
    mlp: MlpSpec
    names: CheckpointNames
    head: HeadTie
    wiring: Wiring = Wiring.SEQUENTIAL
    max_positions: int | None = None
    embedding_scale: float = 1.0
