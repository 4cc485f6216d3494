"""PyTorch files become safetensors with the same tensors, and pickles never run code."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from text_generation_server.errors import ModelNotFound, StartError, UnsupportedModel
from text_generation_server.weights import convert
from text_generation_server.weights.convert import convert_torch_files
from text_generation_server.weights.files import PICKLED, weight_files


class _Malicious:
    def __init__(self, path: Path) -> None:
        self._path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self._path,)


def _silent(_: str) -> None:
    pass


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_tensors_are_the_same(tmp_path: Path, zipped: bool) -> None:
    tensors = {"a": torch.randn(3, 4), "b": torch.randn(4, 3).T, "c": torch.arange(3)}
    torch.save(tensors, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    assert convert_torch_files(tmp_path, _silent) == [tmp_path / "model.safetensors"]
    loaded = load_file(tmp_path / "model.safetensors")
    assert loaded.keys() == tensors.keys()
    assert all(torch.equal(loaded[name], tensors[name]) for name in tensors)


def test_tied_and_overlapping_tensors_keep_their_names(tmp_path: Path) -> None:
    whole = torch.randn(4, 4)
    torch.save({"embed": whole, "head": whole, "part": whole[1:3]}, tmp_path / "pytorch_model.bin")
    convert_torch_files(tmp_path, _silent)
    loaded = load_file(tmp_path / "model.safetensors")
    assert torch.equal(loaded["embed"], loaded["head"])
    assert torch.equal(loaded["part"], whole[1:3])


def test_two_servers_with_one_process_id_do_not_share_a_draft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in two containers that share the directory."""
    torch.save({"a": torch.ones(3)}, tmp_path / "pytorch_model.bin")
    save = convert.save_file

    def meanwhile(*arguments: Any, **options: Any) -> None:
        monkeypatch.setattr(convert, "save_file", save)
        save(*arguments, **options)
        convert_torch_files(tmp_path, _silent)

    monkeypatch.setattr(convert, "save_file", meanwhile)
    convert_torch_files(tmp_path, _silent)
    assert torch.equal(load_file(tmp_path / "model.safetensors")["a"], torch.ones(3))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.safetensors", "pytorch_model.bin"]


def test_shards_keep_their_index(tmp_path: Path) -> None:
    names = ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"]
    for number, name in enumerate(names):
        torch.save({f"t{number}": torch.full((2,), float(number))}, tmp_path / name)
    index = {"metadata": {"total_size": 16}, "weight_map": {"t0": names[0], "t1": names[1]}}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    lines: list[str] = []
    convert_torch_files(tmp_path, lines.append)
    converted = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert converted["metadata"] == {"total_size": 16}
    for name, file in converted["weight_map"].items():
        assert name in load_file(tmp_path / file)
    assert [line.rpartition("(")[2] for line in lines] == ["1 of 2)", "2 of 2)"]


def test_half_converted_shards_do_not_pass_for_a_model(tmp_path: Path) -> None:
    names = ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"]
    torch.save({"t0": torch.ones(1)}, tmp_path / names[0])
    (tmp_path / names[1]).write_bytes(b"garbage")
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": {"t0": names[0], "t1": names[1]}}))
    with pytest.raises(UnsupportedModel):
        convert_torch_files(tmp_path, _silent)
    assert (tmp_path / "model-00001-of-00002.safetensors").is_file()
    with pytest.raises(ModelNotFound, match=r"no model-00002-of-00002\.safetensors, which"):
        weight_files(tmp_path)
    assert weight_files(tmp_path, PICKLED).names == tuple(names)


def test_code_in_a_pickle_is_not_run(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    torch.save({"a": _Malicious(trap)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(UnsupportedModel, match="never run"):
        convert_torch_files(tmp_path, _silent)
    assert not trap.exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [({"a": torch.ones(1), "epoch": 3}, "'epoch'"), ([torch.ones(1)], "expected named tensors")],
    ids=["stray", "list"],
)
def test_what_is_no_named_tensor_is_refused(tmp_path: Path, content: object, reason: str) -> None:
    torch.save(content, tmp_path / "pytorch_model.bin")
    with pytest.raises(UnsupportedModel, match=reason):
        convert_torch_files(tmp_path, _silent)


def test_garbage_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"garbage")
    with pytest.raises(UnsupportedModel, match=r"pytorch_model\.bin could not be read"):
        convert_torch_files(tmp_path, _silent)


def test_an_interrupted_conversion_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(tensors: object, path: Path, metadata: object) -> None:
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    torch.save({"a": torch.ones(1)}, tmp_path / "pytorch_model.bin")
    monkeypatch.setattr(convert, "save_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        convert_torch_files(tmp_path, _silent)
    assert [path.name for path in tmp_path.iterdir()] == ["pytorch_model.bin"]


def test_what_training_leaves_behind_is_not_converted(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(1)}, tmp_path / "pytorch_model.bin")
    for name in ("training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth", "optimizer.bin"):
        (tmp_path / name).write_bytes(b"no tensors")
    assert convert_torch_files(tmp_path, _silent) == [tmp_path / "model.safetensors"]


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(tensors: object, path: Path, metadata: object) -> None:
        raise SafetensorError("I/O error: Read-only file system (os error 30)")

    torch.save({"a": torch.ones(1)}, tmp_path / "pytorch_model.bin")
    monkeypatch.setattr(convert, "save_file", read_only)
    with pytest.raises(
        StartError, match=r"pytorch_model\.bin could not be converted in .*Read-only.*copy the directory"
    ):
        convert_torch_files(tmp_path, _silent)


def test_a_pointer_is_no_pickle(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(UnsupportedModel, match=r"pytorch_model\.bin is a Git LFS pointer"):
        convert_torch_files(tmp_path, _silent)
