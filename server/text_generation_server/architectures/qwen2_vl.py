"""Qwen2-VL and Qwen2.5-VL: images of nearly their own size, and a Qwen2 that turns by rows and columns of images.

Checked against transformers 5.24. Traps: published files have the text part's keys at the top, later ones in
`text_config`. `hidden_size` of the tower is its own in 2.5, the text's in 2, where its own is `embed_dim`. Windows are
in pixels. Norms of the tower, and of what merges its patches, have an eps that no key says.
"""

from collections.abc import Callable
from dataclasses import replace

from text_generation_server.architectures.qwen2 import qwen2
from text_generation_server.architectures.text_part import with_defaults
from text_generation_server.config.configdict import ConfigDict
from text_generation_server.config.rope import read_axes
from text_generation_server.specs.decoder import DecoderSpec
from text_generation_server.specs.vision import MergedProjector, PackedSpec, TowerNames, TowerSpec, VisionSpec

TEXT = {
    "vocab_size": 152064,
    "hidden_size": 8192,
    "intermediate_size": 29568,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "max_position_embeddings": 32768,
    "max_window_layers": 80,
    "rms_norm_eps": 1e-5,
    "rope_theta": 1e6,
}
SECTIONS = (16, 24, 24)
ALIASES = (("model.", "model.language_model."), ("visual.", "model.visual."))

_NAMES = TowerNames(
    patches="visual.patch_embed.proj",
    positions="",
    layer="visual.blocks.{}",
    norm1="norm1",
    qkv=("attn.qkv",),
    out="attn.proj",
    norm2="norm2",
    up="mlp.fc1",
    down="mlp.fc2",
)
_GATED = replace(_NAMES, gate="mlp.gate_proj", up="mlp.up_proj", down="mlp.down_proj")


def qwen2_vl(config: ConfigDict) -> DecoderSpec:
    """The spec of a Qwen2-VL."""
    return _with_tower(config, _tower)


def qwen2_5_vl(config: ConfigDict) -> DecoderSpec:
    """The spec of a Qwen2.5-VL."""
    return _with_tower(config, _windowed_tower)


def _with_tower(config: ConfigDict, tower_of: Callable[[ConfigDict], TowerSpec]) -> DecoderSpec:
    text = config if config.get("text_config") is None else config.section("text_config")
    if config.flag("tie_word_embeddings", default=False):
        text = text.replaced(tie_word_embeddings=True)
    text = with_defaults(text, TEXT)
    tower = tower_of(config.section("vision_config"))
    assert tower.packed is not None
    merger = MergedProjector(tower.packed.merged**2, "visual.merger.ln_q", "visual.merger.mlp.0", "visual.merger.mlp.2")
    return seeing(qwen2(text), VisionSpec(tower, merger, coordinates=True), text, SECTIONS)


def seeing(
    spec: DecoderSpec,
    vision: VisionSpec,
    text: ConfigDict,
    sections: tuple[int, int, int],
    interleaved: bool = False,
) -> DecoderSpec:
    """A decoder that reads images, and turns by their rows and columns. For the last two see `read_axes`."""
    rope = spec.attention.rope
    assert rope is not None
    if rope.depends_on_span:
        raise text.refusal("rope_type", "dynamic or longrope", "one that is the same for all lengths")
    axes = read_axes(text, rope.dim // 2, sections, interleaved)
    return replace(
        spec,
        attention=replace(spec.attention, rope=replace(rope, axes=axes)),
        names=replace(spec.names, family_prefix="", aliases=ALIASES),
        vision=vision,
    )


def packed_tower(
    config: ConfigDict,
    names: TowerNames,
    *,
    hidden_size: int,
    inner_size: int,
    activation: str,
    layers: int = 32,
    patch_size: int = 14,
) -> TowerSpec:
    """A tower by the words that all these share. activation, layers, patch_size: where the config does not tell."""
    layers = config.integer("depth", "num_hidden_layers", default=layers)
    return TowerSpec(
        hidden_size=hidden_size,
        layers=layers,
        heads=config.integer("num_heads", "num_attention_heads", default=16),
        image_size=0,
        patch_size=config.integer("patch_size", default=patch_size),
        channels=config.integer("in_channels", "in_chans", default=3),
        inner_size=inner_size,
        activation=config.activation("hidden_act", default=activation),
        eps=1e-6,
        names=names,
        taken=(layers,),
        packed=PackedSpec(
            merged=config.integer("spatial_merge_size", default=2),
            frames=config.integer("temporal_patch_size", default=2),
            theta=config.section("rope_parameters").number("rope_theta", default=10000.0),
        ),
    )


def _tower(config: ConfigDict) -> TowerSpec:
    """The tower of a `vision_config` of Qwen2-VL."""
    hidden = config.integer("embed_dim", default=1280)
    inner = hidden * config.integer("mlp_ratio", default=4)
    return packed_tower(config, _NAMES, hidden_size=hidden, inner_size=inner, activation="quick_gelu")


def _windowed_tower(config: ConfigDict) -> TowerSpec:
    """The tower of a `vision_config` of Qwen2.5-VL."""
    hidden, inner = config.integer("hidden_size", default=3584), config.integer("intermediate_size", default=3420)
    tower = packed_tower(config, _GATED, hidden_size=hidden, inner_size=inner, activation="silu")
    assert tower.packed is not None
    whole = (7, 15, 23, 31) if config.get("fullatt_block_indexes") is None else config.numbers("fullatt_block_indexes")
    square = tower.packed.merged * tower.patch_size
    window = config.integer("window_size", default=112, at_least=square) // square
    packed = replace(tower.packed, window=window, whole=frozenset(map(int, whole)))
    return replace(tower, rms=True, packed=packed)
