"""Idefics2: SigLIP's tower with positions by fraction, a perceiver, a Mistral. Checked against transformers 5.24.

Traps: tiles keep their own sizes, and only whole patches of one count. The MLP before the perceiver is as wide as the
text part's, and has its activation.
"""

from dataclasses import replace

from text_generation_server.architectures.siglip import siglip_tower
from text_generation_server.architectures.text_part import MISTRAL_PART, text_part, with_defaults
from text_generation_server.config.configdict import ConfigDict
from text_generation_server.specs.decoder import DecoderSpec
from text_generation_server.specs.vision import PerceiverProjector, VisionSpec


def idefics2(config: ConfigDict) -> DecoderSpec:
    """The spec of an Idefics2."""
    text = text_part(config, {"mistral": MISTRAL_PART}, usual="mistral")
    tower = siglip_tower(with_defaults(config.section("vision_config"), {"patch_size": 32}), "model.vision_model.")
    perceiver = config.section("perceiver_config")
    if (width := perceiver.integer("hidden_size", default=text.hidden_size)) != text.hidden_size:
        raise config.refusal("perceiver_config.hidden_size", width, f"{text.hidden_size}, the text part's")
    projector = PerceiverProjector(
        inner_size=text.mlp.inner_size,
        activation=text.mlp.activation,
        latents=perceiver.integer("resampler_n_latents", default=64),
        depth=perceiver.integer("resampler_depth", default=3),
        heads=perceiver.integer("resampler_n_heads", default=16),
        kv_heads=perceiver.integer("num_key_value_heads", default=4),
        head_dim=perceiver.integer("resampler_head_dim", default=96),
        eps=perceiver.number("rms_norm_eps", default=1e-6),
        layer_activation=perceiver.activation("hidden_act", default="silu"),
        prefix="model.connector.",
    )
    vision = VisionSpec(replace(tower, by_fraction=True), projector, ragged=True)
    return replace(text, names=text.names.within("model.text_model.", "lm_head"), vision=vision)
