"""OLMo 2 of all sizes: Llama with norms of branches' outputs, queries and keys. Checked against transformers 5.23.

Trap: queries and keys are normalised over all heads together, before they are rotated.
"""

from dataclasses import replace

from text_generation_server.architectures.llama import LLAMA_NAMES, llama
from text_generation_server.config.configdict import ConfigDict
from text_generation_server.specs.decoder import DecoderSpec, QkNormScope, QkNormSpec, Wiring

OLMO2_NAMES = replace(
    LLAMA_NAMES,
    attention_norm="",
    mlp_norm="",
    attention_out_norm="post_attention_layernorm",
    mlp_out_norm="post_feedforward_layernorm",
    q_norm="self_attn.q_norm",
    k_norm="self_attn.k_norm",
)


def olmo2(config: ConfigDict) -> DecoderSpec:
    """The spec of an OLMo 2."""
    spec = llama(config.replaced(rms_norm_eps=config.number("rms_norm_eps", default=1e-5)))
    return replace(
        spec,
        attention=replace(spec.attention, qk_norm=QkNormSpec(spec.norm, QkNormScope.ALL_HEADS)),
        names=OLMO2_NAMES,
        wiring=Wiring.OUTPUT_NORMS,
    )
