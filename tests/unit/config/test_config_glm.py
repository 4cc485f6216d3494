"""The published config.json files of GLM-4, ChatGLM and Baichuan give the facts that the models are made of."""

from dataclasses import replace

import pytest

from text_generation_server.architectures.registry import read_spec
from text_generation_server.config.configdict import ConfigDict
from text_generation_server.errors import UnsupportedModel
from text_generation_server.specs.alibi import AlibiSpec
from text_generation_server.specs.decoder import HeadSpec, HeadTie, Wiring
from text_generation_server.specs.rope import RopeSpec

GLM4_9B_HF = {
    "model_type": "glm",
    "attention_bias": True,
    "head_dim": 128,
    "hidden_act": "silu",
    "hidden_size": 4096,
    "intermediate_size": 13696,
    "max_position_embeddings": 131072,
    "num_attention_heads": 32,
    "num_hidden_layers": 40,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1.5625e-07,
    "rope_theta": 5000000.0,
    "tie_word_embeddings": False,
    "vocab_size": 151552,
}
GLM4_9B = {
    "model_type": "chatglm",
    "add_bias_linear": False,
    "add_qkv_bias": True,
    "apply_query_key_layer_scaling": True,
    "apply_residual_connection_post_layernorm": False,
    "ffn_hidden_size": 13696,
    "fp32_residual_connection": False,
    "hidden_size": 4096,
    "kv_channels": 128,
    "layernorm_epsilon": 1.5625e-07,
    "multi_query_attention": True,
    "multi_query_group_num": 2,
    "num_attention_heads": 32,
    "num_hidden_layers": 40,
    "num_layers": 40,
    "original_rope": True,
    "padded_vocab_size": 151552,
    "post_layer_norm": True,
    "rmsnorm": True,
    "rope_ratio": 500,
    "seq_length": 131072,
    "tie_word_embeddings": False,
    "vocab_size": 151552,
}
BAICHUAN2_7B = {
    "model_type": "baichuan",
    "hidden_act": "silu",
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "max_position_embeddings": 4096,
    "model_max_length": 4096,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "rms_norm_eps": 1e-06,
    "tie_word_embeddings": False,
    "vocab_size": 125696,
    "z_loss_weight": 0,
}
BAICHUAN_13B = {
    "model_type": "baichuan",
    "hidden_act": "silu",
    "hidden_size": 5120,
    "intermediate_size": 13696,
    "model_max_length": 4096,
    "num_attention_heads": 40,
    "num_hidden_layers": 40,
    "rms_norm_eps": 1e-06,
    "tie_word_embeddings": False,
    "vocab_size": 64000,
}


def spec(values, **more):
    return read_spec(ConfigDict({**values, **more}))


def test_glm_4_rotates_half_of_each_head():
    read = spec(GLM4_9B_HF)
    assert read.attention.rope == RopeSpec(64, 5e6, interleaved=True)
    assert (read.attention.heads, read.attention.kv_heads, read.attention.head_dim) == (32, 2, 128)
    assert (read.attention.qkv_bias, read.attention.out_bias, read.mlp.bias) == (True, False, False)
    assert read.head.tie is HeadTie.SEPARATE


def test_glm_4_0414_norms_branches_outputs():
    values = {**GLM4_9B_HF, "model_type": "glm4", "partial_rotary_factor": 0.5, "attention_bias": False}
    read = spec(values)
    assert (read.wiring, read.attention.qkv_bias) == (Wiring.SANDWICH, False)
    assert read.names.mlp_norm == "post_attention_layernorm"
    assert read.names.attention_out_norm == "post_self_attn_layernorm"
    assert read.names.mlp_out_norm == "post_mlp_layernorm"


def test_remote_code_files_say_the_same_as_the_others():
    theirs, ours = spec(GLM4_9B), spec(GLM4_9B_HF)
    assert replace(theirs, names=ours.names) == ours


def test_the_two_generations_before_glm_4():
    third = {"num_layers": 28, "layernorm_epsilon": 1e-5, "padded_vocab_size": 65024, "rope_ratio": None}
    read = spec(GLM4_9B, **third, seq_length=8192, num_hidden_layers=None)
    assert (read.num_layers, read.vocab_size, read.max_positions.tokens) == (28, 65024, 8192)
    assert read.attention.rope == RopeSpec(64, 1e4, interleaved=True)


def test_without_groups_every_head_has_its_own_keys():
    assert spec(GLM4_9B, multi_query_attention=False).attention.kv_heads == 32


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"rmsnorm": False}, "rmsnorm is False"),
        ({"post_layer_norm": False}, "post_layer_norm is False"),
        ({"original_rope": False}, "original_rope is False"),
        ({"add_bias_linear": True}, "add_bias_linear is True"),
        ({"apply_residual_connection_post_layernorm": True}, "apply_residual_connection_post_layernorm is True"),
        ({"fp32_residual_connection": True}, "fp32_residual_connection is True"),
        ({"vision_config": {"image_size": 1120}}, "vision_config.image_size is 1120"),
        ({"ffn_hidden_size": None}, "ffn_hidden_size is missing"),
    ],
)
def test_other_chatglm_models_are_refused(more, message):
    with pytest.raises(UnsupportedModel, match=message):
        spec(GLM4_9B, **more)


def test_baichuan_of_the_smaller_size_is_rotated():
    read = spec(BAICHUAN2_7B)
    assert read.attention.rope == RopeSpec(128, 1e4)
    assert read.attention.alibi is None
    assert read.max_positions.tokens == 4096


def test_baichuan_of_the_larger_size_has_linear_biases():
    read = spec(BAICHUAN_13B)
    assert (read.attention.rope, read.attention.alibi) == (None, AlibiSpec())
    assert (read.attention.heads, read.attention.kv_heads, read.attention.head_dim) == (40, 40, 128)
    assert read.max_positions is None


@pytest.mark.parametrize(
    ("values", "normalised"),
    [
        (BAICHUAN2_7B, True),
        ({**BAICHUAN2_7B, "z_loss_weight": None}, True),
        ({**BAICHUAN_13B, "z_loss_weight": 0}, True),
        (BAICHUAN_13B, False),
    ],
)
def test_the_head_of_the_second_baichuan_is_normalised(values, normalised):
    assert spec(values).head == HeadSpec(HeadTie.SEPARATE, normalised=normalised)
