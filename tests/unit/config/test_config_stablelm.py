"""config.json of StableLM, as published."""

import pytest

from text_generation_server.architectures.registry import read_spec
from text_generation_server.config.configdict import ConfigDict
from text_generation_server.specs.decoder import NormKind, QkNormScope, QkNormSpec, Wiring, layer_norm

STABLELM_3B = {
    "model_type": "stablelm",
    "hidden_act": "silu",
    "hidden_size": 2560,
    "intermediate_size": 6912,
    "layer_norm_eps": 1e-05,
    "max_position_embeddings": 4096,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 32,
    "partial_rotary_factor": 0.25,
    "rope_theta": 10000,
    "tie_word_embeddings": False,
    "use_qkv_bias": False,
    "vocab_size": 50304,
}
STABLELM_2_12B = {
    **STABLELM_3B,
    "hidden_size": 5120,
    "intermediate_size": 13824,
    "num_hidden_layers": 40,
    "num_key_value_heads": 8,
    "qk_layernorm": True,
    "use_parallel_residual": True,
    "vocab_size": 100352,
}


def spec(values, **more):
    return read_spec(ConfigDict({**values, **more}))


@pytest.mark.parametrize(
    ("values", "sizes"), [(STABLELM_3B, (32, 80, 20)), (STABLELM_2_12B, (8, 160, 40))], ids=["3B", "12B"]
)
def test_published_sizes(values, sizes):
    made = spec(values)
    attention = made.attention
    assert attention.rope is not None
    assert (attention.kv_heads, attention.head_dim, attention.rope.dim) == sizes
    assert made.norm.kind is NormKind.LAYER and made.norm.bias


def test_3b_is_sequential_without_norms_of_heads():
    made = spec(STABLELM_3B)
    assert made.wiring is Wiring.SEQUENTIAL and made.names.mlp_norm == "post_attention_layernorm"
    assert made.attention.qk_norm is None


def test_12b_is_parallel_with_norms_of_heads():
    made = spec(STABLELM_2_12B)
    assert made.wiring is Wiring.PARALLEL and made.names.mlp_norm == ""
    assert made.attention.qk_norm == QkNormSpec(layer_norm(1e-5, bias=False), QkNormScope.EACH_HEAD)


def test_biases_are_on_queries_keys_and_values_only():
    attention = spec(STABLELM_3B, use_qkv_bias=True).attention
    assert (attention.qkv_bias, attention.out_bias) == (True, False)


def test_a_quarter_of_a_head_is_rotated_by_default():
    assert spec(STABLELM_3B, partial_rotary_factor=None) == spec(STABLELM_3B)
