"""Gemma 3 with images (4B, 12B, 27B). Checked against transformers 5.24.

Traps: tokens of an image see each other, whatever their order, in sliding layers within the window. Features are not
scaled as embeddings are. The projector's matrix is stored [in, out], its norm multiplies by 1 + weight.
"""

from dataclasses import replace
from math import isqrt

from text_generation_server.architectures.gemma2 import gemma3
from text_generation_server.architectures.siglip import siglip_tower
from text_generation_server.architectures.text_part import TextPart, text_part, wrapped
from text_generation_server.config.configdict import ConfigDict
from text_generation_server.specs.decoder import DecoderSpec
from text_generation_server.specs.vision import PooledProjector, Sight, VisionSpec

TEXTS = {
    "gemma3_text": TextPart(
        gemma3,
        {
            "hidden_size": 2304,
            "num_hidden_layers": 26,
            "intermediate_size": 9216,
            "max_position_embeddings": 131072,
        },
    )
}


def gemma3_vision(config: ConfigDict) -> DecoderSpec:
    """The spec of a Gemma 3 that reads images."""
    text = text_part(config, TEXTS, usual="gemma3_text")
    tower = siglip_tower(config.section("vision_config"), "vision_tower.")
    tokens = config.integer("mm_tokens_per_image", default=256)
    side = isqrt(tokens)
    if side * side != tokens or tower.side % side:
        raise config.refusal("mm_tokens_per_image", tokens, f"the square of a number that divides {tower.side}")
    projector = PooledProjector(
        pooled=tower.side // side,
        norm="multi_modal_projector.mm_soft_emb_norm",
        eps=tower.eps,
        weight="multi_modal_projector.mm_input_projection_weight",
    )
    vision = VisionSpec(tower, projector, sight=Sight.IMAGES)
    return replace(text, names=wrapped(text.names), vision=vision)
