"""Llama 1 to 3.3, Yi, SmolLM and other models of class LlamaForCausalLM. Checked against transformers 5.23.

Trap: with `attention_bias` the output projection has a bias too. `head_dim` may be set apart from hidden_size / heads.
"""

from text_generation_server.config.configdict import ConfigDict
from text_generation_server.config.rope import read_max_positions, read_rope
from text_generation_server.specs.decoder import AttentionSpec, DecoderSpec, MlpSpec, rms_norm
from text_generation_server.specs.names import CheckpointNames

LLAMA_NAMES = CheckpointNames(
    family_prefix="model.",
    embedding="model.embed_tokens",
    layer="model.layers.{}",
    attention_norm="input_layernorm",
    mlp_norm="post_attention_layernorm",
    qkv=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    attention_out="self_attn.o_proj",
    up=("mlp.gate_proj", "mlp.up_proj"),
    down="mlp.down_proj",
    final_norm="model.norm",
)


def llama(config: ConfigDict) -> DecoderSpec:
    """The spec of a Llama."""
    heads, hidden = config.integer("num_attention_heads"), config.integer("hidden_size")
    head_dim = config.integer("head_dim", default=hidden // heads)
    bias = config.flag("attention_bias", default=False)
    return DecoderSpec(
        vocab_size=config.integer("vocab_size"),
        hidden_size=hidden,
        num_layers=config.integer("num_hidden_layers"),
        norm=rms_norm(config.number("rms_norm_eps", default=1e-6)),
        attention=AttentionSpec(
            heads=heads,
            kv_heads=config.integer("num_key_value_heads", default=heads),
            head_dim=head_dim,
            qkv_bias=bias,
            out_bias=bias,
            rope=read_rope(config, head_dim),
        ),
        mlp=MlpSpec(
            config.integer("intermediate_size"),
            config.activation("hidden_act", default="silu"),
            gated=True,
            bias=config.flag("mlp_bias", default=False),
        ),
        names=LLAMA_NAMES,
        head=config.head(),
        max_positions=read_max_positions(config),
    )
