"""The published config.json files of Gemma 2 and 3 give the facts that the models are made of."""

import pytest

from text_generation_server.architectures.registry import read_spec
from text_generation_server.config.configdict import ConfigDict
from text_generation_server.errors import UnsupportedModel
from text_generation_server.specs.activation import Activation
from text_generation_server.specs.decoder import HeadSpec, HeadTie, QkNormScope, QkNormSpec, Wiring, rms_norm
from text_generation_server.specs.rope import LinearScaling, RopeSpec

GEMMA2_27B = {
    "model_type": "gemma2",
    "attention_bias": False,
    "attn_logit_softcapping": 50.0,
    "cache_implementation": "hybrid",
    "final_logit_softcapping": 30.0,
    "head_dim": 128,
    "hidden_act": "gelu_pytorch_tanh",
    "hidden_activation": "gelu_pytorch_tanh",
    "hidden_size": 4608,
    "intermediate_size": 36864,
    "max_position_embeddings": 8192,
    "num_attention_heads": 32,
    "num_hidden_layers": 46,
    "num_key_value_heads": 16,
    "query_pre_attn_scalar": 144,
    "rms_norm_eps": 1e-06,
    "rope_theta": 10000.0,
    "sliding_window": 4096,
    "sliding_window_size": 4096,
    "vocab_size": 256000,
}
GEMMA3_1B = {
    "model_type": "gemma3_text",
    "attention_bias": False,
    "attn_logit_softcapping": None,
    "final_logit_softcapping": None,
    "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "hidden_size": 1152,
    "intermediate_size": 6912,
    "max_position_embeddings": 32768,
    "num_attention_heads": 4,
    "num_hidden_layers": 26,
    "num_key_value_heads": 1,
    "query_pre_attn_scalar": 256,
    "rms_norm_eps": 1e-06,
    "rope_local_base_freq": 10000,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "sliding_window": 512,
    "sliding_window_pattern": 6,
    "vocab_size": 262144,
}
GEMMA3_4B = {
    "model_type": "gemma3_text",
    "hidden_size": 2560,
    "intermediate_size": 10240,
    "num_hidden_layers": 34,
    "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
    "sliding_window": 1024,
}
"""The text section of the whole file: what is as in the 4B is left out."""


def spec(values, **more):
    return read_spec(ConfigDict({**values, **more}))


def test_gemma_2():
    read = spec(GEMMA2_27B)
    assert (read.attention.heads, read.attention.kv_heads, read.attention.head_dim) == (32, 16, 128)
    assert read.attention.scale_of(0) == pytest.approx(1 / 12)
    assert read.attention.softcap == 50.0
    assert read.attention.windows == (4096, None) * 23
    assert read.attention.rope_of(0) == RopeSpec(128, 1e4)
    assert read.head == HeadSpec(HeadTie.IF_ABSENT, softcap=30.0)
    assert read.norm == rms_norm(1e-6, offset=1.0)
    assert read.mlp.activation is Activation.GELU_TANH
    assert read.wiring is Wiring.SANDWICH
    assert read.embedding_scale == pytest.approx(67.8823, abs=1e-4)


def test_null_bounds_are_none():
    read = spec(GEMMA2_27B, attn_logit_softcapping=None, final_logit_softcapping=None)
    assert (read.attention.softcap, read.head.softcap) == (None, None)


def test_gemma_3_rotates_full_and_sliding_layers_differently():
    attention = spec(GEMMA3_1B).attention
    assert attention.windows == (*((512,) * 5 + (None,)) * 4, 512, 512)
    ropes = [attention.rope_of(layer) for layer in range(26)]
    assert set(ropes[5::6]) == {RopeSpec(256, 1e6)}
    assert ropes.count(RopeSpec(256, 1e4)) == 22


def test_gemma_3():
    read = spec(GEMMA3_1B)
    assert (read.attention.heads, read.attention.kv_heads, read.attention.head_dim) == (4, 1, 256)
    assert read.attention.qk_norm == QkNormSpec(rms_norm(1e-6, offset=1.0), QkNormScope.HEAD)
    assert (read.attention.softcap, read.head) == (None, HeadSpec(HeadTie.IF_ABSENT))


def test_gemma_3_of_newer_files_is_the_same():
    ropes = {
        "full_attention": {"rope_theta": 1e6, "rope_type": "default"},
        "sliding_attention": {"rope_theta": 1e4, "rope_type": "default"},
    }
    kinds = ["full_attention" if layer % 6 == 5 else "sliding_attention" for layer in range(26)]
    older = dict.fromkeys(("rope_theta", "rope_local_base_freq", "sliding_window_pattern"))
    assert spec(GEMMA3_1B, **older, rope_parameters=ropes, layer_types=kinds) == spec(GEMMA3_1B)


def test_sizes_that_larger_gemma_3_files_leave_out():
    read = spec(GEMMA3_4B)
    assert (read.attention.heads, read.attention.kv_heads, read.attention.head_dim) == (8, 4, 256)
    assert read.vocab_size == 262208
    assert read.attention.rope_of(5) == RopeSpec(256, 1e6, LinearScaling(8.0))
    assert read.attention.rope_of(4) == RopeSpec(256, 1e4)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({**GEMMA3_1B, "use_bidirectional_attention": True}, "use_bidirectional_attention is True"),
        ({**GEMMA2_27B, "hidden_activation": "mish"}, "hidden_activation is 'mish'"),
        ({**GEMMA2_27B, "attn_logit_softcapping": "hard"}, "attn_logit_softcapping is 'hard'"),
    ],
)
def test_what_cannot_be_served_is_refused(values, message):
    with pytest.raises(UnsupportedModel, match=message):
        spec(values)
