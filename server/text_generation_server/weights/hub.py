"""Makes a model's files local: what is there is left alone, the rest comes from the hub. Knows not how the hub answers.

The steps are those of the command `download-weights` of text-generation-inference.
"""

from collections.abc import Sequence
from pathlib import Path

from text_generation_server.errors import ModelNotFound, StartError, UnsupportedModel
from text_generation_server.modelfiles import read_optional_object
from text_generation_server.weights.files import (
    PICKLED,
    SAFETENSORS,
    WeightFormat,
    choose_format,
    listed_files,
    weight_files,
)
from text_generation_server.weights.remote import HubSettings, RemoteModel, Report

CONFIGURATION = ".json"
"""The extension to ask for where a model's weights are not needed."""

_CONFIGURATION_FILES = (CONFIGURATION, ".jinja", ".model", ".txt", ".tiktoken")
_TEMPLATES = "additional_chat_templates/"
"""The only folder with anything for us: templates beside chat_template.jinja."""

_CONFIG = "config.json"
_KNOWN_BY = (_CONFIG, "adapter_config.json")


def download(
    model_id: str,
    revision: str | None,
    extension: str,
    hub: HubSettings,
    trust_remote_code: bool,
    auto_convert: bool,
    report: Report,
) -> Path:
    """Make the files of a model local, and return their directory.

    model_id: an existing directory, or a hub id. extension: of the weights, with its dot. trust_remote_code: fetch the
    model's Python files too. auto_convert: where there are no safetensors, write them from PyTorch files.
    Raises ModelNotFound with what to do, UnsupportedModel for adapters and PyTorch files that hold more than tensors.
    """
    kinds = _formats(extension, auto_convert)
    directory = given_directory(model_id, hub)
    if directory is None:
        directory = _hub_directory(RemoteModel(model_id, revision, hub, report), kinds, trust_remote_code)
    if kinds and _format_in(directory, kinds) is not kinds[0]:
        _convert(directory, trust_remote_code, report)
    else:
        report(f"The {extension} files of {model_id} are in {directory}")
    return directory


def _formats(extension: str, auto_convert: bool) -> tuple[WeightFormat, ...]:
    """Those that will do, best first."""
    if extension == CONFIGURATION:
        return ()
    if extension == SAFETENSORS.extension:
        return (SAFETENSORS, PICKLED) if auto_convert else (SAFETENSORS,)
    return (PICKLED if extension == PICKLED.extension else WeightFormat("model", extension),)


def given_directory(model_id: str, hub: HubSettings) -> Path | None:
    """The directory that the user named, as the model or as WEIGHTS_CACHE_OVERRIDE, if any."""
    local = Path(model_id).expanduser()
    return local if local.is_dir() else hub.weights_cache_override


def weight_bytes(directory: Path, extension: str) -> int:
    """The size of a model's weights with this extension, 0 where it has none."""
    try:
        weights = [weight_files(directory, kind).names for kind in _formats(extension, auto_convert=False)]
    except (ModelNotFound, UnsupportedModel):
        return 0
    return sum((directory / name).stat().st_size for names in weights for name in names)


def _format_in(directory: Path, kinds: Sequence[WeightFormat]) -> WeightFormat:
    names = [path.name for path in directory.iterdir()]
    return choose_format(str(directory), names, lambda index: listed_files(directory / index), kinds)[0]


def _hub_directory(model: RemoteModel, kinds: Sequence[WeightFormat], code: bool) -> Path:
    """The model's folder in the hub cache, after fetching what is missing there."""
    cached = model.cached_directory(_KNOWN_BY)
    if cached is not None and _is_whole(cached, kinds):
        return cached
    if model.hub.offline:
        raise ModelNotFound(model.not_cached())
    directory = _fetch(model, kinds, code)
    _fetch_parent(directory, model, kinds, code)
    return directory


def _is_whole(directory: Path, kinds: Sequence[WeightFormat]) -> bool:
    try:
        return not kinds or bool(_format_in(directory, kinds))
    except ModelNotFound:
        return False


def _fetch(model: RemoteModel, kinds: Sequence[WeightFormat], code: bool) -> Path:
    listed = model.list_files()
    names = [name for name in listed if "/" not in name]
    weights: Sequence[str] = ()
    if kinds:
        # Only what an index says tells which weights are the model's, and whether they are all there.
        _, chosen = choose_format(
            str(model), names, lambda index: listed_files(model.fetch(index)) if index in names else (), kinds
        )
        weights = chosen.names
    endings = (*_CONFIGURATION_FILES, ".py") if code else _CONFIGURATION_FILES
    small = [name for name in names if name.endswith(endings) and name not in weights]
    paths = [model.fetch(name) for name in (*small, *weights)]
    if not paths:
        raise ModelNotFound(f"{model} has no {_CONFIG}, only {', '.join(names) or 'no files at all'}")
    paths = [*(model.fetch(name) for name in listed if name.startswith(_TEMPLATES)), *paths]
    model.report(f"{model} is local: {len(paths)} files, {sum(path.stat().st_size for path in paths) / 1e6:.1f} MB")
    return paths[-1].parent


def _fetch_parent(directory: Path, model: RemoteModel, kinds: Sequence[WeightFormat], code: bool) -> None:
    """Fetch the model that this one says it builds on, as far as it can be had: whoever needs it will say so."""
    parent = read_optional_object(directory / _CONFIG).get("base_model_name_or_path", str)
    if not parent or parent == model.model_id:
        return
    try:
        _fetch(RemoteModel(parent, None, model.hub, model.report), kinds, code)
    except StartError as error:
        model.report(f"Going on without the base model of {model}: {error}")


def _convert(directory: Path, trust_remote_code: bool, report: Report) -> None:
    from text_generation_server.weights.convert import convert_torch_files  # torch takes seconds to import

    if not trust_remote_code:
        report("The weights are PyTorch pickles: only plain tensors are read from them, no code in them is run")
    convert_torch_files(directory, report)
