"""Idefics3 and SmolVLM: SigLIP's tower with positions by fraction, squares of patches, a Llama.

Checked against transformers 5.24. Trap: the tower's tensors are SigLIP's under other names of models, without a head;
what its config leaves out is not what SigLIP's is.
"""

from dataclasses import replace

from text_generation_server.architectures.siglip import siglip_tower
from text_generation_server.architectures.text_part import LLAMA_PART, text_part, with_defaults
from text_generation_server.config.configdict import ConfigDict
from text_generation_server.specs.decoder import DecoderSpec
from text_generation_server.specs.vision import ShuffledProjector, VisionSpec

TOWER = {"hidden_size": 1152, "intermediate_size": 3072, "num_attention_heads": 16, "patch_size": 32}


def idefics3(config: ConfigDict) -> DecoderSpec:
    """The spec of an Idefics3 or a SmolVLM."""
    text = text_part(config, {"llama": LLAMA_PART}, usual="llama")
    tower = siglip_tower(with_defaults(config.section("vision_config"), TOWER), "model.vision_model.")
    projector = ShuffledProjector(config.integer("scale_factor", default=2), "model.connector.modality_projection.proj")
    vision = VisionSpec(replace(tower, by_fraction=True), projector)
    return replace(text, names=text.names.within("model.text_model.", "lm_head"), vision=vision)
