"""StarCoder's and SantaCoder's published config.json files give the facts that their models are made of."""

import pytest

from text_generation_server.architectures.registry import read_spec
from text_generation_server.config.configdict import ConfigDict
from text_generation_server.errors import UnsupportedModel
from text_generation_server.specs.activation import Activation
from text_generation_server.specs.decoder import HeadTie
from text_generation_server.specs.names import QkvLayout

STARCODER = {
    "model_type": "gpt_bigcode",
    "activation_function": "gelu",
    "architectures": ["GPTBigCodeForCausalLM"],
    "attention_softmax_in_fp32": True,
    "layer_norm_epsilon": 1e-05,
    "multi_query": True,
    "n_embd": 6144,
    "n_head": 48,
    "n_inner": 24576,
    "n_layer": 40,
    "n_positions": 8192,
    "scale_attention_softmax_in_fp32": True,
    "scale_attn_weights": True,
    "vocab_size": 49152,
}
SANTACODER = {
    "model_type": "gpt2",
    "activation_function": "gelu_fast",
    "architectures": ["GPT2LMHeadCustomModel"],
    "attention_head_type": "multiquery",
    "layer_norm_epsilon": 1e-05,
    "n_embd": 2048,
    "n_head": 16,
    "n_inner": 8192,
    "n_layer": 24,
    "n_positions": 2048,
    "reorder_and_upcast_attn": False,
    "scale_attn_by_inverse_layer_idx": False,
    "scale_attn_weights": True,
    "vocab_size": 49280,
}


def spec(values, **more):
    return read_spec(ConfigDict({**values, **more}))


def test_starcoder_has_one_key_value_head_and_plain_linears():
    made = spec(STARCODER)
    attention, names = made.attention, made.names
    assert (attention.heads, attention.kv_heads, attention.head_dim, attention.scale) == (48, 1, 128, None)
    assert (names.qkv, names.qkv_layout, names.concat_qkv, names.conv1d) == (
        ("attn.c_attn",),
        QkvLayout.CONCAT,
        "",
        False,
    )
    assert (made.mlp.inner_size, made.mlp.activation) == (24576, Activation.GELU)
    assert (made.max_positions.tokens, made.head.tie) == (8192, HeadTie.IF_ABSENT)


def test_without_multi_query_each_head_has_its_key_and_value():
    made = spec(STARCODER, multi_query=False)
    assert (made.attention.kv_heads, made.names.qkv_layout) == (48, QkvLayout.GROUPED)


def test_santacoder_has_gpt2_s_type_and_one_key_value_head():
    made = spec(SANTACODER)
    attention, names = made.attention, made.names
    assert (attention.heads, attention.kv_heads, attention.head_dim) == (16, 1, 128)
    assert (names.qkv, names.qkv_layout) == (("attn.q_attn", "attn.kv_attn"), QkvLayout.Q_KV)
    assert (names.concat_qkv, names.conv1d) == ("attn.c_attn", True)
    assert (made.mlp.activation, made.max_positions.tokens) == (Activation.GELU_TANH, 2048)


def test_gpt2_proper_has_a_key_and_a_value_of_each_head():
    gpt2 = spec(SANTACODER, attention_head_type=None)
    assert (gpt2.attention.kv_heads, gpt2.names.qkv, gpt2.names.concat_qkv) == (16, ("attn.c_attn",), "")
    assert spec(SANTACODER, attention_head_type="multihead") == gpt2


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({**SANTACODER, "attention_head_type": "grouped"}, "attention_head_type is 'grouped'"),
        ({**STARCODER, "add_cross_attention": True}, "add_cross_attention is True"),
        ({**STARCODER, "activation_function": "quick"}, "activation_function is 'quick'"),
        ({**STARCODER, "multi_query": 1}, "multi_query is 1"),
    ],
)
def test_what_cannot_be_served_is_refused(values, message):
    with pytest.raises(UnsupportedModel, match=message):
        spec(values)
