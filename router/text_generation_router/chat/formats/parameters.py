"""Arguments that are written one by one, as text between marks, and told as the JSON object that they make.

What type a text stands for, the tool's schema says. Knows no marks.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from text_generation_router.chat.events import Event
from text_generation_router.chat.formats.calls import Calls, loaded
from text_generation_router.chat.formats.nesting import Broken
from text_generation_router.chat.formats.source import Hold, Source, Steps, Tell

_PYTHON = {"True": "true", "False": "false", "None": "null"}

_KINDS: Mapping[type, frozenset[str]] = {
    str: frozenset({"string"}),
    bool: frozenset({"boolean"}),
    int: frozenset({"integer", "number"}),
    float: frozenset({"number"}),
    list: frozenset({"array"}),
    dict: frozenset({"object"}),
    type(None): frozenset({"null"}),
}
"""What a schema calls the values that JSON is read as."""


class Parameters:
    """The arguments of the call of a tool that has begun."""

    def __init__(self, calls: Calls, name: str) -> None:
        properties = calls.schema(name).get("properties")
        self._properties: Mapping[str, Any] = properties if isinstance(properties, dict) else {}
        self._calls = calls
        self._separator = "{"

    def read(self, source: Source, key: str, end: str, *, text: bool | None = None, lines: bool = False) -> Steps[None]:
        """The parameter whose value comes next, up to the mark `end`, which is passed over.

        text: whether it is text, None if the schema must tell. lines: whether the value stands on lines of its own.
        Raises Broken where the answer ends first.
        """
        hold: Hold = _without_line_feed if lines else str
        if lines:
            yield from source.skip_line_feed()
        yield self._calls.arguments(f"{self._separator}{json.dumps(key, ensure_ascii=False)}: ")
        self._separator = ", "
        types = _types(self._properties.get(key))
        if text or (text is None and types <= {"string"}):
            yield from _text(source, end, self._calls.arguments, hold)
            return
        written = yield from source.take_past(end)
        yield self._calls.arguments(_json(hold(written), types))

    def end(self, source: Source) -> Iterator[Event]:
        """There are no more, and the call ends."""
        yield self._calls.arguments("{}" if self._separator == "{" else "}")
        yield self._calls.end(source)


def _text(source: Source, end: str, tell: Tell, hold: Hold) -> Steps[None]:
    yield tell('"')
    held, mark = yield from source.tell_until((end,), lambda piece: tell(escaped(piece)), hold)
    if mark is None:
        yield from source.more()
    source.take(held + end)
    yield tell('"')


def escaped(text: str) -> str:
    """A text as it stands in a JSON string."""
    return json.dumps(text, ensure_ascii=False)[1:-1]


def _without_line_feed(text: str) -> str:
    return text.removesuffix("\n")


def _json(written: str, types: frozenset[str]) -> str:
    """The JSON of a value that is JSON, or Python, of a type that is allowed; else of a text."""
    bare = _PYTHON.get(written.strip(), written.strip())
    try:
        kinds = _KINDS[type(loaded(bare))]
    except Broken:
        kinds = frozenset()
    return bare if kinds and (kinds & types or "string" not in types) else json.dumps(written, ensure_ascii=False)


def _types(schema: Any) -> frozenset[str]:
    """The types that a schema allows, as far as it says so directly."""
    if not isinstance(schema, dict):
        return frozenset()
    if "$ref" in schema:
        return frozenset({"object"})
    named, listed = schema.get("type"), schema.get("enum")
    own = {kind for kind in (named if isinstance(named, list) else [named]) if isinstance(kind, str)}
    if not own and isinstance(listed, list):
        own = {kind for value in listed for kind in _KINDS[type(value)]}
    composed = [schema.get(key) for key in ("anyOf", "oneOf", "allOf")]
    return frozenset(own).union(*(_types(part) for parts in composed if isinstance(parts, list) for part in parts))
