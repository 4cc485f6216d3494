"""ChatGLM 2 and 3, GLM-4 9B and CodeGeeX4 as published with code of their own: GLM-4 under other keys and names.

Source: the files' own configuration_chatglm.py and modeling_chatglm.py. Checked against transformers 5.23's GLM, of
which they are a renaming. Traps: theta is 10000 · `rope_ratio`; the vocabulary is `padded_vocab_size`;
`apply_query_key_layer_scaling` divides scores by the layer's number and multiplies them again.
"""

from dataclasses import replace

from text_generation_server.architectures.glm import glm
from text_generation_server.config.configdict import ConfigDict
from text_generation_server.specs.decoder import DecoderSpec
from text_generation_server.specs.names import CheckpointNames, QkvLayout

CHATGLM_NAMES = CheckpointNames(
    family_prefix="transformer.",
    embedding="transformer.embedding.word_embeddings",
    layer="transformer.encoder.layers.{}",
    attention_norm="input_layernorm",
    mlp_norm="post_attention_layernorm",
    qkv=("self_attention.query_key_value",),
    qkv_layout=QkvLayout.CONCAT,
    attention_out="self_attention.dense",
    up=("mlp.dense_h_to_4h",),
    down="mlp.dense_4h_to_h",
    final_norm="transformer.encoder.final_layernorm",
    head="transformer.output_layer",
)


def chatglm(config: ConfigDict) -> DecoderSpec:
    """The spec of a GLM-4 in remote-code files."""
    config.reject_section("vision_config", "image_size")
    for key in ("add_bias_linear", "apply_residual_connection_post_layernorm", "fp32_residual_connection"):
        config.reject(key, True)
    for key in ("rmsnorm", "post_layer_norm", "original_rope"):
        config.reject(key, False)
    heads = config.integer("num_attention_heads")
    grouped = config.flag("multi_query_attention", default=False)
    renamed = config.replaced(
        num_hidden_layers=config.integer("num_layers"),
        num_key_value_heads=config.integer("multi_query_group_num", default=1) if grouped else heads,
        head_dim=config.integer("kv_channels", default=128),
        intermediate_size=config.integer("ffn_hidden_size"),
        vocab_size=config.integer("padded_vocab_size", "vocab_size"),
        attention_bias=config.flag("add_qkv_bias", default=False),
        rms_norm_eps=config.number("layernorm_epsilon", default=1e-5),
        rope_theta=10000.0 * config.number("rope_ratio", default=1.0),
        max_position_embeddings=config.integer("seq_length", default=2048),
    )
    return replace(glm(renamed), names=CHATGLM_NAMES)
