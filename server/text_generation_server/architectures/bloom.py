"""BLOOM and BLOOMZ: linear biases instead of positions, a norm after the embedding. Checked against transformers 5.23.

Hub files leave out `transformer.`.
"""

from text_generation_server.config.configdict import ConfigDict
from text_generation_server.specs.activation import Activation
from text_generation_server.specs.alibi import AlibiSpec
from text_generation_server.specs.decoder import AttentionSpec, DecoderSpec, MlpSpec, layer_norm
from text_generation_server.specs.names import CheckpointNames, QkvLayout

BLOOM_NAMES = CheckpointNames(
    family_prefix="transformer.",
    embedding="transformer.word_embeddings",
    embedding_norm="transformer.word_embeddings_layernorm",
    layer="transformer.h.{}",
    attention_norm="input_layernorm",
    mlp_norm="post_attention_layernorm",
    qkv=("self_attention.query_key_value",),
    qkv_layout=QkvLayout.GROUPED,
    attention_out="self_attention.dense",
    up=("mlp.dense_h_to_4h",),
    down="mlp.dense_4h_to_h",
    final_norm="transformer.ln_f",
)


def bloom(config: ConfigDict) -> DecoderSpec:
    """The spec of a BLOOM."""
    config.reject("apply_residual_connection_post_layernorm", True)
    heads = config.integer("n_head", "num_attention_heads")
    hidden = config.integer("hidden_size", "n_embed")
    return DecoderSpec(
        vocab_size=config.integer("vocab_size"),
        hidden_size=hidden,
        num_layers=config.integer("n_layer", "num_hidden_layers"),
        norm=layer_norm(config.number("layer_norm_epsilon", default=1e-5)),
        attention=AttentionSpec(
            heads=heads, kv_heads=heads, head_dim=hidden // heads, qkv_bias=True, out_bias=True, alibi=AlibiSpec()
        ),
        mlp=MlpSpec(4 * hidden, Activation.GELU_TANH, gated=False, bias=True),
        names=BLOOM_NAMES,
        head=config.head(tied_by_default=True),
    )
