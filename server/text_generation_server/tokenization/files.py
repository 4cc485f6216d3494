"""What a model directory says about its tokenizer, apart from the tokenizer itself: class, tokens, flags, limits.

Reads JSON only. Knows nothing of how text is split.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from text_generation_server.modelfiles import JsonObject, read_optional_object

_NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_MORE_TOKENS = ("additional_special_tokens", "extra_special_tokens")
_TOKEN_FLAGS = ("lstrip", "normalized", "rstrip", "single_word")
_NO_LIMIT = 10**12
"""Tokenizers without a length limit are saved with one of 1e30."""


@dataclass(frozen=True, slots=True)
class AddedToken:
    """A token beside the vocabulary, as tokenizer_config.json lists it; the flags are the `tokenizers` library's."""

    content: str
    special: bool
    flags: dict[str, bool]


@dataclass(frozen=True, slots=True)
class TokenizerFiles:
    """The facts of tokenizer_config.json, special_tokens_map.json, added_tokens.json, and the model's configurations.

    tokenizer_class: as transformers calls it, without the ending Fast. remote_code: the class is code in the directory.
    special: all special tokens, in order of their roles; `bos` and `eos`, here by their texts, are among them.
    added: further tokens by id.
    add_bos, add_eos: whether they belong around texts, None if that is not said.
    legacy: whether every part of a text begins with a space, None if that is not said (SentencePiece only).
    eos_ids: end tokens that the model's configuration names; the tokenizer may know more.
    """

    tokenizer_class: str | None
    remote_code: bool
    bos: str | None
    eos: str | None
    special: tuple[AddedToken, ...]
    added: dict[int, AddedToken]
    add_bos: bool | None
    add_eos: bool | None
    legacy: bool | None
    clean_up: bool
    model_max_length: int | None
    eos_ids: frozenset[int]

    @classmethod
    def read(cls, directory: Path) -> Self:
        """Read what there is; every file may be missing. UnsupportedModel names file and key of what cannot be used."""
        config = read_optional_object(directory / "tokenizer_config.json")
        files = (config, read_optional_object(directory / "special_tokens_map.json"))
        named = {name: token for name in _NAMED_TOKENS if (token := _named_token(name, files))}
        more = [token for name in _MORE_TOKENS for token in _more_tokens(name, files)]
        special = {token.content: token for token in [*named.values(), *more]}
        limit = config.get("model_max_length", float)
        tokenizer_class = config.get("tokenizer_class", str)
        return cls(
            tokenizer_class=tokenizer_class.removesuffix("Fast") if tokenizer_class else None,
            remote_code="auto_map" in config.values,
            bos=named["bos_token"].content if "bos_token" in named else None,
            eos=named["eos_token"].content if "eos_token" in named else None,
            special=tuple(special.values()),
            added=_added_tokens(config, read_optional_object(directory / "added_tokens.json"), special),
            add_bos=config.get("add_bos_token", bool),
            add_eos=config.get("add_eos_token", bool),
            legacy=config.get("legacy", bool),
            clean_up=bool(config.get("clean_up_tokenization_spaces", bool)),
            model_max_length=int(limit) if limit is not None and limit < _NO_LIMIT else None,
            eos_ids=_eos_ids(directory),
        )


def _eos_ids(directory: Path) -> frozenset[int]:
    """The union over all configurations: checkpoints of one family disagree on which file is complete."""
    config = read_optional_object(directory / "config.json")
    sources = (config, config.section("text_config"), read_optional_object(directory / "generation_config.json"))
    return frozenset(token for source in sources for token in _ids(source, "eos_token_id"))


def _ids(source: JsonObject, key: str) -> list[int]:
    """One id, or a list."""
    found = _entries(source.values.get(key))
    if any(type(token) is not int for token in found):
        raise source.refusal(key, "a token id or a list of them")
    return found


def _named_token(name: str, files: Sequence[JsonObject]) -> AddedToken | None:
    """The token of a role. A first file that has the key counts, even if it says that there is none."""
    file = _first_with(name, files)
    value = file.values.get(name)
    return None if value is None else _special(value, file, name)


def _more_tokens(name: str, files: Sequence[JsonObject]) -> list[AddedToken]:
    """Tokens beside those with a role: a list, or an object whose values count."""
    file = _first_with(name, files)
    value = file.values.get(name)
    return [_special(entry, file, name) for entry in (value.values() if isinstance(value, dict) else _entries(value))]


def _first_with(name: str, files: Sequence[JsonObject]) -> JsonObject:
    return next((file for file in files if name in file.values), files[0])


def _entries(value: Any) -> list[Any]:
    """A field that may be absent, one value, or a list."""
    if value is None:
        return []
    return list(value) if isinstance(value, list) else [value]


def _special(entry: Any, file: JsonObject, key: str) -> AddedToken:
    """A token is written as its text, or as an object with its text and flags."""
    if isinstance(entry, str):
        return AddedToken(entry, True, {"normalized": False})
    if not isinstance(entry, dict) or "content" not in entry:
        raise file.refusal(key, "a token: its text, or an object with its content")
    return _added(JsonObject(entry | {"special": True}, f"{file.where}: {key}"))


def _added_tokens(config: JsonObject, older: JsonObject, special: Collection[str]) -> dict[int, AddedToken]:
    """By id: from tokenizer_config.json, or where that lists none, from added_tokens.json, which has ids by text."""
    listed = config.section("added_tokens_decoder")
    if strays := [token_id for token_id in listed.values if not token_id.isdecimal()]:
        raise listed.refusal(strays[0], "a token id in its place")
    if listed.values:
        return {int(token_id): _added(entry) for token_id, entry in listed.sections()}
    ids = {text: older.get(text, int) for text in older.values}
    return {token_id: AddedToken(text, text in special, {}) for text, token_id in ids.items() if token_id is not None}


def _added(entry: JsonObject) -> AddedToken:
    flags = {name: flag for name in _TOKEN_FLAGS if (flag := entry.get(name, bool)) is not None}
    content = entry.get("content", str)
    if content is None:
        raise entry.refusal("content", "a string")
    return AddedToken(content, bool(entry.get("special", bool)), flags)
