"""MPT 7B and 30B, chat, instruct and StoryWriter: linear biases, no other biases. Checked against transformers 5.23.

Traps: `learned_pos_emb` of published files means nothing where there are linear biases. transformers ignores
`expansion_ratio`, `alibi_bias_max` and `logit_scale`, so that other values than those it computes with are refused.
"""

from collections.abc import Mapping

from text_generation_server.config.configdict import ConfigDict
from text_generation_server.specs.activation import Activation
from text_generation_server.specs.alibi import AlibiSpec
from text_generation_server.specs.decoder import AttentionSpec, DecoderSpec, MlpSpec, layer_norm
from text_generation_server.specs.names import CheckpointNames, QkvLayout

MPT_NAMES = CheckpointNames(
    family_prefix="transformer.",
    embedding="transformer.wte",
    layer="transformer.blocks.{}",
    attention_norm="norm_1",
    mlp_norm="norm_2",
    qkv=("attn.Wqkv",),
    qkv_layout=QkvLayout.CONCAT,
    attention_out="attn.out_proj",
    up=("ffn.up_proj",),
    down="ffn.down_proj",
    final_norm="transformer.norm_f",
)
_ONLY = {"expansion_ratio": 4, "no_bias": True, "logit_scale": None}
_ONLY_ATTENTION = {
    "attn_type": "multihead_attention",
    "alibi": True,
    "alibi_bias_max": 8,
    "prefix_lm": False,
    "qk_ln": False,
}


def mpt(config: ConfigDict) -> DecoderSpec:
    """The spec of an MPT."""
    attention = config.section("attn_config")
    _refuse_others(config, _ONLY)
    _refuse_others(attention, _ONLY_ATTENTION)
    if "rms" in config.text("norm_type", default="low_precision_layernorm"):
        raise config.refusal("norm_type", config.get("norm_type"), "a layer norm")
    heads, hidden = config.integer("n_heads"), config.integer("d_model")
    return DecoderSpec(
        vocab_size=config.integer("vocab_size"),
        hidden_size=hidden,
        num_layers=config.integer("n_layers"),
        norm=layer_norm(config.number("layer_norm_epsilon", default=1e-5), bias=False),
        attention=AttentionSpec(
            heads=heads,
            kv_heads=heads,
            head_dim=hidden // heads,
            alibi=AlibiSpec(),
            scale=attention.optional_number("softmax_scale"),
            clip_qkv=attention.optional_number("clip_qkv"),
        ),
        mlp=MlpSpec(4 * hidden, Activation.GELU, gated=False),
        names=MPT_NAMES,
        head=config.head(tied_by_default=True),
    )


def _refuse_others(config: ConfigDict, served: Mapping[str, object]) -> None:
    for key, only in served.items():
        if config.get(key) not in (None, only):
            raise config.refusal(key, config.get(key), f"{only}")
