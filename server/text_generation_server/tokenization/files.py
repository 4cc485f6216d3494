"""What a model directory says about its tokenizer, apart from the tokenizer itself: special tokens, flags, limits.

Reads JSON only. Knows nothing of how text is split.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

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
    """The facts of tokenizer_config.json, special_tokens_map.json, generation_config.json and config.json.

    special: the texts of all special tokens, in order of their roles; `eos` is among them.
    added: further tokens by id.
    eos_ids: end tokens that the model's configuration names; the tokenizer may know more.
    """

    eos: str | None
    special: tuple[str, ...]
    added: dict[int, AddedToken]
    clean_up: bool
    model_max_length: int | None
    eos_ids: frozenset[int]

    @classmethod
    def read(cls, directory: Path) -> Self:
        """Read what there is; every file may be missing. ValueError names a file that is not a JSON object."""
        config = _json(directory / "special_tokens_map.json") | _json(directory / "tokenizer_config.json")
        named = {name: text for name in _NAMED_TOKENS if (text := _text(config.get(name)))}
        more = [text for name in _MORE_TOKENS for entry in _entries(config.get(name)) if (text := _text(entry))]
        limit = config.get("model_max_length")
        return cls(
            eos=named.get("eos_token"),
            special=tuple(dict.fromkeys([*named.values(), *more])),
            added={int(token): _added(entry) for token, entry in (config.get("added_tokens_decoder") or {}).items()},
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
        raise ValueError(f"{path} is not valid JSON ({error}); download or export the model again") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}, expected a JSON object")
    return content


def _text(entry: Any) -> str | None:
    """A token is written as its text, or as an object with its text and flags."""
    text = entry.get("content") if isinstance(entry, dict) else entry
    return text if isinstance(text, str) else None


def _entries(value: Any) -> list[Any]:
    """A field that may be absent, one value, a list, or an object whose values count."""
    if value is None:
        return []
    if isinstance(value, dict):
        return list(value.values())
    return list(value) if isinstance(value, list) else [value]


def _added(entry: dict[str, Any]) -> AddedToken:
    flags: dict[str, bool] = {name: entry[name] for name in _TOKEN_FLAGS if name in entry}
    return AddedToken(entry["content"], bool(entry.get("special")), flags)
