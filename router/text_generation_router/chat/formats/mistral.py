"""Calls as Mistral's models write them, in the older and in the newer spelling.

Source: the documentation of mistral-common: tokenizers up to version 7 have a list, from version 11 on each call has
its mark.
"""

from text_generation_router.chat.formats.calls import Calls, among_text
from text_generation_router.chat.formats.json_calls import json_calls
from text_generation_router.chat.formats.source import Source, Steps

BEGIN, ID, ARGUMENTS = "[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"
MARKS = frozenset({BEGIN, ID, ARGUMENTS})


def mistral(source: Source, calls: Calls) -> Steps[None]:
    """[TOOL_CALLS] [{"name": …, "arguments": {…}}, …], or [TOOL_CALLS]name[ARGS]{…} for each call."""
    yield from among_text(source, calls, {BEGIN: _calls})


def _calls(source: Source, calls: Calls) -> Steps[None]:
    if (yield from source.peek()) in ("[", "{"):
        yield from json_calls(source, calls)
        return
    name = yield from source.take_until(ID, ARGUMENTS, "{")
    if (yield from source.skip(ID)):
        yield from source.take_until(ARGUMENTS)
    yield from source.skip(ARGUMENTS)
    yield from calls.with_json(source, name.strip())
