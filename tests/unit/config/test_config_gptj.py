"""GPT-J's published config.json gives the facts that its model is made of."""

import pytest

from text_generation_server.architectures.registry import read_spec
from text_generation_server.config.configdict import ConfigDict
from text_generation_server.errors import UnsupportedModel
from text_generation_server.specs.activation import Activation
from text_generation_server.specs.decoder import HeadSpec, HeadTie, Wiring
from text_generation_server.specs.rope import RopeSpec

GPT_J_6B = {
    "model_type": "gptj",
    "activation_function": "gelu_new",
    "gradient_checkpointing": False,
    "layer_norm_epsilon": 1e-05,
    "n_embd": 4096,
    "n_head": 16,
    "n_inner": None,
    "n_layer": 28,
    "n_positions": 2048,
    "rotary": True,
    "rotary_dim": 64,
    "scale_attn_weights": True,
    "tie_word_embeddings": False,
    "vocab_size": 50400,
}


def spec(**more):
    return read_spec(ConfigDict({**GPT_J_6B, **more}))


def test_gpt_j_6b():
    made = spec()
    attention = made.attention
    assert (attention.heads, attention.kv_heads, attention.head_dim) == (16, 16, 256)
    assert attention.rope == RopeSpec(64, 10000.0, None, interleaved=True)
    assert not (attention.qkv_bias or attention.out_bias)
    assert (made.mlp.inner_size, made.mlp.activation, made.mlp.bias) == (16384, Activation.GELU_TANH, True)
    assert (made.wiring, made.names.mlp_norm) == (Wiring.PARALLEL, "")
    assert (made.head, made.max_positions.tokens) == (HeadSpec(HeadTie.SEPARATE, bias=True), 2048)


def test_64_numbers_are_rotated_where_no_key_says():
    assert spec(rotary_dim=None) == spec()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rotary": False}, "rotary is False"),
        ({"scale_attn_weights": False}, "scale_attn_weights is False"),
        ({"activation_function": "tanh"}, "activation_function is 'tanh'"),
    ],
)
def test_what_cannot_be_served_is_refused(values, message):
    with pytest.raises(UnsupportedModel, match=message):
        spec(**values)
