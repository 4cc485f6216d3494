"""Qwen3-VL, dense and with experts: Qwen2-VL with learned positions too, and features of four layers of its tower.

Checked against transformers 5.24. Traps: pairs turn by time, row and column in turn. Learned positions are stretched so
that corners lie on corners. Norms of what merges patches are of patches for the last layer, of squares for the others.
Experts are stacked, [in, out], but [out, in] where transformers saves a model that it has made; what the router says of
the chosen ones sums to one, though no key asks for it. Whether the head is tied, the text part does not say.
"""

from collections.abc import Callable
from dataclasses import replace
from math import isqrt

from text_generation_server.architectures.qwen2_vl import packed_tower, seeing
from text_generation_server.architectures.qwen3 import qwen3
from text_generation_server.architectures.qwen_moe import qwen3_moe
from text_generation_server.architectures.text_part import with_defaults
from text_generation_server.config.configdict import ConfigDict
from text_generation_server.specs.decoder import DecoderSpec
from text_generation_server.specs.names import MoeNames
from text_generation_server.specs.vision import MergedProjector, StackedProjector, TowerNames, VisionSpec

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

_EXPERTS = MoeNames("mlp.gate", ("mlp.experts.gate_up_proj",), "mlp.experts.down_proj", inputs_first=True)
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
    return _seeing(config, qwen3)


def qwen3_vl_moe(config: ConfigDict) -> DecoderSpec:
    """The spec of a Qwen3-VL with experts."""
    return _seeing(config, _with_experts)


def _with_experts(text: ConfigDict) -> DecoderSpec:
    spec = qwen3_moe(text.replaced(norm_topk_prob=True))
    return replace(spec, names=replace(spec.names, moe=_EXPERTS))


def _seeing(config: ConfigDict, decoder: Callable[[ConfigDict], DecoderSpec]) -> DecoderSpec:
    tied = config.flag("tie_word_embeddings", default=False)
    text = with_defaults(config.section("text_config").replaced(tie_word_embeddings=tied), TEXT)
    spec = decoder(text)
    vision = _vision(config.section("vision_config"))
    if vision.added >= spec.num_layers:
        raise text.refusal("num_hidden_layers", spec.num_layers, f"more than the {vision.added} that images add to")
    return seeing(spec, vision, text, SECTIONS, interleaved=True)


def _vision(config: ConfigDict) -> VisionSpec:
    """What a `vision_config` says."""
    tower = packed_tower(
        config,
        _NAMES,
        hidden_size=config.integer("hidden_size", default=1152),
        inner_size=config.integer("intermediate_size", default=4304),
        activation="gelu_pytorch_tanh",
        layers=27,
        patch_size=16,
    )
    assert tower.packed is not None
    layers, merged = tower.layers, tower.packed.merged
    found = config.get("deepstack_visual_indexes")
    stacked = [8, 16, 24] if found is None else found
    if not isinstance(stacked, list) or stacked != sorted(set(stacked)) or not set(stacked) <= set(range(layers - 1)):
        raise config.refusal("deepstack_visual_indexes", found, "numbers of layers before the last, in order")
    tower = replace(
        tower,
        taken=(*(layer + 1 for layer in stacked), layers),
        patch_bias=True,
        packed=replace(tower.packed, side=isqrt(config.integer("num_position_embeddings", default=2304))),
    )
    added = tuple(_merger(merged, f"visual.deepstack_merger_list.{at}.", norm_last=True) for at in range(len(stacked)))
    return VisionSpec(tower, StackedProjector((*added, _merger(merged, "visual.merger."))), coordinates=True)


def _merger(merged: int, prefix: str, norm_last: bool = False) -> MergedProjector:
    return MergedProjector(merged**2, f"{prefix}norm", f"{prefix}linear_fc1", f"{prefix}linear_fc2", norm_last)
