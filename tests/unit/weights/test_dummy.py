"""A config.json is enough to serve random weights: where its tokenizer comes from, and what that one does."""

import json
from pathlib import Path

import pytest

from text_generation_server.errors import ModelNotFound, UnsupportedModel
from text_generation_server.tokenization.adapter import TokenizerAdapter
from text_generation_server.weights.dummy import locate_without_weights
from text_generation_server.weights.remote import HubSettings


@pytest.fixture
def hub(tmp_path: Path) -> HubSettings:
    return HubSettings(converted_cache=tmp_path / "cache", cache_dir=tmp_path / "hub", offline=True)


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A directory with a config.json only."""
    path = tmp_path / "bare"
    path.mkdir()
    (path / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": 1000, "eos_token_id": 2}))
    return path


def test_a_byte_is_a_token_without_a_tokenizer(bare: Path, hub: HubSettings) -> None:
    lines: list[str] = []
    directory = locate_without_weights(str(bare), None, hub, lines.append)
    assert "a token a byte" in lines[-1] and str(bare) in lines[-1]
    tokenizer = TokenizerAdapter.load(directory)
    text = "Hello  née 狐\n\0 </s>" * 20
    assert tokenizer.encode(text) == list(text.encode())
    assert tokenizer.decode(list(text.encode())) == text
    assert tokenizer.vocab_size == len(tokenizer.token_bytes()) == 1000
    assert tokenizer.decode([72, 300, 999]) == "H 300 999"


def test_answers_are_as_long_as_asked_for_without_a_tokenizer(bare: Path, hub: HubSettings) -> None:
    """Token 2 is a byte there, and random weights would choose it now and then."""
    tokenizer = TokenizerAdapter.load(locate_without_weights(str(bare), None, hub))
    assert (tokenizer.eos_ids, tokenizer.special_ids) == (frozenset(), frozenset())


def test_a_tokenizer_is_made_once_for_a_config(bare: Path, hub: HubSettings) -> None:
    first = locate_without_weights(str(bare), None, hub)
    assert locate_without_weights(str(bare), None, hub) == first
    assert locate_without_weights(str(first), None, hub) == first
    (bare / "config.json").write_text('{"vocab_size": 300}')
    other = locate_without_weights(str(bare), None, hub)
    assert other != first and TokenizerAdapter.load(other).vocab_size == 300


def test_a_directory_with_a_tokenizer_is_taken_as_it_is(bare: Path, hub: HubSettings) -> None:
    (bare / "tokenizer.json").write_text("{}")
    assert locate_without_weights(str(bare), None, hub) == bare


@pytest.mark.parametrize(("config", "found"), [('{"vocab_size": 97}', "97"), ("{}", "no size")])
def test_bytes_must_fit_into_the_vocabulary(bare: Path, hub: HubSettings, config: str, found: str) -> None:
    (bare / "config.json").write_text(config)
    with pytest.raises(UnsupportedModel, match=f"vocabulary of {found}, expected 256 tokens or more"):
        locate_without_weights(str(bare), None, hub)


def test_a_config_is_needed(bare: Path, hub: HubSettings) -> None:
    (bare / "config.json").rename(bare / "other.json")
    with pytest.raises(ModelNotFound, match=r"holds no config\.json"):
        locate_without_weights(str(bare), None, hub)
