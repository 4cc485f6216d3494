"""PaliGemma 1 and 2. Checked against transformers 5.24.

Traps: all of a prompt sees all of it, in PaliGemma 2's sliding layers too; the answer alone is causal.
Features are not scaled as embeddings are. Positions begin at 1 there, which rotations do not tell. The text part's
`use_bidirectional_attention` says what is true of all these models.
"""

from dataclasses import replace

from text_generation_server.architectures.gemma import gemma
from text_generation_server.architectures.gemma2 import gemma2
from text_generation_server.architectures.siglip import siglip_tower
from text_generation_server.architectures.text_part import TextPart, text_part, wrapped
from text_generation_server.config.configdict import ConfigDict
from text_generation_server.specs.decoder import DecoderSpec
from text_generation_server.specs.vision import ShuffledProjector, Sight, VisionSpec

TEXTS = {
    "gemma": TextPart(
        lambda config: gemma(config.replaced(use_bidirectional_attention=None)),
        {
            "hidden_size": 3072,
            "num_hidden_layers": 28,
            "num_attention_heads": 16,
            "num_key_value_heads": 16,
            "intermediate_size": 24576,
            "head_dim": 256,
            "vocab_size": 256000,
            "max_position_embeddings": 8192,
        },
    ),
    "gemma2": TextPart(
        lambda config: gemma2(config.replaced(use_bidirectional_attention=None)),
        {
            "hidden_size": 2304,
            "num_hidden_layers": 26,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "intermediate_size": 9216,
            "head_dim": 256,
            "vocab_size": 256000,
            "max_position_embeddings": 8192,
        },
    ),
}


def paligemma(config: ConfigDict) -> DecoderSpec:
    """The spec of a PaliGemma."""
    text = text_part(config, TEXTS, usual="gemma")
    projector = ShuffledProjector(side=1, linear="multi_modal_projector.linear", bias=True)
    tower = siglip_tower(config.section("vision_config"), "vision_tower.")
    return replace(text, names=wrapped(text.names), vision=VisionSpec(tower, projector, sight=Sight.PROMPTS))
