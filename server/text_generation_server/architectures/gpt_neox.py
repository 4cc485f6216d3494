"""GPT-NeoX-20B and Pythia: rotary on a part of each head, branches in parallel. Checked against transformers 5.23.

Trap: `attention_bias` concerns the attention's linears only; those of the MLP always have biases.
"""

from text_generation_server.config.configdict import ConfigDict
from text_generation_server.config.rope import read_max_positions, read_rope
from text_generation_server.specs.decoder import AttentionSpec, DecoderSpec, MlpSpec, Wiring, layer_norm
from text_generation_server.specs.names import CheckpointNames, QkvLayout

NEOX_NAMES = CheckpointNames(
    family_prefix="gpt_neox.",
    embedding="gpt_neox.embed_in",
    layer="gpt_neox.layers.{}",
    attention_norm="input_layernorm",
    mlp_norm="post_attention_layernorm",
    qkv=("attention.query_key_value",),
    qkv_layout=QkvLayout.GROUPED,
    attention_out="attention.dense",
    up=("mlp.dense_h_to_4h",),
    down="mlp.dense_4h_to_h",
    final_norm="gpt_neox.final_layer_norm",
    head="embed_out",
)


def gpt_neox(config: ConfigDict) -> DecoderSpec:
    """The spec of a GPT-NeoX."""
    heads, hidden = config.integer("num_attention_heads"), config.integer("hidden_size")
    head_dim, bias = hidden // heads, config.flag("attention_bias", default=True)
    parallel = config.flag("use_parallel_residual", default=True)
    return DecoderSpec(
        vocab_size=config.integer("vocab_size"),
        hidden_size=hidden,
        num_layers=config.integer("num_hidden_layers"),
        norm=layer_norm(config.number("layer_norm_eps", default=1e-5)),
        attention=AttentionSpec(
            heads=heads,
            kv_heads=heads,
            head_dim=head_dim,
            qkv_bias=bias,
            out_bias=bias,
            rope=read_rope(config, head_dim, partial=0.25, theta_key="rotary_emb_base", partial_key="rotary_pct"),
        ),
        mlp=MlpSpec(
            config.integer("intermediate_size"), config.activation("hidden_act", default="gelu"), gated=False, bias=True
        ),
        names=NEOX_NAMES,
        head=config.head(),
        wiring=Wiring.PARALLEL_TWO_NORMS if parallel else Wiring.SEQUENTIAL,
        max_positions=read_max_positions(config),
    )
