"""What reads images for a decoder is, as data: `models/vision/` runs a spec.

A tower makes features of the patches of an image's tiles, a projector brings them to the decoder's width, packing puts
those of an image in the order of its positions. Where a field's value comes from is said by the architecture that
sets it.
"""

from dataclasses import dataclass
from enum import Enum, auto

from text_generation_server.specs.activation import Activation


class Sight(Enum):
    """Which positions see others that are behind them."""

    CAUSAL = auto()
    """None."""
    IMAGES = auto()
    """Those of an image, the rest of it, within windows."""
    PROMPTS = auto()
    """Those of a prompt, all of it, whatever windows there are: the answer alone is causal, and within windows."""


@dataclass(frozen=True, slots=True)
class TowerNames:
    """Where a tower's tensors are. Names without `.weight` and `.bias`; those of layers are relative to `layer`.

    layer: has a place for the layer's number. qkv: queries, keys, values, or one for all, in this order. positions:
    empty where none are learned. gate: of MLPs, empty where they have none. class_token, before, after: the whole name
    of a tensor, and of norms before and after all layers; empty where there is none. unused: names of tensors of
    checkpoints that nothing reads.
    """

    patches: str
    positions: str
    layer: str
    norm1: str
    qkv: tuple[str, ...]
    out: str
    norm2: str
    up: str
    down: str
    class_token: str = ""
    before: str = ""
    after: str = ""
    gate: str = ""
    unused: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PackedSpec:
    """Images of nearly their own size, each one tile, whose patches come packed: those of a square one after the other.

    merged: patches in a row of such a square. frames: that an embedding sees, of a film; an image stands still in all.
    theta: of the rotation that tells where a patch is, half of a head's pairs by its row, half by its column.
    window: squares in a row of a window, whose patches see each other; 0 where all see all, as they do in layers
    `whole`, numbered from 0. side: of a square of learned positions, which are stretched over all patches and added; 0
    for none.
    """

    merged: int
    frames: int
    theta: float
    window: int = 0
    whole: frozenset[int] = frozenset()
    side: int = 0


@dataclass(frozen=True, slots=True)
class TowerSpec:
    """A vision transformer (arXiv 2010.11929): in every layer x += attention(n1(x)); x += mlp(n2(x)), all with biases.

    layers: of the checkpoint. taken: numbers of layers, counted from 1, whose outputs are the features, side by side; 0
    is what the first layer reads. No layer behind the last of them is run. eps: of its norms, which have biases too.
    patch_bias: whether the product that embeds patches has one. by_fraction: tiles may be of other sizes, and a patch
    has the learned position that is as far in the table's rows and columns as it is in the tile's (NaViT).
    rms: norms are root mean square norms, without biases. packed: how patches come that are no part of a tile of
    `image_size`, None where they are.
    keeps_class: whether the class token is a feature too, the first.
    """

    hidden_size: int
    layers: int
    heads: int
    image_size: int
    patch_size: int
    channels: int
    inner_size: int
    activation: Activation
    eps: float
    names: TowerNames
    taken: tuple[int, ...]
    patch_bias: bool = False
    by_fraction: bool = False
    rms: bool = False
    packed: PackedSpec | None = None
    keeps_class: bool = False

    @property
    def side(self) -> int:
        """Patches in a row of a tile, and rows of them."""
        return self.image_size // self.patch_size

    @property
    def width(self) -> int:
        """Of a patch's features."""
        return self.hidden_size * len(self.taken)


@dataclass(frozen=True, slots=True)
class MlpProjector:
    """second(act(first(x))), of each patch. first, second: names without suffix."""

    first: str
    second: str
    activation: Activation
    bias: bool


@dataclass(frozen=True, slots=True)
class PooledProjector:
    """norm(mean(x)) · weight, of squares of patches.

    pooled: patches in a row of such a square. norm: the name of a root mean square norm of 1 + weight, with `eps`.
    weight: the whole name of a matrix [in, out].
    """

    pooled: int
    norm: str
    eps: float
    weight: str


@dataclass(frozen=True, slots=True)
class ShuffledProjector:
    """linear(x), of squares of patches side by side, row by row. side: patches in a row of such a square.

    linear: its name without suffix.
    """

    side: int
    linear: str
    bias: bool = False


@dataclass(frozen=True, slots=True)
class MergedProjector:
    """second(gelu(first(norm(x)))), of so many normalised patches in turn, side by side. norm: as the tower's are.

    norm, first, second: names without suffix; all have biases, but for norms that have none. norm_last: the norm is of
    what is side by side, not of each patch.
    """

    merged: int
    norm: str
    first: str
    second: str
    norm_last: bool = False


@dataclass(frozen=True, slots=True)
class StackedProjector:
    """A projector for each layer of the tower that is taken (arXiv 2406.04334).

    What the last makes stands for a token, what the others make is added behind the decoder's first layers, in order.
    """

    parts: tuple[MergedProjector, ...]


@dataclass(frozen=True, slots=True)
class PerceiverProjector:
    """A gated MLP of each patch, then so many `latents` a tile that look at its patches and at each other, in layers.

    inner_size, activation: of the MLP. depth: layers; eps: of their norms. layer_activation: of their own gated MLPs,
    four times as wide as the decoder. All names begin with `prefix`.
    """

    inner_size: int
    activation: Activation
    latents: int
    depth: int
    heads: int
    kv_heads: int
    head_dim: int
    eps: float
    layer_activation: Activation
    prefix: str


@dataclass(frozen=True, slots=True)
class ResamplerProjector:
    """So many `latents` a tile that look at its tokens and at each other, in layers as wide as the tower.

    depth: layers, whose MLPs are four times as wide. normed: whether there are norms of queries and keys of each head.
    All names begin with `prefix`.
    """

    latents: int
    depth: int
    heads: int
    head_dim: int
    normed: bool
    prefix: str


@dataclass(frozen=True, slots=True)
class TilePacking:
    """The first tile is the whole image; the others, where there are any, are cut from one that is larger.

    Those are laid out as one map of patches, of which what only fills the image up to the tiles is cut off, and each of
    its rows gets `newline` behind it, a tensor of the checkpoint (LLaVA-NeXT's "anyres").
    """

    newline: str


ProjectorSpec = (
    MlpProjector
    | PooledProjector
    | ShuffledProjector
    | MergedProjector
    | StackedProjector
    | PerceiverProjector
    | ResamplerProjector
)


@dataclass(frozen=True, slots=True)
class VisionSpec:
    """What reads images for a decoder.

    projector: None where features are taken as they are. packing: None where the features of an image's tiles stand one
    after the other. ragged: whether tiles are of sizes of their own, which an image's grid tells. coordinates: whether
    an image's positions have rows and columns, which the decoder's rotations turn by (`RopeSpec.axes`); its patches are
    packed then.
    """

    tower: TowerSpec
    projector: ProjectorSpec | None
    packing: TilePacking | None = None
    sight: Sight = Sight.CAUSAL
    ragged: bool = False
    coordinates: bool = False

    @property
    def added(self) -> int:
        """Behind how many of the decoder's first layers features are added."""
        return len(self.projector.parts) - 1 if isinstance(self.projector, StackedProjector) else 0


@dataclass(frozen=True, slots=True)
class TiledTowerNames:
    """Where a tiled tower's tensors are. Names without `.weight` and `.bias`, but for `class_token`; those of layers
    are relative to `layer` and `global_layer`.

    before_tiles, places, after_tiles: of learned embeddings of tiles, of their tokens, and of tiles again.
    projector: of the linear behind it.
    """

    patches: str
    class_token: str
    before_tiles: str
    places: str
    before: str
    layer: str
    after: str
    after_tiles: str
    global_layer: str
    projector: str
    norm1: str = "input_layernorm"
    qkv: tuple[str, str, str] = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
    out: str = "self_attn.o_proj"
    norm2: str = "post_attention_layernorm"
    up: str = "mlp.fc1"
    down: str = "mlp.fc2"


@dataclass(frozen=True, slots=True)
class TiledVisionSpec:
    """A vision transformer whose tokens see those of all tiles of an image, and a linear behind it, with a bias.

    shapes: (rows, columns) of tiles that images may have; learned embeddings are of each, from 1 on. most_tiles: for so
    many there is always room. layers, then global_layers, whose branches are gated. taken: layers, from 0, whose inputs
    are features beside the last output, number by number. Attention has no biases, MLPs and norms do. eps: of layers'
    norms.
    """

    hidden_size: int
    layers: int
    global_layers: int
    heads: int
    image_size: int
    patch_size: int
    channels: int
    inner_size: int
    activation: Activation
    eps: float
    shapes: tuple[tuple[int, int], ...]
    most_tiles: int
    taken: tuple[int, ...]
    names: TiledTowerNames
    sight: Sight = Sight.CAUSAL

    @property
    def tokens(self) -> int:
        """Of a tile: its patches and a class token."""
        return (self.image_size // self.patch_size) ** 2 + 1

    @property
    def width(self) -> int:
        """Of a token's features."""
        return self.hidden_size * (1 + len(self.taken))
