"""Calls as FunctionGemma and Gemma 4 write them: objects with bare keys and texts between quotes of their own.

Source: Google's documentation of function calling.
"""

import json
from dataclasses import dataclass
from functools import partial

from text_generation_router.chat.formats.calls import Calls, among_text, closing, loaded
from text_generation_router.chat.formats.nesting import Broken
from text_generation_router.chat.formats.parameters import escaped
from text_generation_router.chat.formats.source import Source, Steps


@dataclass(frozen=True, slots=True)
class Marks:
    """What a generation writes around calls and texts."""

    begin: str
    end: str
    quote: str

    @property
    def special(self) -> frozenset[str]:
        """All of them."""
        return frozenset({self.begin, self.end, self.quote})


FUNCTION_GEMMA = Marks("<start_function_call>", "<end_function_call>", "<escape>")
GEMMA_4 = Marks("<|tool_call>", "<tool_call|>", '<|"|>')


def gemma(marks: Marks, source: Source, calls: Calls) -> Steps[None]:
    """call:name{key:value, …} between marks, several times."""
    yield from among_text(source, calls, {marks.begin: partial(_call, marks.quote), marks.end: closing})


def _call(quote: str, source: Source, calls: Calls) -> Steps[None]:
    yield from source.expect("call:")
    name = yield from source.take_until("{")
    yield calls.begin(name.strip())
    yield from _object(quote, source, calls)
    yield calls.end(source)


def _value(quote: str, source: Source, calls: Calls) -> Steps[None]:
    """Tell a value as JSON."""
    first = yield from source.pass_space()
    if first == "{":
        yield from _object(quote, source, calls)
    elif first == "[":
        yield from _list(quote, source, calls)
    elif (yield from source.ahead(quote)):
        yield from _string(quote, source, calls)
    else:
        bare = yield from source.take_until(",", "}", "]")
        yield calls.arguments(_bare(bare.strip()))


def _object(quote: str, source: Source, calls: Calls) -> Steps[None]:
    source.take("{")
    yield calls.arguments("{")
    separator, more = "", not (yield from source.skip("}"))
    while more:
        key = (yield from source.take_past(":")).strip().removeprefix(quote).removesuffix(quote)
        yield calls.arguments(f"{separator}{json.dumps(key, ensure_ascii=False)}: ")
        yield from _value(quote, source, calls)
        separator, more = ", ", (yield from source.expect(",", "}")) == ","
    yield calls.arguments("}")


def _list(quote: str, source: Source, calls: Calls) -> Steps[None]:
    source.take("[")
    yield calls.arguments("[")
    more = not (yield from source.skip("]"))
    while more:
        yield from _value(quote, source, calls)
        more = (yield from source.expect(",", "]")) == ","
        if more:
            yield calls.arguments(", ")
    yield calls.arguments("]")


def _string(quote: str, source: Source, calls: Calls) -> Steps[None]:
    source.take(quote)
    yield calls.arguments('"')
    _, mark = yield from source.tell_until((quote,), lambda text: calls.arguments(escaped(text)))
    if mark is None:
        raise Broken
    source.take(quote)
    yield calls.arguments('"')


def _bare(text: str) -> str:
    """JSON as it is, and anything else as a text."""
    try:
        loaded(text)
    except Broken:
        return json.dumps(text, ensure_ascii=False)
    return text
