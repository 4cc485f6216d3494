"""Calls as GLM 4.5 and later write them: a name, and keys and values in elements. Source: their chat templates."""

from text_generation_router.chat.formats.calls import Calls, among_text, closing
from text_generation_router.chat.formats.parameters import Parameters
from text_generation_router.chat.formats.source import Source, Steps

BEGIN, END = "<tool_call>", "</tool_call>"
KEY, KEY_END, VALUE, VALUE_END = "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"
MARKS = frozenset({BEGIN, END, KEY, KEY_END, VALUE, VALUE_END})


def glm(source: Source, calls: Calls) -> Steps[None]:
    """<tool_call>name<arg_key>key</arg_key><arg_value>value</arg_value></tool_call>, several times."""
    yield from among_text(source, calls, {BEGIN: _call, END: closing})


def _call(source: Source, calls: Calls) -> Steps[None]:
    name = (yield from source.take_until(KEY, END)).strip()
    yield calls.begin(name)
    parameters = Parameters(calls, name)
    while (yield from source.expect(KEY, END)) == KEY:
        key = (yield from source.take_past(KEY_END)).strip()
        yield from source.expect(VALUE)
        yield from parameters.read(source, key, VALUE_END)
    yield from parameters.end(source)
