"""config.json of Phi, as published."""

import pytest

from text_generation_server.architectures.registry import read_spec
from text_generation_server.config.configdict import ConfigDict
from text_generation_server.errors import UnsupportedModel
from text_generation_server.specs.decoder import HeadTie, Wiring
from text_generation_server.specs.rope import LongropeScaling

PHI_2 = {
    "model_type": "phi",
    "hidden_act": "gelu_new",
    "hidden_size": 2560,
    "intermediate_size": 10240,
    "layer_norm_eps": 1e-05,
    "max_position_embeddings": 2048,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 32,
    "partial_rotary_factor": 0.4,
    "qk_layernorm": False,
    "rope_scaling": None,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "vocab_size": 51200,
}
PHI_3_MINI_4K = {
    "model_type": "phi3",
    "hidden_act": "silu",
    "hidden_size": 3072,
    "intermediate_size": 8192,
    "max_position_embeddings": 4096,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 32,
    "original_max_position_embeddings": 4096,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "rope_theta": 10000.0,
    "sliding_window": 2047,
    "tie_word_embeddings": False,
    "vocab_size": 32064,
}
LONG = {"long_factor": [2.0] * 48, "short_factor": [1.0] * 48}
PHI_3_MINI_128K = {**PHI_3_MINI_4K, "max_position_embeddings": 131072, "sliding_window": 262144} | {
    "rope_scaling": {**LONG, "type": "longrope"}
}
PHI_3_MEDIUM_4K = {
    **PHI_3_MINI_4K,
    "hidden_size": 5120,
    "intermediate_size": 17920,
    "num_attention_heads": 40,
    "num_hidden_layers": 40,
    "num_key_value_heads": 10,
}


def spec(values, **more):
    return read_spec(ConfigDict({**values, **more}))


def test_phi_2():
    made = spec(PHI_2)
    assert made.wiring is Wiring.PARALLEL
    assert made.head.tie is HeadTie.SEPARATE and made.head.bias
    assert (made.attention.kv_heads, made.attention.head_dim) == (32, 80)
    assert made.attention.rope is not None and made.attention.rope.dim == 32


def test_phi_rotates_half_of_a_head_by_default():
    rope = spec(PHI_2, partial_rotary_factor=None, num_key_value_heads=None).attention.rope
    assert rope is not None and rope.dim == 40


@pytest.mark.parametrize(
    ("values", "kv_heads", "head_dim", "window"),
    [(PHI_3_MINI_4K, 32, 96, 2047), (PHI_3_MINI_128K, 32, 96, 262144), (PHI_3_MEDIUM_4K, 10, 128, 2047)],
)
def test_phi_3(values, kv_heads, head_dim, window):
    attention = spec(values).attention
    assert (attention.kv_heads, attention.head_dim) == (kv_heads, head_dim)
    assert set(attention.windows) == {window}
    assert not attention.qkv_bias and not attention.out_bias


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"rope_scaling": {**LONG, "type": "su"}},
        {"rope_scaling": None}
        | {"rope_parameters": {**LONG, "rope_type": "longrope", "original_max_position_embeddings": 4096}},
    ],
)
def test_every_spelling_of_longrope(keys):
    rope = spec(PHI_3_MINI_128K, **keys).attention.rope
    # 32 times the context of 4096, and ln(32) / ln(4096) is 5/12: the square root of 1 + 5/12.
    expected = LongropeScaling((1.0,) * 48, (2.0,) * 48, 4096, pytest.approx((17 / 12) ** 0.5))
    assert rope is not None and rope.scaling == expected


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({**PHI_2, "qk_layernorm": True}, "qk_layernorm is True"),
        ({**PHI_3_MINI_128K, "rope_scaling": {"type": "longrope"}}, "short_factor is missing"),
    ],
)
def test_what_cannot_be_served_is_refused(values, message):
    with pytest.raises(UnsupportedModel, match=message):
        spec(values)
