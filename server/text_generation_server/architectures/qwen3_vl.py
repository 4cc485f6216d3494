"""Qwen3-VL, dense (2B to 32B): Qwen2-VL with learned positions too, and features of four layers of its tower.

Checked against transformers 5.24. Traps: pairs turn by time, row and column in turn. Learned positions are stretched so
that corners lie on corners. Norms of what merges patches are of patches for the last layer, of squares for the others.
"""

from math import isqrt

from text_generation_server.architectures.qwen2_vl import seeing
from text_generation_server.architectures.qwen3 import qwen3
from text_generation_server.architectures.text_part import with_defaults
from text_generation_server.config.configdict import ConfigDict
from text_generation_server.specs.decoder import DecoderSpec
from text_generation_server.specs.vision import (
    MergedProjector,
    PackedSpec,
    StackedProjector,
    TowerNames,
    TowerSpec,
    VisionSpec,
)

TEXT = {
    "vocab_size": 151936,
    "hidden_size": 4096,
    "intermediate_size": 22016,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "max_position_embeddings": 128000,
    "rope_theta": 5e5,
}
SECTIONS = (24, 20, 20)

_NAMES = TowerNames(
    patches="visual.patch_embed.proj",
    positions="visual.pos_embed",
    layer="visual.blocks.{}",
    norm1="norm1",
    qkv=("attn.qkv",),
    out="attn.proj",
    norm2="norm2",
    up="mlp.linear_fc1",
    down="mlp.linear_fc2",
)


def qwen3_vl(config: ConfigDict) -> DecoderSpec:
    """The spec of a dense Qwen3-VL."""
    text = config.section("text_config")
    if config.flag("tie_word_embeddings", default=False):
        text = text.replaced(tie_word_embeddings=True)
    text = with_defaults(text, TEXT)
    spec = qwen3(text)
    vision = _vision(config.section("vision_config"))
    if vision.added >= spec.num_layers:
        raise text.refusal("num_hidden_layers", spec.num_layers, f"more than the {vision.added} that images add to")
    return seeing(spec, vision, text, SECTIONS, interleaved=True)


def _vision(config: ConfigDict) -> VisionSpec:
    """What a `vision_config` says."""
    layers, merged = (
        config.integer("depth", "num_hidden_layers", default=27),
        config.integer("spatial_merge_size", default=2),
    )
    found = config.get("deepstack_visual_indexes")
    stacked = [8, 16, 24] if found is None else found
    if not isinstance(stacked, list) or stacked != sorted(set(stacked)) or not set(stacked) <= set(range(layers - 1)):
        raise config.refusal("deepstack_visual_indexes", found, "numbers of layers before the last, in order")
    learned = config.integer("num_position_embeddings", default=2304)
    tower = TowerSpec(
        hidden_size=config.integer("hidden_size", default=1152),
        layers=layers,
        heads=config.integer("num_heads", "num_attention_heads", default=16),
        image_size=0,
        patch_size=config.integer("patch_size", default=16),
        channels=config.integer("in_channels", default=3),
        inner_size=config.integer("intermediate_size", default=4304),
        activation=config.activation("hidden_act", default="gelu_pytorch_tanh"),
        eps=1e-6,
        names=_NAMES,
        taken=(*(layer + 1 for layer in stacked), layers),
        patch_bias=True,
        packed=PackedSpec(
            merged=merged,
            frames=config.integer("temporal_patch_size", default=2),
            theta=config.section("rope_parameters").number("rope_theta", default=10000.0),
            side=isqrt(learned),
        ),
    )
    added = tuple(_merger(merged, f"visual.deepstack_merger_list.{at}.", norm_last=True) for at in range(len(stacked)))
    return VisionSpec(tower, StackedProjector((*added, _merger(merged, "visual.merger."))), coordinates=True)


def _merger(merged: int, prefix: str, norm_last: bool = False) -> MergedProjector:
    return MergedProjector(merged**2, f"{prefix}norm", f"{prefix}linear_fc1", f"{prefix}linear_fc2", norm_last)
