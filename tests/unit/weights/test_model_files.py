"""Files of a model directory that are not what they should be: one sentence that names file and key, never more."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from text_generation_server.config.configdict import ConfigDict
from text_generation_server.errors import ModelNotFound, StartError, UnsupportedModel
from text_generation_server.modelfiles import read_object
from text_generation_server.tokenization.adapter import TokenizerAdapter
from text_generation_server.tokenization.files import TokenizerFiles

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
BROKEN = {
    POINTER: "is a Git LFS pointer and not the file itself: run `git lfs pull` there",
    "": "is not valid JSON (it is empty)",
    '{"a": ': "(it ends in the middle, after 6 bytes)",
    '{"a": "b': "(it ends in the middle, after 8 bytes)",
    "{'a': 1}": "is not valid JSON (Expecting property name",
    "[" * 100_000: "(it is nested too deeply)",
    '{"a": "\\ud83d"}': "surrogates not allowed",
    "[1]": "holds a list, expected a JSON object",
}
FILES = [
    "config.json",
    "generation_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
]


@pytest.mark.parametrize("content", BROKEN, ids=lambda content: content[:8])
def test_what_is_no_json_object_is_explained(tmp_path: Path, content: str) -> None:
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(UnsupportedModel, match=f"x.json.*{re.escape(BROKEN[content])}"):
        read_object(tmp_path / "x.json")


def test_a_character_in_two_halves_is_whole(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"a": "\\ud83d\\ude00"}')
    assert read_object(tmp_path / "x.json").get("a", str) == chr(0x1F600)


def test_bytes_that_are_no_text_are_explained(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(b'{"a": "\xff"}')
    with pytest.raises(UnsupportedModel, match=r"x\.json is not valid JSON \('utf-8' codec"):
        read_object(tmp_path / "x.json")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").mkdir()
    with pytest.raises(UnsupportedModel, match=r"config\.json cannot be read: Is a directory"):
        ConfigDict.load(tmp_path / "config.json")
    with pytest.raises(ModelNotFound, match=r"no .*none\.json: expected a model directory"):
        ConfigDict.load(tmp_path / "none.json")


@pytest.mark.parametrize("name", FILES)
def test_every_file_about_tokens_is_read_so(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(POINTER)
    with pytest.raises(UnsupportedModel, match=f"{name} is a Git LFS pointer"):
        TokenizerFiles.read(tmp_path)


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer.model"])
def test_a_tokenizer_that_is_a_pointer_is_called_that(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(POINTER)
    with pytest.raises(UnsupportedModel, match=f"{name} is a Git LFS pointer"):
        TokenizerAdapter.load(tmp_path)


def test_a_tokenizer_that_the_library_panics_at_is_refused(tmp_path: Path) -> None:
    model = {"type": "BPE", "vocab": {"ab": 0, "a": 1, "": 2}, "merges": [["a", ""]], "continuing_subword_prefix": "x"}
    (tmp_path / "tokenizer.json").write_text(json.dumps({"version": "1.0", "model": model}))
    with pytest.raises(UnsupportedModel, match=r"tokenizer\.json is not a tokenizer"):
        TokenizerAdapter.load(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("tokenizer_config", {"tokenizer_class": ["A"]}, "tokenizer_class is ['A'], expected a string"),
        ("tokenizer_config", {"add_bos_token": "true"}, "add_bos_token is 'true', expected true or false"),
        ("tokenizer_config", {"add_eos_token": 1}, "add_eos_token is 1, expected true or false"),
        ("tokenizer_config", {"legacy": "no"}, "legacy is 'no', expected true or false"),
        ("tokenizer_config", {"clean_up_tokenization_spaces": "no"}, "clean_up_tokenization_spaces is 'no'"),
        ("tokenizer_config", {"model_max_length": "4096"}, "model_max_length is '4096', expected a number"),
        ("tokenizer_config", {"model_max_length": True}, "model_max_length is True, expected a number"),
        ("tokenizer_config", {"eos_token": 2}, "eos_token is 2, expected a token: its text, or an object"),
        ("special_tokens_map", {"eos_token": {"text": "x"}}, "eos_token is {'text': 'x'}, expected a token"),
        ("special_tokens_map", {"bos_token": {"content": 1}}, "bos_token: content is 1, expected a string"),
        ("tokenizer_config", {"additional_special_tokens": [1]}, "additional_special_tokens is [1], expected a token"),
        ("tokenizer_config", {"added_tokens_decoder": ["x"]}, "added_tokens_decoder is ['x'], expected an object"),
        ("tokenizer_config", {"added_tokens_decoder": {"x": {}}}, "added_tokens_decoder: x is {}, expected a token id"),
        ("tokenizer_config", {"added_tokens_decoder": {"1": 2}}, "added_tokens_decoder: 1 is 2, expected an object"),
        ("tokenizer_config", {"added_tokens_decoder": {"1": {}}}, "added_tokens_decoder: 1: content is missing"),
        (
            "tokenizer_config",
            {"added_tokens_decoder": {"1": {"content": "x", "lstrip": "no"}}},
            "added_tokens_decoder: 1: lstrip is 'no', expected true or false",
        ),
        ("added_tokens", {"x": "1"}, "x is '1', expected a whole number"),
        ("config", {"eos_token_id": "2"}, "eos_token_id is '2', expected a token id or a list of them"),
        ("config", {"text_config": [1]}, "text_config is [1], expected an object"),
        ("config", {"text_config": {"eos_token_id": True}}, "text_config: eos_token_id is True, expected a token id"),
        ("generation_config", {"eos_token_id": [2, [3]]}, "eos_token_id is [2, [3]], expected a token id or a list"),
    ],
)
def test_a_value_of_another_type_is_named_by_file_and_key(
    tmp_path: Path, name: str, content: dict[str, Any], reason: str
) -> None:
    (tmp_path / f"{name}.json").write_text(json.dumps(content))
    with pytest.raises(UnsupportedModel, match=f"{name}.json: {re.escape(reason)}"):
        TokenizerFiles.read(tmp_path)


def test_null_is_nothing(tmp_path: Path) -> None:
    keys = ("tokenizer_class", "eos_token", "add_bos_token", "legacy", "model_max_length", "added_tokens_decoder")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(dict.fromkeys(keys)))
    (tmp_path / "config.json").write_text('{"eos_token_id": null, "text_config": null}')
    files = TokenizerFiles.read(tmp_path)
    assert (files.tokenizer_class, files.eos, files.legacy, files.eos_ids) == (None, None, None, frozenset())


def test_a_value_is_quoted_in_part(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"eos_token_id": "x" * 10_000}))
    with pytest.raises(StartError) as refused:
        TokenizerFiles.read(tmp_path)
    assert len(str(refused.value)) < 500
