"""GPT-2 of all sizes, and SantaCoder's original files. Checked against transformers 5.23.

Traps: linears are stored [in, out]; hub files leave out `transformer.`. `attention_head_type` of SantaCoder's remote
code means one key/value head; its files have queries apart from keys and values, or all in `c_attn`: no key tells.
"""

from dataclasses import replace

from text_generation_server.config.configdict import ConfigDict
from text_generation_server.specs.decoder import AttentionSpec, DecoderSpec, MlpSpec, layer_norm
from text_generation_server.specs.names import CheckpointNames, QkvLayout

GPT2_NAMES = CheckpointNames(
    family_prefix="transformer.",
    embedding="transformer.wte",
    positions="transformer.wpe",
    layer="transformer.h.{}",
    attention_norm="ln_1",
    mlp_norm="ln_2",
    qkv=("attn.c_attn",),
    qkv_layout=QkvLayout.CONCAT,
    attention_out="attn.c_proj",
    up=("mlp.c_fc",),
    down="mlp.c_proj",
    final_norm="transformer.ln_f",
    conv1d=True,
)
SANTACODER_NAMES = replace(
    GPT2_NAMES, qkv=("attn.q_attn", "attn.kv_attn"), qkv_layout=QkvLayout.Q_KV, concat_qkv="attn.c_attn"
)


def gpt2(config: ConfigDict) -> DecoderSpec:
    """The spec of a GPT-2 or a SantaCoder."""
    config.reject("add_cross_attention", True)
    heads, hidden = config.integer("n_head", "num_attention_heads"), config.integer("n_embd", "hidden_size")
    scaled = config.flag("scale_attn_weights", default=True)
    multi_query = _is_multi_query(config)
    return DecoderSpec(
        vocab_size=config.integer("vocab_size"),
        hidden_size=hidden,
        num_layers=config.integer("n_layer", "num_hidden_layers"),
        norm=layer_norm(config.number("layer_norm_epsilon", default=1e-5)),
        attention=AttentionSpec(
            heads=heads,
            kv_heads=1 if multi_query else heads,
            head_dim=hidden // heads,
            qkv_bias=True,
            out_bias=True,
            scale=None if scaled else 1.0,
            inverse_layer_scale=config.flag("scale_attn_by_inverse_layer_idx", default=False),
        ),
        mlp=MlpSpec(
            config.integer("n_inner", default=4 * hidden),
            config.activation("activation_function", default="gelu_new"),
            gated=False,
            bias=True,
        ),
        names=SANTACODER_NAMES if multi_query else GPT2_NAMES,
        head=config.head(tied_by_default=True),
        max_positions=config.positions("n_positions", "max_position_embeddings"),
    )


def _is_multi_query(config: ConfigDict) -> bool:
    kind = config.text("attention_head_type", default="multihead")
    if kind not in ("multihead", "multiquery"):
        raise config.refusal("attention_head_type", kind, "multihead or multiquery")
    return kind == "multiquery"
