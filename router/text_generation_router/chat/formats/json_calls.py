"""Calls as JSON objects, which many formats have between marks of their own: {"name": …, "arguments": {…}}.

The keys may come in any order, and as other models and servers call them. Knows no marks.
"""

import json
from typing import Any

from text_generation_router.chat.formats.calls import Calls, loaded
from text_generation_router.chat.formats.nesting import Broken
from text_generation_router.chat.formats.source import Source, Steps

_NAMES = ("name", "_name", "tool_name")
_ARGUMENTS = ("arguments", "parameters")
_NESTED = "function"
_IGNORED = ("id", "type", "index", "tool_call_id")


def json_calls(source: Source, calls: Calls) -> Steps[None]:
    """One call, or several in a list, or one after the other with commas or semicolons between."""
    if not (yield from source.skip("[")):
        yield from _one(source, calls)
        while (yield from source.skip(";", ",")) or (yield from source.pass_space()) == "{":
            yield from _one(source, calls)
        return
    more = True
    while more:
        yield from _one(source, calls)
        more = (yield from source.expect(",", "]")) == ","
    source.keep()


def _one(source: Source, calls: Calls) -> Steps[None]:
    """A call, whose arguments are told as they come where its name has come before."""
    yield from source.expect("{")
    found: dict[str, str] = {}
    told = False
    more = True
    while more:
        key = _text((yield from source.json()))
        yield from source.expect(":")
        first = yield from source.pass_space()
        if key in _ARGUMENTS and "name" in found and first == "{" and not told:
            yield from calls.with_json(source, _text(found["name"]))
            told = True
        else:
            found[_known(key)] = yield from source.json()
        more = (yield from source.expect(",", "}")) == ","
    if told:
        source.keep()
    else:
        yield from calls.whole(source, *_name_and_arguments(found))


def _known(key: str) -> str:
    """Under which name a value is kept. Raises Broken for a key that no call has."""
    if key in _NAMES:
        return "name"
    if key in _ARGUMENTS:
        return "arguments"
    if key != _NESTED and key not in _IGNORED:
        raise Broken
    return key


def _name_and_arguments(found: dict[str, str]) -> tuple[str, str]:
    """Of a call that has not been told as it came. Raises Broken if it has no name."""
    if _NESTED in found and "name" not in found:
        return _nested(loaded(found[_NESTED]))
    if "name" not in found:
        raise Broken
    arguments = loaded(found.get("arguments", "{}"))
    if isinstance(arguments, str):  # some models write the text of an object
        return _text(found["name"]), arguments
    return _text(found["name"]), "{}" if arguments is None else found.get("arguments", "{}")


def _nested(function: Any) -> tuple[str, str]:
    """As OpenAI nests a call, or as text-generation-inference does, with arguments beside the name."""
    if not isinstance(function, dict):
        raise Broken
    name = next((function.pop(key) for key in _NAMES if key in function), None)
    arguments = next((function[key] for key in _ARGUMENTS if key in function), function)
    if not isinstance(name, str):
        raise Broken
    return name, arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


def _text(value: str) -> str:
    """The text that a JSON string says. Raises Broken if it is none."""
    found = loaded(value)
    if not isinstance(found, str):
        raise Broken
    return found
