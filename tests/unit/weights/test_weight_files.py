"""Which files are the weights: one rule, whatever else lies in the directory."""

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from text_generation_server.errors import ModelNotFound, StartError, UnsupportedModel
from text_generation_server.weights.checkpoint import SavedCheckpoint
from text_generation_server.weights.files import weight_files

INDEX = "model.safetensors.index.json"
SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"


def _index(directory: Path, content: object = None) -> None:
    listed = {"weight_map": {"a": SHARDS[0], "b": SHARDS[1]}}
    (directory / INDEX).write_text(json.dumps(content or listed))


def _touch(directory: Path, *names: str) -> None:
    for name in names:
        (directory / name).touch()


def test_a_complete_index_comes_first(tmp_path: Path) -> None:
    _index(tmp_path)
    _touch(tmp_path, *SHARDS, "model.safetensors", "model-00003-of-00003.safetensors", "consolidated.safetensors")
    assert weight_files(tmp_path).names == tuple(SHARDS)
    assert weight_files(tmp_path).entry == INDEX


def test_an_index_that_was_left_over_does_not_count(tmp_path: Path) -> None:
    _index(tmp_path)
    save_file({"a": torch.ones(1)}, tmp_path / "model.safetensors")
    save_file({"stray": torch.ones(1)}, tmp_path / SHARDS[0])
    files = SavedCheckpoint(tmp_path)
    assert files.view("a", (1,)).item() == 1
    files.check_consumed()


@pytest.mark.parametrize(
    ("names", "error", "reason"),
    [
        ([INDEX, SHARDS[1]], ModelNotFound, f"no {SHARDS[0]}, which {INDEX} lists"),
        ([INDEX], ModelNotFound, f"no {SHARDS[0]} and 1 more, which"),
        (SHARDS, ModelNotFound, f"neither model.safetensors nor {INDEX}, only {SHARDS[0]}, {SHARDS[1]}"),
        (["consolidated.safetensors"], ModelNotFound, "only consolidated.safetensors"),
        (
            ["optimizer.safetensors", "training_args.bin"],
            ModelNotFound,
            "only optimizer.safetensors, training_args.bin",
        ),
        (["adapter_model.safetensors"], UnsupportedModel, "is a LoRA adapter (it has adapter_model.safetensors)"),
        (["adapter_config.json", "optimizer.pt"], UnsupportedModel, "is a LoRA adapter (it has adapter_config.json)"),
        (["pytorch_model.bin"], ModelNotFound, "convert them once with `text-generation-server download-weights"),
        (["checkpoint-9", "checkpoint-10"], ModelNotFound, "no weights: name a checkpoint in it, such as "),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, names: list[str], error: type[StartError], reason: str) -> None:
    _touch(tmp_path, *names)
    if INDEX in names:
        _index(tmp_path)
    with pytest.raises(error, match=re.escape(reason)):
        weight_files(tmp_path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (POINTER, "is a Git LFS pointer"),
        ('{"weight_map": {"a": "mod', "it ends in the middle"),
        ("{}", "weight_map is missing, expected a file for each tensor"),
        ('{"weight_map": ["a"]}', "weight_map is ['a'], expected an object"),
        ('{"weight_map": {"a": 1}}', "weight_map: a is 1, expected a string"),
    ],
)
def test_an_index_that_is_none_is_explained(tmp_path: Path, content: str, reason: str) -> None:
    (tmp_path / INDEX).write_text(content)
    with pytest.raises(UnsupportedModel, match=f"{re.escape(INDEX)}.*{re.escape(reason)}"):
        weight_files(tmp_path)
