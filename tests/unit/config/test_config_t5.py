"""What T5's configs mean, as hub files and transformers 5 write them."""

import pytest

from text_generation_server.architectures.registry import read_spec
from text_generation_server.config.configdict import ConfigDict
from text_generation_server.errors import UnsupportedModel
from text_generation_server.specs.activation import Activation

HUB = {
    "model_type": "t5", "vocab_size": 100, "d_model": 64, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 6,
    "decoder_start_token_id": 0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("keys", "scale"),
    [
        ({}, 0.125),
        ({"tie_word_embeddings": False}, 1.0),
        ({"tie_word_embeddings": True, "scale_decoder_outputs": False}, 1.0),
        ({"model_type": "mt5", "tie_word_embeddings": True}, 1.0),
    ],
)
def test_what_scales_the_head_s_input(keys, scale):
    assert read_spec(ConfigDict(HUB | keys)).head.scale == scale


@pytest.mark.parametrize(
    ("name", "kind", "gated"),
    [
        ("relu", Activation.RELU, False),
        ("gated-gelu", Activation.GELU_TANH, True),
        ("gated-silu", Activation.SILU, True),
    ],
)
def test_kinds_of_mlp(name, kind, gated):
    spec = read_spec(ConfigDict(HUB | {"feed_forward_proj": name}))
    assert (spec.mlp.activation, spec.mlp.gated) == (kind, gated)
    assert len(spec.names.decoder.up) == 1 + gated


def test_an_unknown_one_is_refused():
    with pytest.raises(UnsupportedModel, match="feed_forward_proj is 'tanh'"):
        read_spec(ConfigDict(HUB | {"feed_forward_proj": "gated-tanh"}))
