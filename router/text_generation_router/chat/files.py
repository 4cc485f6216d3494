"""Where a model's chat templates are, and the special tokens that they write. Knows no template from inside.

Source: transformers' `PreTrainedTokenizerBase.from_pretrained` and `get_chat_template`; checked against version 5.24.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from text_generation_server.errors import UnsupportedModel
from text_generation_server.modelfiles import JsonObject, read_bytes, read_object, read_optional_object

DEFAULT, TOOL_USE = "default", "tool_use"
"""Names of templates: the one that is taken, and the one instead of it where there are tools."""

_PROCESSORS = ("chat_template.json", "processor_config.json")
"""Where models with images have had theirs, if nowhere else."""

_KEY = "chat_template"
_ENDING = ".jinja"


def read_config(folder: Path, instead: Path | None) -> JsonObject:
    """tokenizer_config.json, or the file that is to be read instead. Raises UnsupportedModel, ModelNotFound."""
    return read_optional_object(folder / "tokenizer_config.json") if instead is None else read_object(instead)


def find_templates(folder: Path, config: JsonObject, config_first: bool) -> Mapping[str, str]:
    """The templates by name, from the first place that has one; empty where none has.

    config_first: whether what `config` has goes before the files of the model. Raises UnsupportedModel.
    """
    in_config = _named(config)
    if config_first and in_config:
        return in_config
    beside = (read_optional_object(folder / name) for name in _PROCESSORS)
    return _files(folder) or in_config or next(filter(None, map(_named, beside)), {})


def special_tokens(folder: Path, config: JsonObject, config_first: bool) -> Mapping[str, str]:
    """The text of `bos_token` and of every other token that has a name, as templates know them.

    The older special_tokens_map.json wins where a `config` of the model does not list the added tokens itself.
    """
    own, older = _tokens(config), _tokens(read_optional_object(folder / "special_tokens_map.json"))
    return older | own if config_first or "added_tokens_decoder" in config.values else own | older


def _files(folder: Path) -> dict[str, str]:
    """Those that are files of their own."""
    found = {
        path.name.removesuffix(_ENDING): path
        for path in sorted((folder / "additional_chat_templates").glob(f"*{_ENDING}"))
    }
    if (folder / f"{_KEY}{_ENDING}").exists():
        found[DEFAULT] = folder / f"{_KEY}{_ENDING}"
    return {name: read_template(path) for name, path in found.items()}


def read_template(path: Path) -> str:
    """A file's text. Raises ModelNotFound, UnsupportedModel."""
    try:
        return read_bytes(path).decode()
    except UnicodeDecodeError as error:
        raise UnsupportedModel(f"{path} is not UTF-8: {error}") from error


def _named(config: JsonObject) -> dict[str, str]:
    """A template may be written as its text, as an object of several, or as a list of such with their names."""
    value = config.values.get(_KEY)
    if value is None or value == "":
        return {}
    if isinstance(value, list) and all(isinstance(entry, dict) for entry in value):
        value = {entry.get("name"): entry.get("template") for entry in value}
    templates = value if isinstance(value, dict) else {DEFAULT: value}
    if not all(isinstance(text, str) for item in templates.items() for text in item):
        raise config.refusal(_KEY, "a template, or a list of them with name and template")
    return templates


def _tokens(config: JsonObject) -> dict[str, str]:
    named = {key: value for key, value in config.values.items() if key.endswith("_token")}
    more = config.values.get("extra_special_tokens")
    texts = {key: _text(value) for key, value in {**named, **(more if isinstance(more, dict) else {})}.items()}
    return {key: text for key, text in texts.items() if text is not None}


def _text(token: Any) -> str | None:
    """A token is written as its text, or as an object with it; keys such as `add_bos_token` have neither."""
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) else None
