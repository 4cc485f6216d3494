"""OLMo 1B and 7B: Llama with layer norms that have no weights. Checked against transformers 5.23.

Trap: `clip_qkv` bounds queries, keys and values before they are rotated; the norms' eps is no key.
"""

from dataclasses import replace

from text_generation_server.architectures.llama import llama
from text_generation_server.config.configdict import ConfigDict
from text_generation_server.specs.decoder import DecoderSpec, layer_norm


def olmo(config: ConfigDict) -> DecoderSpec:
    """The spec of an OLMo."""
    spec = llama(config)
    return replace(
        spec,
        norm=layer_norm(1e-5, bias=False, weight=False),
        attention=replace(spec.attention, clip_qkv=config.optional_number("clip_qkv")),
    )
