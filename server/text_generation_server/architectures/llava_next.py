"""LLaVA-NeXT (1.6) with Llama or Mistral as its text part. Checked against transformers 5.24.

Traps: published files leave out whatever is a default of their text part's library class, its sizes among them. The
features are those of the layer before the last (−2 counts the last as −1, and 0 is what the first layer reads),
without the class token, and without the norm behind all layers.
"""

from dataclasses import replace

from text_generation_server.architectures.clip import clip_tower
from text_generation_server.architectures.text_part import LLAMA_PART, MISTRAL_PART, text_part, wrapped
from text_generation_server.config.configdict import ConfigDict
from text_generation_server.specs.decoder import DecoderSpec
from text_generation_server.specs.vision import MlpProjector, TilePacking, VisionSpec

TEXTS = {"llama": LLAMA_PART, "mistral": MISTRAL_PART}


def llava_next(config: ConfigDict) -> DecoderSpec:
    """The spec of a LLaVA-NeXT."""
    config.reject("vision_feature_select_strategy", "full")
    text = text_part(config, TEXTS, usual="llama")
    vision = VisionSpec(
        tower=clip_tower(config.section("vision_config"), "vision_tower.", _feature_layers(config)),
        projector=MlpProjector(
            "multi_modal_projector.linear_1",
            "multi_modal_projector.linear_2",
            config.activation("projector_hidden_act", default="gelu"),
            bias=config.flag("multimodal_projector_bias", default=True),
        ),
        packing=TilePacking("image_newline"),
    )
    return replace(text, names=wrapped(text.names), vision=vision)


def _feature_layers(config: ConfigDict) -> tuple[int, ...]:
    found = config.get("vision_feature_layer")
    layers = found if isinstance(found, list) else [-2 if found is None else found]
    if not layers or not all(type(layer) is int for layer in layers):
        raise config.refusal("vision_feature_layer", found, "a whole number, or a list of some")
    return tuple(layers)
