"""GPT-J 6B and models made of it: parallel branches, a head with bias. Checked against transformers 5.23.

Traps: rotary pairs are neighbours; the attention's linears have no biases, those of the MLP have.
"""

from dataclasses import replace

from text_generation_server.config.configdict import ConfigDict
from text_generation_server.config.rope import read_max_positions, read_rope
from text_generation_server.specs.decoder import AttentionSpec, DecoderSpec, MlpSpec, Wiring, layer_norm
from text_generation_server.specs.names import CheckpointNames

GPTJ_NAMES = CheckpointNames(
    family_prefix="transformer.",
    embedding="transformer.wte",
    layer="transformer.h.{}",
    attention_norm="ln_1",
    mlp_norm="",
    qkv=("attn.q_proj", "attn.k_proj", "attn.v_proj"),
    attention_out="attn.out_proj",
    up=("mlp.fc_in",),
    down="mlp.fc_out",
    final_norm="transformer.ln_f",
)


def gptj(config: ConfigDict) -> DecoderSpec:
    """The spec of a GPT-J."""
    config.reject("rotary", False)
    config.reject("scale_attn_weights", False)
    heads, hidden = config.integer("n_head", "num_attention_heads"), config.integer("n_embd", "hidden_size")
    rotated = config.integer("rotary_dim", default=64)
    return DecoderSpec(
        vocab_size=config.integer("vocab_size"),
        hidden_size=hidden,
        num_layers=config.integer("n_layer", "num_hidden_layers"),
        norm=layer_norm(config.number("layer_norm_epsilon", default=1e-5)),
        attention=AttentionSpec(heads, heads, hidden // heads, rope=read_rope(config, rotated, interleaved=True)),
        mlp=MlpSpec(
            config.integer("n_inner", default=4 * hidden),
            config.activation("activation_function", default="gelu_new"),
            gated=False,
            bias=True,
        ),
        names=GPTJ_NAMES,
        head=replace(config.head(), bias=True),
        wiring=Wiring.PARALLEL,
        max_positions=read_max_positions(config, "n_positions", "max_position_embeddings", default=2048),
    )
