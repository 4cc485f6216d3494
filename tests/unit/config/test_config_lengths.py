"""How long sequences may get: the same however a config.json spells it, with an architecture of its own or without."""

import pytest

from text_generation_launcher.modelfacts import facts_of
from text_generation_server.architectures.registry import read_spec
from text_generation_server.config.configdict import ConfigDict
from text_generation_server.config.rope import override_scaling

LLAMA = {
    "model_type": "llama",
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 32768,
}
YARN = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
LINEAR = {"type": "linear", "factor": 2.5}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
GEMMA3 = {"model_type": "gemma3_text", "rope_local_base_freq": 10000.0}
OF_OTHER_NAMES = {
    "dbrx": {"d_model": 64, "n_heads": 4, "n_layers": 2, "max_seq_len": 32768},
    "gptj": {"n_embd": 64, "n_head": 4, "n_layer": 2, "n_positions": 32768},
}


@pytest.mark.parametrize(
    ("values", "tokens"),
    [
        ({}, 32768),
        ({"model_type": "qwen2", "rope_scaling": YARN}, 131072),
        ({"model_type": "qwen3", "rope_scaling": YARN, "max_position_embeddings": 40960}, 131072),
        ({"model_type": "qwen3", "rope_parameters": YARN, "max_position_embeddings": 40960}, 131072),
        ({"rope_scaling": YARN, "max_position_embeddings": 163840}, 163840),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0}}, 131072),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0}, "original_max_position_embeddings": 10000}, 40000),
        ({"rope_scaling": LINEAR}, 81920),
        ({"rope_scaling": {**LINEAR, "type": "dynamic"}}, 81920),
        ({"rope_scaling": {**LLAMA3, "original_max_position_embeddings": 16384}}, 32768),
        ({"rope_scaling": {"factor": 2.0}}, 32768),
        ({**GEMMA3, "rope_scaling": LINEAR}, 32768),
        ({**GEMMA3, "rope_scaling": {**LINEAR, "original_max_position_embeddings": 32768}}, 81920),
        ({**GEMMA3, "rope_parameters": {"full_attention": LINEAR}}, 32768),
        *(({"model_type": name, "rope_scaling": LINEAR}, 81920) for name in ("phi", "gpt_neox", "mistral", "falcon")),
        *(({"model_type": name, **keys, "rope_scaling": LINEAR}, 81920) for name, keys in OF_OTHER_NAMES.items()),
    ],
    ids=str,
)
def test_a_model_is_as_long_as_its_file_says(values, tokens):
    limit = read_spec(ConfigDict({**LLAMA, **values})).max_positions
    assert limit is not None and limit.tokens == tokens


@pytest.mark.parametrize(
    ("values", "tokens"),
    [
        ({"max_position_embeddings": 128, "rope_scaling": LINEAR}, 320),
        ({"n_positions": 128}, 128),
        ({"text_config": {"max_position_embeddings": 64, "rope_scaling": YARN}}, 131072),
    ],
    ids=str,
)
def test_so_is_one_without_an_architecture_here(values, tokens):
    limit = facts_of(ConfigDict({"model_type": "another", **values})).max_positions
    assert limit is not None and limit.tokens == tokens


def test_an_operator_s_factor_lengthens_what_a_file_has_counted_already():
    """Gemma 3's files have the factor of their full layers in `max_position_embeddings`; ours is on top."""
    config = override_scaling(ConfigDict({**LLAMA, **GEMMA3, "rope_scaling": LINEAR}), "linear", 2.0)
    limit = read_spec(config).max_positions
    assert limit is not None and limit.tokens == 65536
