"""Reads small files of a model directory, so that whatever is wrong with one is one sentence that names file and key.

Knows no file by name and no key: readers say what they expect.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from text_generation_server.errors import ModelNotFound, UnsupportedModel

_POINTER = b"version https://git-lfs.github.com/spec/"
"""How the text begins that Git keeps in place of a large file (Git LFS specification)."""

BEGINNING = 64
"""Bytes of a file that tell whether it is such a text."""

_SHOWN = 80
"""Characters of a wrong value that a message quotes."""

_ESCAPED_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
"""Half a character, unless the other half follows: JSON allows it, and UTF-8 has no bytes for it."""

_KINDS: Mapping[type, str] = {
    str: "a string",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    list: "a list",
    dict: "an object",
}

T = TypeVar("T")


class JsonObject:
    """The values of a JSON object by key; `null` counts as absent.

    where: what messages call it: its file, and its key there.
    """

    def __init__(self, values: Mapping[str, Any], where: str) -> None:
        self.values = values
        self.where = where

    def get(self, key: str, kind: type[T]) -> T | None:
        """The value, None where it is absent. Raises UnsupportedModel, naming the key, for one of another kind."""
        value: Any = self.values.get(key)
        if value is None:
            return None
        accepted: Any = (int, float) if kind is float else kind
        if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
            raise self.refusal(key, _KINDS[kind])
        found: T = value
        return found

    def section(self, key: str) -> "JsonObject":
        """An object inside; empty where it is absent."""
        return JsonObject(self.get(key, dict) or {}, f"{self.where}: {key}")

    def sections(self) -> "Iterator[tuple[str, JsonObject]]":
        """All values, which have to be objects."""
        return ((key, self.section(key)) for key in self.values)

    def refusal(self, key: str, expected: str) -> UnsupportedModel:
        """The error for a value that is something else than expected."""
        value = self.values.get(key)
        if value is None:
            return UnsupportedModel(f"{self.where}: {key} is missing, expected {expected}")
        shown = repr(value)
        shown = shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}…"
        return UnsupportedModel(f"{self.where}: {key} is {shown}, expected {expected}")


def read_object(path: Path) -> JsonObject:
    """A file that holds a JSON object.

    Raises:
        ModelNotFound: there is no such file.
        UnsupportedModel: it cannot be read, or is something else.
    """
    text = read_bytes(path)
    try:
        values = json.loads(text.decode())
        if _ESCAPED_SURROGATE.search(text):
            json.dumps(values, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        reason = f"{path} is not valid JSON ({_reason(text, error)}); download or export the model again"
        raise UnsupportedModel(reason) from error
    if not isinstance(values, dict):
        raise UnsupportedModel(f"{path} holds a {type(values).__name__}, expected a JSON object")
    return JsonObject(values, str(path))


def read_optional_object(path: Path) -> JsonObject:
    """As `read_object`, but empty where there is no such file."""
    try:
        return read_object(path)
    except ModelNotFound:
        return JsonObject({}, str(path))


def read_bytes(path: Path) -> bytes:
    """A whole file. Raises ModelNotFound if there is none, UnsupportedModel if it cannot be read."""
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise ModelNotFound(f"there is no {path}") from error
    except OSError as error:
        raise UnsupportedModel(f"{path} cannot be read: {error.strerror}") from error
    refuse_pointer(path, content)
    return content


def refuse_pointer(path: Path, beginning: bytes) -> None:
    """Raise UnsupportedModel if a file that begins so only points to the real one."""
    if beginning.startswith(_POINTER):
        raise UnsupportedModel(
            f"{path} is a Git LFS pointer and not the file itself: run `git lfs pull` there, or download it again"
        )


def _reason(text: bytes, error: Exception) -> str:
    if not text.strip():
        return "it is empty"
    if isinstance(error, json.JSONDecodeError) and (
        error.pos >= len(error.doc.rstrip()) or error.msg.startswith("Unterminated string")
    ):
        return f"it ends in the middle, after {len(text)} bytes"
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
