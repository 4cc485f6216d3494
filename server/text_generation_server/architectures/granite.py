"""Granite 3.0 to 3.3, dense: Llama with multipliers. Checked against transformers 5.23.

Traps: `attention_multiplier` replaces 1/sqrt(head_dim), and is 1 where absent; `logits_scaling` divides.
"""

from dataclasses import replace

from text_generation_server.architectures.llama import llama
from text_generation_server.config.configdict import ConfigDict
from text_generation_server.specs.decoder import DecoderSpec


def granite(config: ConfigDict) -> DecoderSpec:
    """The spec of a dense Granite."""
    spec = llama(config)
    return replace(
        spec,
        attention=replace(spec.attention, scale=config.number("attention_multiplier", default=1.0)),
        head=replace(spec.head, scale=1.0 / config.number("logits_scaling", default=1.0)),
        embedding_scale=config.number("embedding_multiplier", default=1.0),
        branch_scale=config.number("residual_multiplier", default=1.0),
    )
