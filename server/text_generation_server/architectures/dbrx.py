"""DBRX: experts in stacked tensors, bounded queries, keys and values. Checked against transformers 5.23.

Traps: `attn_config.rope_theta` is what the model was trained with, but transformers 5 reads `rope_parameters`, and
writes 10000 there. `moe_normalize_expert_weights` is the order of a norm, and
null for none.
"""

from dataclasses import replace

from text_generation_server.config.configdict import ConfigDict
from text_generation_server.config.rope import read_max_positions, read_rope
from text_generation_server.specs.decoder import AttentionSpec, DecoderSpec, MlpSpec, MoeSpec, layer_norm
from text_generation_server.specs.names import CheckpointNames, MoeNames, QkvLayout

DBRX_NAMES = CheckpointNames(
    family_prefix="transformer.",
    embedding="transformer.wte",
    layer="transformer.blocks.{}",
    attention_norm="norm_attn_norm.norm_1",
    mlp_norm="norm_attn_norm.norm_2",
    qkv=("norm_attn_norm.attn.Wqkv",),
    qkv_layout=QkvLayout.CONCAT,
    attention_out="norm_attn_norm.attn.out_proj",
    up=(),
    down="",
    final_norm="transformer.norm_f",
    moe=MoeNames(
        router="ffn.router.layer",
        up=("ffn.experts.mlp.w1", "ffn.experts.mlp.v1"),
        down="ffn.experts.mlp.w2",
    ),
)


def dbrx(config: ConfigDict) -> DecoderSpec:
    """The spec of a DBRX."""
    moe = _moe(config.section("ffn_config"))
    return DecoderSpec(
        vocab_size=config.integer("vocab_size"),
        hidden_size=config.integer("d_model"),
        num_layers=config.integer("n_layers"),
        norm=layer_norm(1e-5, bias=False),
        attention=_attention(config, config.section("attn_config")),
        mlp=MlpSpec(moe.inner_size, moe.activation, gated=True),
        moe=moe,
        names=DBRX_NAMES,
        head=config.head(),
        max_positions=read_max_positions(config, "max_seq_len", default=2048),
    )


def _attention(config: ConfigDict, own: ConfigDict) -> AttentionSpec:
    heads = config.integer("n_heads")
    head_dim = config.integer("d_model") // heads
    rope = read_rope(config, head_dim)
    return AttentionSpec(
        heads=heads,
        kv_heads=own.integer("kv_n_heads", default=1),
        head_dim=head_dim,
        rope=replace(rope, theta=own.number("rope_theta", default=rope.theta)),
        clip_qkv=own.optional_number("clip_qkv"),
    )


def _moe(own: ConfigDict) -> MoeSpec:
    normalise = "moe_normalize_expert_weights"
    return MoeSpec(
        experts=own.integer("moe_num_experts", default=4),
        top_k=own.integer("moe_top_k", default=1),
        inner_size=own.integer("ffn_hidden_size", default=3584),
        activation=own.section("ffn_act_fn").activation("name", default="silu"),
        normalise=None if own.is_null(normalise) else own.number(normalise, default=1.0),
    )
