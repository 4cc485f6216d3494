"""Makes a model's files local: what is there is left alone, the rest comes from the hub. Knows not how the hub answers.

The steps are those of the command `download-weights` of text-generation-inference.
"""

import json
from pathlib import Path
from typing import Any

from text_generation_server.errors import ModelNotFound
from text_generation_server.weights.remote import HubSettings, RemoteModel, Report

SAFETENSORS = ".safetensors"
_TORCH = (".bin", ".pt")
_CONFIGURATION = (".json", ".jinja", ".model", ".txt", ".tiktoken")
_NOT_WEIGHTS = ("arguments", "args", "training")
_KNOWN_BY = ("config.json", "adapter_config.json")


def download(
    model_id: str,
    revision: str | None,
    extension: str,
    hub: HubSettings,
    trust_remote_code: bool,
    auto_convert: bool,
    report: Report,
) -> Path:
    """Make the files of a model or a LoRA adapter local, and return their directory.

    model_id: an existing directory, or a hub id. extension: of the weights, with its dot. trust_remote_code: fetch the
    model's Python files too. auto_convert: where there are no safetensors, write them from PyTorch files.
    Raises ModelNotFound with what to do, UnsupportedModel for PyTorch files that hold more than tensors.
    """
    extensions = (extension, *_TORCH) if auto_convert and extension == SAFETENSORS else (extension,)
    directory = given_directory(model_id, hub)
    if directory is None:
        directory = _hub_directory(RemoteModel(model_id, revision, hub, report), extensions, trust_remote_code)
    if has_weights(directory, extension):
        report(f"The {extension} files of {model_id} are in {directory}")
        return directory
    if not any(has_weights(directory, kind) for kind in extensions):
        raise ModelNotFound(f"{directory} holds no {' or '.join(extensions)} files, or not all that its index lists")
    _convert(directory, trust_remote_code, report)
    return directory


def given_directory(model_id: str, hub: HubSettings) -> Path | None:
    """The directory that the user named, as the model or as WEIGHTS_CACHE_OVERRIDE, if any."""
    local = Path(model_id).expanduser()
    return local if local.is_dir() else hub.weights_cache_override


def has_weights(directory: Path, extension: str) -> bool:
    """Whether weights with the extension are there, and all of them where an index lists them."""
    indices = [_read_json(path) for path in directory.glob(f"*{extension}.index.json")]
    listed = {name for index in indices for name in index["weight_map"].values()}
    if listed:
        return all((directory / name).is_file() for name in listed)
    return directory.is_dir() and any(_is_weight(path.name, extension) for path in directory.iterdir())


def _read_json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def _is_weight(name: str, extension: str) -> bool:
    return name.endswith(extension) and "/" not in name and not any(word in name for word in _NOT_WEIGHTS)


def _hub_directory(model: RemoteModel, extensions: tuple[str, ...], code: bool) -> Path:
    """The model's folder in the hub cache, after fetching what is missing there."""
    cached = model.cached_directory(_KNOWN_BY)
    if cached is not None and any(has_weights(cached, extension) for extension in extensions):
        return cached
    if model.hub.offline:
        raise ModelNotFound(model.not_cached())
    directory = _fetch(model, extensions, code)
    _fetch_parent(directory, model, extensions, code)
    return directory


def _fetch(model: RemoteModel, extensions: tuple[str, ...], code: bool) -> Path:
    names = [name for name in model.list_files() if "/" not in name]
    weights = _choose_weights(names, extensions)
    if not weights:
        raise ModelNotFound(f"{model} has no {' or '.join(extensions)} files, only {', '.join(names) or 'none at all'}")
    kinds = (*_CONFIGURATION, ".py") if code else _CONFIGURATION
    # Weights come last: the index among the small files tells whether they are all there.
    small = (name for name in names if name.endswith(kinds) and name not in weights)
    paths = [model.fetch(name) for name in (*small, *weights)]
    model.report(f"{model} is local: {len(paths)} files, {sum(path.stat().st_size for path in paths) / 1e6:.1f} MB")
    return paths[-1].parent


def _choose_weights(names: list[str], extensions: tuple[str, ...]) -> list[str]:
    """Weight files of the first extension that has any; `consolidated` ones repeat the others in another naming."""
    for extension in extensions:
        found = [name for name in names if _is_weight(name, extension)]
        if found:
            return [name for name in found if not name.startswith("consolidated")] or found
    return []


def _fetch_parent(directory: Path, model: RemoteModel, extensions: tuple[str, ...], code: bool) -> None:
    """Fetch the model that this one says it builds on, as far as it can be had: whoever needs it will say so."""
    config = directory / "config.json"
    parent = _read_json(config).get("base_model_name_or_path") if config.is_file() else None
    if not parent or parent == model.model_id:
        return
    try:
        _fetch(RemoteModel(parent, None, model.hub, model.report), extensions, code)
    except ModelNotFound as error:
        model.report(f"Going on without the base model of {model}: {error}")


def _convert(directory: Path, trust_remote_code: bool, report: Report) -> None:
    from text_generation_server.weights.convert import convert_torch_files  # torch takes seconds to import

    if not trust_remote_code:
        report("The weights are PyTorch pickles: only plain tensors are read from them, no code in them is run")
    convert_torch_files(directory, report)
