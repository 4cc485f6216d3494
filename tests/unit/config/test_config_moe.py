"""config.json of models with experts, as published: Mixtral, Qwen, DBRX."""

import pytest

from text_generation_server.architectures.registry import read_spec
from text_generation_server.config.configdict import ConfigDict
from text_generation_server.errors import UnsupportedModel
from text_generation_server.specs.decoder import HeadTie

MIXTRAL_8X7B = {
    "model_type": "mixtral",
    "hidden_act": "silu",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "max_position_embeddings": 32768,
    "num_attention_heads": 32,
    "num_experts_per_tok": 2,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "num_local_experts": 8,
    "rms_norm_eps": 1e-05,
    "rope_theta": 1000000.0,
    "sliding_window": None,
    "tie_word_embeddings": False,
    "vocab_size": 32000,
}
QWEN_MOE_A2_7B = {
    "model_type": "qwen2_moe",
    "decoder_sparse_step": 1,
    "hidden_act": "silu",
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "max_position_embeddings": 8192,
    "max_window_layers": 21,
    "moe_intermediate_size": 1408,
    "norm_topk_prob": False,
    "num_attention_heads": 16,
    "num_experts": 60,
    "num_experts_per_tok": 4,
    "num_hidden_layers": 24,
    "num_key_value_heads": 16,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "shared_expert_intermediate_size": 5632,
    "sliding_window": 32768,
    "tie_word_embeddings": False,
    "use_sliding_window": False,
    "vocab_size": 151936,
}
QWEN3_30B_A3B = {
    "model_type": "qwen3_moe",
    "attention_bias": False,
    "decoder_sparse_step": 1,
    "head_dim": 128,
    "hidden_act": "silu",
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "max_position_embeddings": 40960,
    "max_window_layers": 48,
    "mlp_only_layers": [],
    "moe_intermediate_size": 768,
    "norm_topk_prob": True,
    "num_attention_heads": 32,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 48,
    "num_key_value_heads": 4,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 1000000.0,
    "sliding_window": None,
    "tie_word_embeddings": False,
    "use_sliding_window": False,
    "vocab_size": 151936,
}
DBRX = {
    "model_type": "dbrx",
    "attn_config": {"clip_qkv": 8, "kv_n_heads": 8, "model_type": "", "rope_theta": 500000},
    "d_model": 6144,
    "ffn_config": {"ffn_hidden_size": 10752, "moe_jitter_eps": 0, "moe_num_experts": 16, "moe_top_k": 4},
    "max_seq_len": 32768,
    "n_heads": 48,
    "n_layers": 40,
    "tie_word_embeddings": False,
    "vocab_size": 100352,
}


def spec(values, **more):
    return read_spec(ConfigDict({**values, **more}))


@pytest.mark.parametrize(
    ("values", "heads", "theta", "experts"),
    [
        (MIXTRAL_8X7B, (32, 8, 128), 1e6, (8, 2, 14336)),
        (QWEN_MOE_A2_7B, (16, 16, 128), 1e6, (60, 4, 1408)),
        (QWEN3_30B_A3B, (32, 4, 128), 1e6, (128, 8, 768)),
        (DBRX, (48, 8, 128), 5e5, (16, 4, 10752)),
    ],
)
def test_published_sizes(values, heads, theta, experts):
    made = spec(values)
    attention, moe = made.attention, made.moe
    assert (attention.heads, attention.kv_heads, attention.head_dim) == heads
    assert attention.rope is not None and (attention.rope.dim, attention.rope.theta) == (128, theta)
    assert moe is not None and (moe.experts, moe.top_k, moe.inner_size) == experts
    assert moe.dense_layers == frozenset()
    assert all(attention.window_of(layer) is None for layer in range(made.num_layers))
    assert made.head.tie is HeadTie.SEPARATE


@pytest.mark.parametrize(
    ("values", "normalise", "shared", "biases"),
    [
        (MIXTRAL_8X7B, 1.0, 0, (False, False)),
        (QWEN_MOE_A2_7B, None, 5632, (True, False)),
        (QWEN3_30B_A3B, 1.0, 0, (False, False)),
        (DBRX, 1.0, 0, (False, False)),
    ],
)
def test_published_routing_and_biases(values, normalise, shared, biases):
    made = spec(values)
    assert made.moe is not None and (made.moe.normalise, made.moe.shared_size) == (normalise, shared)
    assert (made.attention.qkv_bias, made.attention.out_bias) == biases


def test_theta_of_mixtral_has_a_default_of_its_own():
    rope = spec(MIXTRAL_8X7B, rope_theta=None).attention.rope
    assert rope is not None and rope.theta == 1e6


def test_experts_in_the_newer_spelling():
    newer = {**QWEN3_30B_A3B, "num_experts": None, "num_local_experts": 128}
    assert spec(newer) == spec(QWEN3_30B_A3B)


@pytest.mark.parametrize(
    ("keys", "dense"),
    [
        ({"mlp_only_layers": [0, 5]}, {0, 5}),
        ({"decoder_sparse_step": 2}, set(range(0, 48, 2))),
        ({"decoder_sparse_step": 2, "mlp_only_layers": [1]}, {1, *range(0, 48, 2)}),
    ],
)
def test_dense_layers_of_qwen(keys, dense):
    moe = spec(QWEN3_30B_A3B, **keys).moe
    assert moe is not None and moe.dense_layers == dense


def test_dbrx_prefers_the_theta_it_was_trained_with():
    rope = spec(DBRX, rope_parameters={"rope_type": "default", "rope_theta": 10000.0}).attention.rope
    assert rope is not None and rope.theta == 500000.0
    assert spec(DBRX).attention.clip_qkv == 8.0
    assert spec(DBRX).max_positions.tokens == 32768


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({**QWEN3_30B_A3B, "mlp_only_layers": 3}, "mlp_only_layers is 3"),
        ({**DBRX, "ffn_config": {"ffn_act_fn": {"name": "mish"}}}, "ffn_act_fn: name is 'mish'"),
        ({**DBRX, "attn_config": {"kv_n_heads": "8"}}, "attn_config: kv_n_heads is '8'"),
    ],
)
def test_what_cannot_be_served_is_refused(values, message):
    with pytest.raises(UnsupportedModel, match=message):
        spec(values)
