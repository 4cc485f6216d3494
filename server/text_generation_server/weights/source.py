"""From what --model-id says to an ordinary model directory. Knows no tensors: other modules fetch and convert.

A model id is, in this order: an existing directory, a .gguf file, the name of the embedded default, a hub id.
"""

import hashlib
import time
from pathlib import Path

from text_generation_server.errors import ModelNotFound, StartError, UnsupportedModel
from text_generation_server.weights.atomic import build_once
from text_generation_server.weights.demo import NAME, demo_file
from text_generation_server.weights.files import SAFETENSORS, latest_checkpoint, refuse_adapter
from text_generation_server.weights.hub import download, given_directory
from text_generation_server.weights.remote import HubSettings, Report

_GGUF = ".gguf"
_FILES = (_GGUF, SAFETENSORS.extension)
_FORMAT = 3
"""Partition of a converted directory's name: raise it when conversion changes, so that every file is converted anew."""


def say_nothing(_: str) -> None:
    """The Report of those who want none."""


def locate(
    model_id: str,
    revision: str | None,
    hub: HubSettings,
    report: Report = say_nothing,
    extension: str = SAFETENSORS.extension,
    auto_convert: bool = True,
    packed: bool = False,
) -> Path:
    """The directory with the model's config.json, tokenizer and safetensors files, made if it is not there yet.

    extension: of the files it must have beside config.json. auto_convert: see `hub.download`. packed: see `prepare`.
    Raises ModelNotFound, saying what to do, and UnsupportedModel, naming what in a file was refused.
    """
    if (given := given_directory(model_id, hub)) is not None:
        _require_config(given)
    directory = prepare(model_id, revision, extension, hub, False, auto_convert, report, packed)
    _require_config(directory)
    return directory


def prepare(
    model_id: str,
    revision: str | None,
    extension: str,
    hub: HubSettings,
    trust_remote_code: bool,
    auto_convert: bool,
    report: Report,
    packed: bool = False,
) -> Path:
    """What the command `download-weights` does: all that needs the network or takes long. See `hub.download`.

    A GGUF file is converted into the cache whatever the extension asked for. packed: its linears stay as they are.
    """
    try:
        path = Path(model_id).expanduser()
        if path.is_dir():
            return download(model_id, revision, extension, hub, trust_remote_code, auto_convert, report)
        if path.is_file():
            return _converted(path, path.stem, _file_identity(path), hub, report, packed)
        if model_id == NAME:
            file, version = demo_file()
            return _converted(file, NAME, version, hub, report, packed)
        if _looks_like_a_path(model_id):
            raise ModelNotFound(
                f"there is no directory or file {model_id}: check the path, or name a hub id (owner/model)"
            )
        if packed and given_directory(model_id, hub) is None:
            raise UnsupportedModel(f"--quantize gguf is for {_GGUF} files, and {model_id} is none: leave it out")
        return download(model_id, revision, extension, hub, trust_remote_code, auto_convert, report)
    except OSError as error:
        raise StartError(f"{model_id} cannot be read: {error}") from error


def _looks_like_a_path(model_id: str) -> bool:
    return model_id.startswith(("/", ".", "~")) or model_id.count("/") > 1 or model_id.endswith(_FILES)


def _file_identity(path: Path) -> str:
    status = path.stat()
    return f"{path.resolve()} {status.st_size} {status.st_mtime_ns}"


def _converted(file: Path, name: str, identity: str, hub: HubSettings, report: Report, packed: bool) -> Path:
    """The GGUF file's directory in the cache; converted now unless this very file was before, likewise packed."""
    if file.suffix != _GGUF:
        raise UnsupportedModel(f"{file} is a file, expected a model directory or a {_GGUF} file")
    digest = hashlib.sha256(f"{_FORMAT} {identity}".encode()).hexdigest()[:12]
    target = hub.converted_cache / f"{name}-{digest}{'-packed' if packed else ''}"
    try:
        return build_once(target, lambda draft: _convert(file, draft, target, report, packed))
    except OSError as error:
        raise StartError(f"{file} could not be converted into {target}: {error}") from error


def _convert(file: Path, draft: Path, target: Path, report: Report, packed: bool) -> None:
    from text_generation_server.weights.gguf.directory import convert  # numpy and tokenizers, needed only here

    report(f"Converting {file.name} ({file.stat().st_size / 1e6:.1f} MB)")
    start = time.monotonic()
    written = convert(file, draft, report, packed)
    report(f"Converted {file.name} in {time.monotonic() - start:.1f} s: {written / 1e6:.1f} MB of weights in {target}")


def _require_config(directory: Path) -> None:
    if (directory / "config.json").is_file():
        return
    found = sorted(path.name for path in directory.glob("*"))
    refuse_adapter(str(directory), found)
    advice = "name a directory that save_pretrained made"
    if ggufs := [name for name in found if name.endswith(_GGUF)]:
        advice = f"name the file itself, {directory / ggufs[0]}"
    elif checkpoint := latest_checkpoint(found):
        advice = f"name a checkpoint in it, such as {directory / checkpoint}"
    raise ModelNotFound(f"{directory} holds no config.json, only {', '.join(found[:8]) or 'nothing'}: {advice}")
