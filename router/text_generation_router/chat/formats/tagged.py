"""Calls as elements of names and parameters, the way of XML, which several formats share. Knows no model's marks."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from text_generation_router.chat.formats.calls import Body, Calls, among_text, closing
from text_generation_router.chat.formats.json_calls import json_calls
from text_generation_router.chat.formats.parameters import Parameters
from text_generation_router.chat.formats.source import Source, Steps


@dataclass(frozen=True, slots=True)
class Tags:
    """What a format writes around the parts of a call.

    call, end: around all of it, the first with the name up to `name_end` behind it. parameter, parameter_end: around
    each, the first with the key up to `key_end`. begins, ends: around one call or several, where a format has them.
    string: behind a key, what says whether the value is a text, whatever the schema.
    lines: whether values stand on lines of their own. special: which special tokens may be among the tags.
    """

    call: str
    end: str
    parameter: str
    parameter_end: str
    name_end: str = ">"
    key_end: str = ">"
    begins: tuple[str, ...] = ()
    ends: tuple[str, ...] = ()
    string: Mapping[str, bool] | None = None
    lines: bool = False
    special: frozenset[str] = frozenset()


def tagged_calls(tags: Tags, source: Source, calls: Calls) -> Steps[None]:
    """An answer with calls in these tags."""
    bodies: dict[str, Body] = {
        tags.call: partial(_call, tags),
        **dict.fromkeys(tags.begins, partial(_begin, tags)),
        **dict.fromkeys(tags.ends, closing),
    }
    yield from among_text(source, calls, bodies)


def _begin(tags: Tags, source: Source, calls: Calls) -> Steps[None]:
    """Behind what begins calls; some models fall back on JSON there."""
    if (yield from source.peek()) == "{":
        yield from json_calls(source, calls)
        return
    yield from source.expect(tags.call)
    yield from _call(tags, source, calls)


def _call(tags: Tags, source: Source, calls: Calls) -> Steps[None]:
    name = (yield from source.take_past(tags.name_end)).strip()
    yield calls.begin(name)
    parameters = Parameters(calls, name)
    while (yield from source.expect(tags.parameter, tags.end)) == tags.parameter:
        key = (yield from source.take_past(tags.key_end)).strip()
        text = None
        if tags.string is not None:
            text = tags.string.get((yield from source.take_past(">")).strip())
        yield from parameters.read(source, key, tags.parameter_end, text=text, lines=tags.lines)
    yield from parameters.end(source)
