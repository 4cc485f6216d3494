"""Falcon 7B, 40B, 180B, 11B and RW; RefinedWebModel and RefinedWeb of old. Checked against transformers 5.23.

Traps: `new_decoder_architecture` makes `multi_query` and `parallel_attn` meaningless, and without
`num_ln_in_parallel_attn` has two norms. Linear biases are added before scores are scaled, so that as biases of scaled
scores they are scaled too; their slopes are rounded to bfloat16.
"""

import math
from dataclasses import replace

from text_generation_server.architectures.bloom import BLOOM_NAMES
from text_generation_server.config.configdict import ConfigDict
from text_generation_server.config.rope import read_max_positions, read_rope
from text_generation_server.specs.alibi import AlibiSpec
from text_generation_server.specs.decoder import AttentionSpec, DecoderSpec, MlpSpec, Wiring, layer_norm
from text_generation_server.specs.names import CheckpointNames

ONE_NORM = replace(BLOOM_NAMES, embedding_norm="", mlp_norm="")
TWO_NORMS = replace(BLOOM_NAMES, embedding_norm="")
NEW_TWO_NORMS = replace(BLOOM_NAMES, embedding_norm="", attention_norm="ln_attn", mlp_norm="ln_mlp")


def falcon(config: ConfigDict) -> DecoderSpec:
    """The spec of a Falcon."""
    hidden, bias = config.integer("hidden_size"), config.flag("bias", default=False)
    wiring, names = _wiring(config)
    return DecoderSpec(
        vocab_size=config.integer("vocab_size"),
        hidden_size=hidden,
        num_layers=config.integer("num_hidden_layers", "n_layer"),
        norm=layer_norm(config.number("layer_norm_epsilon", default=1e-5)),
        attention=_attention(config, hidden, bias),
        mlp=MlpSpec(
            config.integer("ffn_hidden_size", default=4 * hidden),
            config.activation("activation", default="gelu"),
            gated=False,
            bias=bias,
        ),
        names=names,
        head=config.head(tied_by_default=True),
        wiring=wiring,
        max_positions=None if _has_alibi(config) else read_max_positions(config, default=2048),
    )


def _attention(config: ConfigDict, hidden: int, bias: bool) -> AttentionSpec:
    heads = config.integer("num_attention_heads", "n_head")
    head_dim = hidden // heads
    if _is_new(config):
        kv_heads = config.integer("num_kv_heads", "n_head_kv", default=heads)
    else:
        kv_heads = 1 if config.flag("multi_query", default=True) else heads
    alibi = AlibiSpec(scale=1 / math.sqrt(head_dim), bf16_slopes=True) if _has_alibi(config) else None
    rope = None if alibi else read_rope(config, head_dim)
    return AttentionSpec(heads, kv_heads, head_dim, qkv_bias=bias, out_bias=bias, rope=rope, alibi=alibi)


def _wiring(config: ConfigDict) -> tuple[Wiring, CheckpointNames]:
    if _is_new(config):
        if config.integer("num_ln_in_parallel_attn", default=2) == 2:
            return Wiring.PARALLEL_TWO_NORMS, NEW_TWO_NORMS
        return Wiring.PARALLEL, ONE_NORM
    if config.flag("parallel_attn", default=True):
        return Wiring.PARALLEL, ONE_NORM
    return Wiring.SEQUENTIAL, TWO_NORMS


def _is_new(config: ConfigDict) -> bool:
    return config.flag("new_decoder_architecture", default=False)


def _has_alibi(config: ConfigDict) -> bool:
    return config.flag("alibi", default=False)
