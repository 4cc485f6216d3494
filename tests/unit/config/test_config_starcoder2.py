"""config.json of StarCoder2, as published."""

from text_generation_server.architectures.registry import read_spec
from text_generation_server.config.configdict import ConfigDict
from text_generation_server.specs.activation import Activation
from text_generation_server.specs.decoder import HeadTie, MlpSpec, layer_norm

STARCODER2_3B = {
    "model_type": "starcoder2",
    "hidden_act": "gelu_pytorch_tanh",
    "hidden_size": 3072,
    "intermediate_size": 12288,
    "max_position_embeddings": 16384,
    "mlp_type": "default",
    "norm_epsilon": 1e-05,
    "norm_type": "layer_norm",
    "num_attention_heads": 24,
    "num_hidden_layers": 30,
    "num_key_value_heads": 2,
    "rope_theta": 999999.4420358813,
    "sliding_window": 4096,
    "use_bias": True,
    "vocab_size": 49152,
}


def spec(**more):
    return read_spec(ConfigDict({**STARCODER2_3B, **more}))


def test_published_sizes():
    made = spec()
    attention = made.attention
    assert (attention.heads, attention.kv_heads, attention.head_dim) == (24, 2, 128)
    assert set(attention.windows) == {4096} and len(attention.windows) == 30
    assert attention.rope is not None and attention.rope.theta == 999999.4420358813
    assert made.norm == layer_norm(1e-5)
    assert made.mlp == MlpSpec(12288, Activation.GELU_TANH, gated=False, bias=True)


def test_the_head_is_the_embedding_unless_said_otherwise():
    assert spec().head.tie is HeadTie.IF_ABSENT
    assert spec(tie_word_embeddings=False).head.tie is HeadTie.SEPARATE


def test_one_key_rules_all_biases():
    made = spec(use_bias=False)
    assert not (made.attention.qkv_bias or made.attention.out_bias or made.mlp.bias)
