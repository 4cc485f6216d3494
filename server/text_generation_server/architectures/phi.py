"""Phi 1, 1.5 and 2: parallel branches with one norm, biases even in the head. Checked against transformers 5.23.

Trap: half of each head is rotated where `partial_rotary_factor` is absent.
"""

from dataclasses import replace

from text_generation_server.architectures.llama import LLAMA_NAMES
from text_generation_server.config.configdict import ConfigDict
from text_generation_server.config.rope import read_max_positions, read_rope
from text_generation_server.specs.decoder import AttentionSpec, DecoderSpec, MlpSpec, Wiring, layer_norm

PHI_NAMES = replace(
    LLAMA_NAMES,
    mlp_norm="",
    attention_out="self_attn.dense",
    up=("mlp.fc1",),
    down="mlp.fc2",
    final_norm="model.final_layernorm",
)


def phi(config: ConfigDict) -> DecoderSpec:
    """The spec of a Phi up to 2."""
    config.reject("qk_layernorm", True)
    heads, hidden = config.integer("num_attention_heads"), config.integer("hidden_size")
    head_dim = hidden // heads
    return DecoderSpec(
        vocab_size=config.integer("vocab_size"),
        hidden_size=hidden,
        num_layers=config.integer("num_hidden_layers"),
        norm=layer_norm(config.number("layer_norm_eps", default=1e-5)),
        attention=AttentionSpec(
            heads=heads,
            kv_heads=config.integer("num_key_value_heads", default=heads),
            head_dim=head_dim,
            qkv_bias=True,
            out_bias=True,
            rope=read_rope(config, head_dim, partial=0.5),
        ),
        mlp=MlpSpec(
            config.integer("intermediate_size"),
            config.activation("hidden_act", default="gelu_new"),
            gated=False,
            bias=True,
        ),
        names=PHI_NAMES,
        head=replace(config.head(), bias=True),
        wiring=Wiring.PARALLEL,
        max_positions=read_max_positions(config),
    )
