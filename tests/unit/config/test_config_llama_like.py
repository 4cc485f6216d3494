"""Published config.json files of OLMo 2, Granite and SmolLM3, which change a few things of Llama."""

import pytest

from text_generation_server.architectures.registry import read_spec
from text_generation_server.config.configdict import ConfigDict
from text_generation_server.errors import UnsupportedModel
from text_generation_server.specs.decoder import HeadSpec, HeadTie, QkNormScope, QkNormSpec, Wiring, rms_norm
from text_generation_server.specs.rope import RopeSpec

OLMO_2_32B = {
    "model_type": "olmo2",
    "attention_bias": False,
    "hidden_act": "silu",
    "hidden_size": 5120,
    "intermediate_size": 27648,
    "max_position_embeddings": 4096,
    "num_attention_heads": 40,
    "num_hidden_layers": 64,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 500000,
    "tie_word_embeddings": False,
    "vocab_size": 100352,
}
GRANITE_8B = {
    "model_type": "granite",
    "attention_bias": False,
    "attention_multiplier": 0.0078125,
    "embedding_multiplier": 12.0,
    "hidden_act": "silu",
    "hidden_size": 4096,
    "intermediate_size": 12800,
    "logits_scaling": 16.0,
    "max_position_embeddings": 131072,
    "mlp_bias": False,
    "num_attention_heads": 32,
    "num_hidden_layers": 40,
    "num_key_value_heads": 8,
    "residual_multiplier": 0.22,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "rope_theta": 10000000.0,
    "tie_word_embeddings": True,
    "vocab_size": 49159,
}
SMOLLM3_3B = {
    "model_type": "smollm3",
    "attention_bias": False,
    "hidden_act": "silu",
    "hidden_size": 2048,
    "intermediate_size": 11008,
    "layer_types": ["full_attention"] * 36,
    "max_position_embeddings": 65536,
    "max_window_layers": 28,
    "mlp_bias": False,
    "no_rope_layer_interval": 4,
    "no_rope_layers": [1, 1, 1, 0] * 9,
    "num_attention_heads": 16,
    "num_hidden_layers": 36,
    "num_key_value_heads": 4,
    "pretraining_tp": 2,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 5000000.0,
    "sliding_window": None,
    "use_sliding_window": False,
    "vocab_size": 128256,
}
SLIDING = {"sliding_window": 512, "use_sliding_window": True}


def spec(values, **more):
    return read_spec(ConfigDict({**values, **more}))


def test_olmo_2_32b_has_norms_of_outputs_and_of_all_heads():
    made = spec(OLMO_2_32B)
    attention = made.attention
    assert (attention.heads, attention.kv_heads, attention.head_dim) == (40, 8, 128)
    assert attention.rope == RopeSpec(128, 500000.0)
    assert attention.qk_norm == QkNormSpec(rms_norm(1e-6), QkNormScope.ALL_HEADS)
    assert (made.wiring, made.norm, made.head.tie) == (Wiring.OUTPUT_NORMS, rms_norm(1e-6), HeadTie.SEPARATE)
    assert (made.names.attention_norm, made.names.mlp_norm) == ("", "")


def test_olmo_2_s_own_epsilon_where_none_is_given():
    assert spec(OLMO_2_32B, rms_norm_eps=None).norm == rms_norm(1e-5)


def test_granite_8b_has_four_multipliers():
    made = spec(GRANITE_8B)
    assert [made.attention.scale_of(layer) for layer in (0, 39)] == [0.0078125] * 2
    assert (made.embedding_scale, made.branch_scale) == (12.0, 0.22)
    assert made.head == HeadSpec(HeadTie.TIED, scale=1 / 16)
    assert (made.attention.rope, made.attention.kv_heads) == (RopeSpec(128, 1e7), 8)


def test_granite_s_multipliers_are_one_where_absent():
    absent = dict.fromkeys(("attention_multiplier", "embedding_multiplier", "logits_scaling", "residual_multiplier"))
    made = spec(GRANITE_8B, **absent)
    assert (made.attention.scale, made.embedding_scale, made.branch_scale, made.head.scale) == (1.0, 1.0, 1.0, 1.0)


def test_smollm3_3b_rotates_in_three_of_four_layers():
    made = spec(SMOLLM3_3B)
    rope = RopeSpec(128, 5e6)
    assert [made.attention.rope_of(layer) for layer in (0, 2, 3, 34, 35)] == [rope, rope, None, rope, None]
    assert {made.attention.window_of(layer) for layer in range(36)} == {None}
    assert (made.attention.kv_heads, made.head.tie, made.max_positions.tokens) == (4, HeadTie.IF_ABSENT, 65536)


def test_smollm3_s_own_theta_and_interval_where_none_are_given():
    made = spec(SMOLLM3_3B, rope_theta=None, no_rope_layers=None, no_rope_layer_interval=None)
    assert [made.attention.rope_of(layer) for layer in (2, 3)] == [RopeSpec(128, 2e6), None]


def test_smollm3_slides_only_if_asked_to():
    slides = ["sliding_attention", "full_attention"] * 18
    assert spec(SMOLLM3_3B, sliding_window=512, layer_types=slides).attention.windows == ()
    assert spec(SMOLLM3_3B, layer_types=slides, **SLIDING).attention.windows[:3] == (512, None, 512)
    absent = spec(SMOLLM3_3B, layer_types=None, **SLIDING)
    assert absent.attention.windows[:5] == (None, None, None, 512, None)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({**SMOLLM3_3B, "no_rope_layers": [1, 0]}, "no_rope_layers is .*; expected a list of 36 values"),
        ({**SMOLLM3_3B, **SLIDING, "layer_types": ["chunked_attention"] * 36}, "layer_types is 'chunked_attention'"),
        ({**OLMO_2_32B, "rope_scaling": {"type": "stretched"}}, "rope_type is 'stretched'"),
        ({**GRANITE_8B, "logits_scaling": "16"}, "logits_scaling is '16'"),
    ],
)
def test_what_cannot_be_served_is_refused(values, message):
    with pytest.raises(UnsupportedModel, match=message):
        spec(values)
