"""Qwen 3, dense: Qwen 2 with norms of query and key heads, and no biases. Checked against transformers 5.23.

Trap: with `attention_bias` the output projection has a bias too, unlike in Qwen 2.
"""

from dataclasses import replace

from text_generation_server.architectures.qwen2 import qwen2
from text_generation_server.config.configdict import ConfigDict
from text_generation_server.specs.decoder import DecoderSpec, QkNormScope, QkNormSpec


def qwen3(config: ConfigDict) -> DecoderSpec:
    """The spec of a dense Qwen 3."""
    return with_head_norms(config, qwen2(config.replaced(head_dim=config.integer("head_dim", default=128))))


def with_head_norms(config: ConfigDict, spec: DecoderSpec) -> DecoderSpec:
    """What Qwen 3 changes in the attention of Qwen 2."""
    bias = config.flag("attention_bias", default=False)
    qk_norm = QkNormSpec(spec.norm, QkNormScope.HEAD)
    return replace(
        spec,
        attention=replace(spec.attention, qkv_bias=bias, out_bias=bias, qk_norm=qk_norm),
        names=replace(spec.names, q_norm="self_attn.q_norm", k_norm="self_attn.k_norm"),
    )
