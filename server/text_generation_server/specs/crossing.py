"""Layers of a decoder that attend to images, as data: `models/crossing.py` runs a spec (arXiv 2204.14198).

Where a field's value comes from is said by the architecture that sets it.
"""

from dataclasses import dataclass

MOST_SEEN = 16
"""Images that a prompt may show to such layers: as many as routers let through unless told otherwise."""


@dataclass(frozen=True, slots=True)
class Views:
    """Which images a token sees: the last that stands before it, or at it.

    beside: and those side by side with that one that stand before it. end: a token behind which nothing is seen up to
    the next image; None for none.
    """

    beside: bool = False
    end: int | None = None


@dataclass(frozen=True, slots=True)
class CrossNames:
    """Where a layer's tensors are, relative to its prefix. Names without `.weight`, but for gates: those are complete.

    attention: queries, keys, values, output. up: gate and up. q_norm, k_norm: of each head; empty where there is none.
    """

    attention_norm: str
    attention: tuple[str, str, str, str]
    attention_gate: str
    mlp_norm: str
    up: tuple[str, ...]
    down: str
    mlp_gate: str
    q_norm: str = ""
    k_norm: str = ""


@dataclass(frozen=True, slots=True)
class CrossSpec:
    """x += tanh(g1) · attention(n1(x), images); x += tanh(g2) · mlp(n2(x)). Norms and MLP are as the decoder's.

    layers: of the decoder at which there is one, in order, each with the prefix of its tensors. instead: in place of
    the decoder's own; else before that.
    width: of an image's features. features: of an image, at most. gate: the shape of g1 and g2.
    eps: of norms of queries and keys, where there are any. blind: whether the second branch is for tokens that see no
    image too; the first adds nothing to those.
    """

    layers: tuple[tuple[int, str], ...]
    instead: bool
    heads: int
    kv_heads: int
    head_dim: int
    width: int
    features: int
    gate: tuple[int, ...]
    eps: float
    blind: bool
    views: Views
    names: CrossNames
