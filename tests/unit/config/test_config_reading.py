"""config.json: types, spellings old and new, and refusals that name key and value."""

import json

import pytest

from text_generation_server.architectures.registry import read_spec
from text_generation_server.config.configdict import ConfigDict
from text_generation_server.config.rope import override_scaling, read_rope
from text_generation_server.errors import ModelNotFound, UnsupportedModel
from text_generation_server.specs.decoder import HeadTie, Wiring
from text_generation_server.specs.rope import LinearScaling, Llama3Scaling, RopeSpec

LLAMA = {
    "model_type": "llama",
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
}
NEOX = {**LLAMA, "model_type": "gpt_neox"}
FALCON = {"vocab_size": 96, "hidden_size": 32, "alibi": False, "bias": False}
LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}


def spec(values, **more):
    return read_spec(ConfigDict({**values, **more}))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (
            {**LLAMA, "rope_theta": 5e5, "rope_scaling": {"type": "llama3", **LLAMA3}},
            {**LLAMA, "rope_parameters": {"rope_theta": 5e5, "rope_type": "llama3", **LLAMA3}},
        ),
        (
            {**LLAMA, "rope_theta": 5e5, "rope_scaling": None, "head_dim": None, "num_key_value_heads": None},
            {**LLAMA, "rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}},
        ),
        (
            {**NEOX, "rotary_pct": 0.5, "rotary_emb_base": 20000},
            {**NEOX, "rope_parameters": {"rope_theta": 20000.0, "partial_rotary_factor": 0.5}},
        ),
        (
            {**FALCON, "model_type": "RefinedWebModel", "n_layer": 2, "n_head": 4, "multi_query": True},
            {**FALCON, "model_type": "falcon", "num_hidden_layers": 2, "num_attention_heads": 4, "multi_query": True},
        ),
        (
            {**FALCON, "model_type": "RefinedWeb", "n_layer": 2, "n_head": 4, "n_head_kv": 2}
            | {"new_decoder_architecture": True},
            {**FALCON, "model_type": "falcon", "num_hidden_layers": 2, "num_attention_heads": 4, "num_kv_heads": 2}
            | {"new_decoder_architecture": True, "num_ln_in_parallel_attn": 2, "rope_theta": 10000.0},
        ),
    ],
)
def test_old_and_new_spellings_mean_the_same(old, new):
    assert spec(old) == spec(new)


def test_the_newer_spelling_counts_where_a_file_has_both():
    config = ConfigDict({"rope_theta": 1.0, "rope_parameters": {"rope_theta": 7.0}})
    assert read_rope(config, 8) == RopeSpec(8, 7.0)


def test_a_scaling_without_original_length_takes_the_model_s():
    values = {key: value for key, value in LLAMA3.items() if not key.startswith("original")}
    rope = spec(LLAMA, rope_scaling={"rope_type": "llama3", **values}).attention.rope
    assert rope is not None and rope.scaling == Llama3Scaling(8.0, 1.0, 4.0, 128)


def test_an_operator_s_scaling_replaces_the_file_s():
    config = ConfigDict({**LLAMA, "rope_parameters": {"rope_theta": 7.0, "rope_type": "llama3", **LLAMA3}})
    scaled = read_spec(override_scaling(config, "linear", 4.0))
    assert scaled.attention.rope == RopeSpec(8, 7.0, LinearScaling(4.0))
    assert scaled.max_positions.tokens == 512


def test_an_operator_s_unknown_scaling_is_refused():
    with pytest.raises(UnsupportedModel, match="'yarn' was asked for, which is not supported; expected linear or dyn"):
        override_scaling(ConfigDict(LLAMA), "yarn", 2.0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"vocab_size": 96}, "model_type is missing"),
        ({**LLAMA, "hidden_size": "32"}, "hidden_size is '32'"),
        ({**LLAMA, "hidden_size": True}, "hidden_size is True"),
        ({**LLAMA, "num_hidden_layers": None}, "num_hidden_layers is missing, expected a whole number"),
        ({**LLAMA, "num_attention_heads": 0}, "num_attention_heads is 0.* at least 1"),
        ({**LLAMA, "vocab_size": 10**400}, "vocab_size is 1000.* below 2\\^53"),
        ({**LLAMA, "rope_theta": float("inf")}, "rope_theta is inf.* a number, and of less than 2\\^53"),
        ({**LLAMA, "hidden_act": "mish"}, "hidden_act is 'mish'"),
        ({**LLAMA, "attention_bias": 1}, "attention_bias is 1"),
        ({**LLAMA, "rms_norm_eps": "small"}, "rms_norm_eps is 'small'"),
        ({**LLAMA, "rope_scaling": {"type": "ntk", "factor": 2.0}}, "rope_scaling: rope_type is 'ntk'"),
        ({**LLAMA, "rope_scaling": [2.0]}, r"rope_scaling is \[2.0\]"),
        (
            {**LLAMA, "rope_parameters": {"full_attention": {"rope_theta": 1e6}}},
            "rope_parameters: full_attention is {'rope_theta': 1000000.0}.* the same rotary embedding in all layers",
        ),
        (
            {**LLAMA, "model_type": "qwen2", "layer_types": ["full_attention", "sliding_attention"]},
            "layer_types is 'sliding_attention'.* beside {'sliding_window': None, 'use_sliding_window': None}",
        ),
        (
            {**LLAMA, "model_type": "gemma", "use_bidirectional_attention": "all"},
            "use_bidirectional_attention is 'all'",
        ),
        (
            {**FALCON, "model_type": "bloom", "n_head": 4, "n_layer": 2}
            | {"apply_residual_connection_post_layernorm": True},
            "apply_residual_connection_post_layernorm is True",
        ),
    ],
)
def test_what_cannot_be_served_is_refused_with_key_and_value(values, message):
    with pytest.raises(UnsupportedModel, match=message):
        spec(values)


def test_a_family_tied_by_default_may_have_a_head():
    falcon = {**FALCON, "model_type": "falcon", "num_hidden_layers": 2, "num_attention_heads": 4}
    assert spec(falcon).head.tie is HeadTie.IF_ABSENT
    assert spec(falcon, tie_word_embeddings=True).head.tie is HeadTie.TIED
    assert spec(LLAMA).head.tie is HeadTie.SEPARATE


def test_falcons_keys_that_decide_its_wiring():
    falcon = {**FALCON, "model_type": "falcon", "num_hidden_layers": 2, "num_attention_heads": 4}
    assert spec(falcon).wiring is Wiring.PARALLEL
    assert spec(falcon, parallel_attn=False).wiring is Wiring.SEQUENTIAL
    assert spec(falcon, new_decoder_architecture=True, parallel_attn=False).wiring is Wiring.PARALLEL_TWO_NORMS


def test_windows_are_the_later_layers_of_qwen():
    qwen = {**LLAMA, "model_type": "qwen2", "sliding_window": 16, "max_window_layers": 1}
    assert [spec(qwen).attention.window_of(layer) for layer in (0, 1)] == [None, None]
    assert spec(qwen, use_sliding_window=True).attention.windows == (None, 16)


def test_keys_nobody_asked_for_can_be_listed():
    config = ConfigDict({**LLAMA, "favourite_colour": "blue"})
    read_spec(config)
    assert config.unread() == ["favourite_colour"]


@pytest.mark.parametrize(
    ("content", "error"), [("{", "not valid JSON"), ("[1]", "holds a list, expected a JSON object")]
)
def test_a_file_that_is_no_json_object_is_refused(tmp_path, content, error):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(UnsupportedModel, match=error):
        ConfigDict.load(tmp_path / "config.json")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ModelNotFound, match=r"config\.json: expected a model directory"):
        ConfigDict.load(tmp_path / "config.json")


def test_a_written_file_is_read(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    assert read_spec(ConfigDict.load(tmp_path / "config.json")) == spec(LLAMA)
