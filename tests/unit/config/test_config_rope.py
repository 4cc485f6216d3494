"""Rotary embeddings and how many positions they are good for, in every mixture of spellings.

What a mixture means is asked of transformers' own reader: it makes one `rope_parameters` of it, which we read too.
"""

import json

import pytest
from loguru import logger
from transformers import LlamaConfig
from transformers import __version__ as version

from text_generation_server.architectures.registry import read_spec
from text_generation_server.config.configdict import ConfigDict
from text_generation_server.config.rope import override_scaling
from text_generation_server.models.positions import log_positions
from text_generation_server.specs.decoder import PositionLimit
from text_generation_server.specs.rope import LinearScaling, RopeSpec

LLAMA = {
    "model_type": "llama",
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LLAMA3 |= {"original_max_position_embeddings": 64}
LINEAR = {"rope_type": "linear", "factor": 4.0}
OLDER = {"type": "linear", "factor": 2.0}
PLAIN = {"rope_type": "default", "rope_theta": 5e5}


def spec(**values):
    return read_spec(ConfigDict({**LLAMA, **values}))


@pytest.mark.parametrize(
    "mixture",
    [
        {"rope_scaling": LINEAR, "rope_parameters": PLAIN},
        {"rope_scaling": {**LINEAR, "rope_theta": 7.0}, "rope_parameters": PLAIN},
        {"rope_scaling": LINEAR, "rope_parameters": PLAIN, "rope_theta": 3.0},
        {"rope_scaling": OLDER, "rope_parameters": YARN},
        {"rope_scaling": OLDER, "rope_parameters": None, "rope_theta": 3.0},
        {"rope_scaling": None, "rope_parameters": YARN, "rope_theta": 3.0},
        {"rope_scaling": {}, "rope_parameters": {**LINEAR, "rope_theta": 7.0}, "rope_theta": 3.0},
        {"rope_scaling": {"rope_theta": 7.0}, "rope_parameters": LINEAR},
        {"rope_parameters": {"rope_theta": 7.0}, "rope_theta": 3.0},
        {"rope_parameters": {"rope_theta": 7.0}},
        {"rope_parameters": LINEAR, "rope_theta": 3.0},
        {"rope_parameters": OLDER},
        {"rope_parameters": {**OLDER, "rope_type": "default"}},
        {"rope_parameters": {**LINEAR, "partial_rotary_factor": 0.5}},
        {"rope_parameters": LINEAR, "partial_rotary_factor": 0.5},
        {"rope_scaling": {"partial_rotary_factor": 0.25, **LINEAR}, "partial_rotary_factor": 0.5},
        {"rope_scaling": LLAMA3, "rope_theta": 5e5},
        {"rope_scaling": YARN, "original_max_position_embeddings": 32},
        {"rope_parameters": {**YARN, "factor": None}},
        {"rope_scaling": {**OLDER, "type": "dynamic"}},
        {"rope_theta": 3.0},
        {},
    ],
    ids=str,
)
def test_a_mixture_means_what_transformers_makes_of_it(mixture):
    made = LlamaConfig.from_dict(json.loads(json.dumps({**LLAMA, **mixture}))).to_dict()
    clear = {key: made.get(key) for key in ("rope_parameters", "original_max_position_embeddings")}
    ours, theirs = spec(**mixture).attention.rope, spec(**clear).attention.rope
    assert ours == theirs, f"written for transformers 5.24, this is {version}, which makes {clear} of it"


def test_the_object_that_counts_counts_alone():
    """Pinned once by hand: transformers lets `rope_scaling` count, and fills gaps from the top only."""
    rope = spec(rope_scaling=LINEAR, rope_parameters=PLAIN, rope_theta=3.0).attention.rope
    assert rope == RopeSpec(8, 3.0, LinearScaling(4.0))


@pytest.mark.parametrize(
    ("values", "tokens", "source"),
    [
        ({}, 128, "max_position_embeddings of config.json"),
        (
            {"rope_scaling": OLDER},
            256,
            "factor of config.json: rope_scaling times max_position_embeddings of config.json",
        ),
        (
            {"rope_parameters": {**OLDER, "type": "dynamic"}},
            256,
            "factor of config.json: rope_parameters times max_pos",
        ),
        ({"rope_scaling": YARN}, 256, "factor of config.json: rope_scaling times original_max_position_embeddings of "),
        (
            {"rope_scaling": YARN, "original_max_position_embeddings": 100},
            400,
            "factor of config.json: rope_scaling tim",
        ),
        ({"rope_scaling": {**YARN, "factor": 1.5}}, 128, "max_position_embeddings of config.json"),
        ({"rope_scaling": {**YARN, "factor": None}}, 128, "max_position_embeddings of config.json"),
        ({"rope_scaling": {**LLAMA3, "factor": 32.0}}, 128, "max_position_embeddings of config.json"),
        ({"rope_scaling": None, "rope_parameters": PLAIN}, 128, "max_position_embeddings of config.json"),
    ],
    ids=str,
)
def test_a_scaling_s_longer_context_is_served(values, tokens, source):
    limit = spec(**values).max_positions
    assert limit is not None and limit.tokens == tokens
    assert limit.source.startswith(source)


def test_a_length_that_no_key_gives_is_the_family_s():
    phi = {key: value for key, value in LLAMA.items() if key != "max_position_embeddings"}
    limit = read_spec(
        ConfigDict({**phi, "model_type": "dbrx", "d_model": 32, "n_heads": 4, "n_layers": 2})
    ).max_positions
    assert limit is not None and (limit.tokens, limit.source) == (2048, "default of its model_type")


def test_an_operator_s_scaling_is_not_multiplied_with_the_file_s():
    config = ConfigDict({**LLAMA, "rope_scaling": YARN})
    limit = read_spec(override_scaling(config, "linear", 3.0)).max_positions
    assert limit is not None and limit.tokens == 384


@pytest.mark.parametrize(
    ("limit", "line"),
    [
        (PositionLimit(16, "n_positions of /m/config.json"), "Sequences of up to 16 tokens: n_positions of /m/config"),
        (None, ""),
    ],
)
def test_the_log_names_file_and_key(limit, line):
    said: list[str] = []
    sink = logger.add(said.append, level="INFO", format="{message}")
    try:
        log_positions(limit)
    finally:
        logger.remove(sink)
    assert "".join(said).startswith(line) and bool(said) == bool(line)
