"""Cohere's published config.json files give the facts that its models are made of."""

import pytest

from text_generation_server.architectures.registry import read_spec
from text_generation_server.config.configdict import ConfigDict
from text_generation_server.errors import UnsupportedModel
from text_generation_server.specs.decoder import HeadSpec, HeadTie, QkNormScope, QkNormSpec, Wiring, layer_norm
from text_generation_server.specs.rope import RopeSpec

COMMAND_R = {
    "model_type": "cohere",
    "attention_bias": False,
    "hidden_act": "silu",
    "hidden_size": 8192,
    "intermediate_size": 22528,
    "layer_norm_eps": 1e-05,
    "logit_scale": 0.0625,
    "max_position_embeddings": 8192,
    "model_max_length": 131072,
    "num_attention_heads": 64,
    "num_hidden_layers": 40,
    "num_key_value_heads": 64,
    "rope_theta": 8000000.0,
    "vocab_size": 256000,
}
COMMAND_R_PLUS = {
    **COMMAND_R,
    "hidden_size": 12288,
    "intermediate_size": 33792,
    "logit_scale": 0.8333333333333334,
    "num_attention_heads": 96,
    "num_hidden_layers": 64,
    "num_key_value_heads": 8,
    "rope_theta": 75000000.0,
    "use_qk_norm": True,
}
COMMAND_R7B = {
    "model_type": "cohere2",
    "attention_bias": False,
    "head_dim": 128,
    "hidden_act": "silu",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "layer_norm_eps": 1e-05,
    "layer_switch": 4,
    "logit_scale": 0.25,
    "max_position_embeddings": 8192,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "order_of_interleaved_layers": "local_attn_first",
    "rope_scaling": None,
    "rope_theta": 50000,
    "rotary_pct": 1.0,
    "sliding_window": 4096,
    "sliding_window_pattern": 4,
    "vocab_size": 256000,
}


def spec(values, **more):
    return read_spec(ConfigDict({**values, **more}))


def test_command_r():
    read = spec(COMMAND_R)
    assert (read.attention.heads, read.attention.kv_heads, read.attention.head_dim) == (64, 64, 128)
    assert read.attention.rope == RopeSpec(128, 8e6, interleaved=True)
    assert read.norm == layer_norm(1e-5, bias=False)
    assert read.head == HeadSpec(HeadTie.IF_ABSENT, scale=0.0625)
    assert read.wiring is Wiring.PARALLEL
    assert read.max_positions.tokens == 131072


def test_command_r_plus_norms_each_head_with_its_own_weights():
    read = spec(COMMAND_R_PLUS)
    assert read.attention.qk_norm == QkNormSpec(layer_norm(1e-5, bias=False), QkNormScope.EACH_HEAD)
    assert (read.attention.kv_heads, read.head.scale) == (8, pytest.approx(0.8333, abs=1e-4))
    assert spec(COMMAND_R).attention.qk_norm is None


def test_every_fourth_layer_of_cohere_2_sees_all_and_is_not_rotated():
    attention = spec(COMMAND_R7B).attention
    assert attention.windows == (4096, 4096, 4096, None) * 8
    rope = RopeSpec(128, 5e4, interleaved=True)
    assert [attention.rope_of(layer) for layer in range(5)] == [rope, rope, rope, None, rope]


def test_cohere_2_of_newer_files_is_the_same():
    kinds = (["sliding_attention"] * 3 + ["full_attention"]) * 8
    newer = {"layer_types": kinds, "sliding_window_pattern": None, "rope_theta": None}
    assert spec(COMMAND_R7B, **newer, rope_parameters={"rope_theta": 5e4, "rope_type": "default"}) == spec(COMMAND_R7B)


def test_thetas_where_no_key_says():
    assert spec(COMMAND_R, rope_theta=None).attention.rope_of(0) == RopeSpec(128, 5e5, interleaved=True)
    assert spec(COMMAND_R7B, rope_theta=None).attention.rope_of(0) == RopeSpec(128, 1e4, interleaved=True)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"layer_types": ["chunked_attention"] * 32}, "layer_types is 'chunked_attention'.* one of sliding_attention"),
        ({"layer_types": ["full_attention"]}, r"layer_types is \['full_attention'\].*a list of 32 values"),
        ({"use_qk_norm": True}, "use_qk_norm is True"),
        ({"sliding_window": "wide"}, "sliding_window is 'wide'"),
    ],
)
def test_what_cannot_be_served_is_refused(more, message):
    with pytest.raises(UnsupportedModel, match=message):
        spec(COMMAND_R7B, **more)
