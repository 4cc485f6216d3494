"""What a model directory says about its tokenizer, apart from the tokenizer itself: class, tokens, flags, limits.

Reads JSON only. Knows nothing of how text is split.
"""

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from text_generation_server.errors import UnsupportedModel

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
        """Read what there is; every file may be missing. UnsupportedModel names a file that is not a JSON object."""
        config = _json(directory / "special_tokens_map.json") | _json(directory / "tokenizer_config.json")
        named = {name: token for name in _NAMED_TOKENS if (token := _special(config.get(name)))}
        more = [token for name in _MORE_TOKENS for entry in _entries(config.get(name)) if (token := _special(entry))]
        special = {token.content: token for token in [*named.values(), *more]}
        limit = config.get("model_max_length")
        tokenizer_class = config.get("tokenizer_class")
        return cls(
            tokenizer_class=tokenizer_class.removesuffix("Fast") if tokenizer_class else None,
            remote_code="auto_map" in config,
            bos=named["bos_token"].content if "bos_token" in named else None,
            eos=named["eos_token"].content if "eos_token" in named else None,
            special=tuple(special.values()),
            added=_added_tokens(config, _json(directory / "added_tokens.json"), special),
            add_bos=config.get("add_bos_token"),
            add_eos=config.get("add_eos_token"),
            legacy=config.get("legacy"),
            clean_up=bool(config.get("clean_up_tokenization_spaces")),
            model_max_length=int(limit) if limit is not None and limit < _NO_LIMIT else None,
            eos_ids=_eos_ids(directory),
        )


def _eos_ids(directory: Path) -> frozenset[int]:
    """The union over all configurations: checkpoints of one family disagree on which file is complete."""
    config = _json(directory / "config.json")
    sources = (config, config.get("text_config") or {}, _json(directory / "generation_config.json"))
    return frozenset(token for source in sources for token in _entries(source.get("eos_token_id")))


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UnsupportedModel(f"{path} is not valid JSON ({error}); download or export the model again") from error
    if not isinstance(content, dict):
        raise UnsupportedModel(f"{path} holds a {type(content).__name__}, expected a JSON object")
    return content


def _special(entry: Any) -> AddedToken | None:
    """A token is written as its text, or as an object with its text and flags."""
    if isinstance(entry, str):
        return AddedToken(entry, True, {"normalized": False})
    return _added(entry | {"special": True}) if isinstance(entry, dict) and "content" in entry else None


def _entries(value: Any) -> list[Any]:
    """A field that may be absent, one value, a list, or an object whose values count."""
    if value is None:
        return []
    if isinstance(value, dict):
        return list(value.values())
    return list(value) if isinstance(value, list) else [value]


def _added_tokens(config: dict[str, Any], older: dict[str, Any], special: Collection[str]) -> dict[int, AddedToken]:
    """By id: from tokenizer_config.json, or where that lists none, from added_tokens.json, which has ids by text."""
    if listed := config.get("added_tokens_decoder"):
        return {int(token_id): _added(entry) for token_id, entry in listed.items()}
    return {token_id: AddedToken(text, text in special, {}) for text, token_id in older.items()}


def _added(entry: dict[str, Any]) -> AddedToken:
    flags: dict[str, bool] = {name: entry[name] for name in _TOKEN_FLAGS if name in entry}
    return AddedToken(entry["content"], bool(entry.get("special")), flags)
