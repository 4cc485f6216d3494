"""MPT's published config.json files give the facts that its models are made of."""

import pytest

from text_generation_server.architectures.registry import read_spec
from text_generation_server.config.configdict import ConfigDict
from text_generation_server.errors import UnsupportedModel
from text_generation_server.specs.activation import Activation
from text_generation_server.specs.alibi import AlibiSpec
from text_generation_server.specs.decoder import HeadTie, layer_norm

ATTENTION = {
    "alibi": True,
    "alibi_bias_max": 8,
    "attn_impl": "torch",
    "attn_pdrop": 0,
    "attn_type": "multihead_attention",
    "attn_uses_sequence_id": False,
    "clip_qkv": None,
    "prefix_lm": False,
    "qk_ln": False,
    "softmax_scale": None,
}
MPT_7B = {
    "model_type": "mpt",
    "attn_config": ATTENTION,
    "d_model": 4096,
    "expansion_ratio": 4,
    "learned_pos_emb": True,
    "logit_scale": None,
    "max_seq_len": 2048,
    "n_heads": 32,
    "n_layers": 32,
    "no_bias": True,
    "norm_type": "low_precision_layernorm",
    "vocab_size": 50432,
}


def spec(attention=None, **more):
    return read_spec(ConfigDict({**MPT_7B, "attn_config": {**ATTENTION, **(attention or {})}, **more}))


def test_mpt_7b():
    made = spec()
    attention = made.attention
    assert (attention.heads, attention.kv_heads, attention.head_dim) == (32, 32, 128)
    assert (attention.alibi, attention.rope, attention.scale, attention.clip_qkv) == (AlibiSpec(), None, None, None)
    assert (made.mlp.inner_size, made.mlp.activation, made.mlp.bias) == (16384, Activation.GELU, False)
    assert (made.norm, made.head.tie) == (layer_norm(1e-5, bias=False), HeadTie.IF_ABSENT)
    assert (made.max_positions, made.names.positions) == (None, "")


def test_storywriter_bounds_queries_keys_and_values():
    assert spec({"clip_qkv": 6}, max_seq_len=65536).attention.clip_qkv == 6.0


def test_a_scale_of_its_own_counts():
    assert spec({"softmax_scale": 0.25}).attention.scale == 0.25


def test_a_file_without_attn_config_means_its_defaults():
    assert spec(attn_config=None) == spec()


@pytest.mark.parametrize(
    ("attention", "values", "message"),
    [
        ({"attn_type": "multiquery_attention"}, {}, "attn_config: attn_type is 'multiquery_attention'"),
        ({"alibi": False}, {}, "alibi is False"),
        ({"alibi_bias_max": 16}, {}, "alibi_bias_max is 16"),
        ({"prefix_lm": True}, {}, "prefix_lm is True"),
        ({"qk_ln": True}, {}, "qk_ln is True"),
        ({}, {"no_bias": False}, "no_bias is False"),
        ({}, {"expansion_ratio": 2}, "expansion_ratio is 2"),
        ({}, {"logit_scale": "inv_sqrt_d_model"}, "logit_scale is 'inv_sqrt_d_model'"),
        ({}, {"norm_type": "rmsnorm"}, "norm_type is 'rmsnorm'"),
    ],
)
def test_what_cannot_be_served_is_refused(attention, values, message):
    with pytest.raises(UnsupportedModel, match=message):
        spec(attention, **values)
