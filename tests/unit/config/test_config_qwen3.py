"""config.json of Qwen 3, as published."""

import pytest

from text_generation_server.architectures.registry import read_spec
from text_generation_server.config.configdict import ConfigDict
from text_generation_server.specs.decoder import HeadTie, QkNormScope, QkNormSpec, rms_norm

QWEN3_0_6B = {
    "model_type": "qwen3",
    "attention_bias": False,
    "head_dim": 128,
    "hidden_act": "silu",
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "max_position_embeddings": 40960,
    "max_window_layers": 28,
    "num_attention_heads": 16,
    "num_hidden_layers": 28,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "sliding_window": None,
    "tie_word_embeddings": True,
    "use_sliding_window": False,
    "vocab_size": 151936,
}


def spec(**more):
    return read_spec(ConfigDict({**QWEN3_0_6B, **more}))


def test_published_sizes():
    made = spec()
    attention = made.attention
    assert (attention.heads, attention.kv_heads, attention.head_dim, set(attention.windows)) == (16, 8, 128, {None})
    assert attention.rope is not None and (attention.rope.dim, attention.rope.theta) == (128, 1e6)
    assert attention.qk_norm == QkNormSpec(rms_norm(1e-6), QkNormScope.HEAD)
    assert made.head.tie is HeadTie.TIED


def test_heads_are_128_wide_by_default():
    assert spec(head_dim=None) == spec()


@pytest.mark.parametrize("bias", [False, True])
def test_biases_are_on_all_four_projections_or_none(bias):
    attention = spec(attention_bias=bias).attention
    assert (attention.qkv_bias, attention.out_bias) == (bias, bias)


def test_windows_are_those_of_qwen2():
    windows = spec(use_sliding_window=True, sliding_window=4096, max_window_layers=27).attention.windows
    assert windows == (None,) * 27 + (4096,)
