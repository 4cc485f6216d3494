"""OPT's and Galactica's published config.json files give the facts that their models are made of."""

import pytest

from text_generation_server.architectures.registry import read_spec
from text_generation_server.config.configdict import ConfigDict
from text_generation_server.errors import UnsupportedModel
from text_generation_server.specs.activation import Activation
from text_generation_server.specs.decoder import HeadTie, Wiring, layer_norm

OPT_125M = {
    "model_type": "opt",
    "_remove_final_layer_norm": False,
    "activation_function": "relu",
    "do_layer_norm_before": True,
    "ffn_dim": 3072,
    "hidden_size": 768,
    "max_position_embeddings": 2048,
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "prefix": "</s>",
    "vocab_size": 50272,
    "word_embed_proj_dim": 768,
}
OPT_350M = {
    **OPT_125M,
    "do_layer_norm_before": False,
    "ffn_dim": 4096,
    "hidden_size": 1024,
    "num_attention_heads": 16,
    "num_hidden_layers": 24,
    "word_embed_proj_dim": 512,
}
GALACTICA_30B = {
    **OPT_125M,
    "activation_function": "gelu",
    "enable_bias": False,
    "ffn_dim": 28672,
    "hidden_size": 7168,
    "layer_norm_elementwise_affine": False,
    "learned_embeddings": True,
    "num_attention_heads": 56,
    "num_hidden_layers": 48,
    "scale_embeddings": False,
    "vocab_size": 50000,
    "word_embed_proj_dim": 7168,
}


def spec(values, **more):
    return read_spec(ConfigDict({**values, **more}))


def test_opt_125m():
    made = spec(OPT_125M)
    assert (made.attention.heads, made.attention.kv_heads, made.attention.head_dim) == (12, 12, 64)
    assert made.attention.qkv_bias and made.attention.out_bias and made.mlp.bias
    assert (made.norm, made.wiring, made.mlp.activation) == (layer_norm(1e-5), Wiring.SEQUENTIAL, Activation.RELU)
    assert (made.max_positions.tokens, made.position_offset, made.embedding_size) == (2048, 2, 768)
    assert (made.names.embedding_in, made.names.embedding_out) == ("", "")
    assert made.names.final_norm == "model.decoder.final_layer_norm"
    assert made.head.tie is HeadTie.IF_ABSENT


def test_opt_350m_has_norms_after_branches_and_narrow_embeddings():
    made = spec(OPT_350M)
    assert (made.wiring, made.names.final_norm) == (Wiring.POST_NORM, "")
    assert (made.hidden_size, made.embedding_size) == (1024, 512)
    assert made.names.embedding_in == "model.decoder.project_in"
    assert made.names.embedding_out == "model.decoder.project_out"


def test_old_fine_tunes_have_no_final_norm():
    made = spec(OPT_125M, _remove_final_layer_norm=True)
    assert (made.wiring, made.names.final_norm) == (Wiring.SEQUENTIAL, "")


def test_galactica_has_neither_biases_nor_tensors_of_norms():
    made = spec(GALACTICA_30B)
    assert not (made.attention.qkv_bias or made.attention.out_bias or made.mlp.bias)
    assert (made.norm, made.mlp.activation) == (layer_norm(1e-5, bias=False, weight=False), Activation.GELU)
    assert (made.attention.head_dim, made.mlp.inner_size) == (128, 28672)


def test_a_width_of_embeddings_that_is_null_is_the_hidden_one():
    assert spec(OPT_125M, word_embed_proj_dim=None) == spec(OPT_125M)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"scale_embeddings": True}, "scale_embeddings is True"),
        ({"learned_embeddings": False}, "learned_embeddings is False"),
        ({"activation_function": "tanh"}, "activation_function is 'tanh'"),
        ({"ffn_dim": None}, "ffn_dim is missing"),
    ],
)
def test_what_cannot_be_served_is_refused(values, message):
    with pytest.raises(UnsupportedModel, match=message):
        spec(OPT_125M, **values)
