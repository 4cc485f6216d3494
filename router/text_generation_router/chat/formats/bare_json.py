"""Calls as nothing but JSON: what a model is forced to where a call is required, or asked for by a prompt.

Also what models without a format of their own write, in a fence perhaps.
"""

from text_generation_router.chat.formats.calls import Calls, among_text, attempt, closing
from text_generation_router.chat.formats.json_calls import json_calls
from text_generation_router.chat.formats.source import Source, Steps

_FENCE, _FENCE_END = "```json", "```"


def bare_json(source: Source, calls: Calls) -> Steps[None]:
    """[{"name": …, "arguments": {…}}, …], or one of them alone, as the answer or in a fence in it."""
    yield from leading_json(source, calls)
    yield from among_text(source, calls, {_FENCE: json_calls, _FENCE_END: closing})


def leading_json(source: Source, calls: Calls) -> Steps[None]:
    """The calls that an answer begins with, if it does."""
    if (yield from source.peek()) in ("{", "["):
        source.keep()
        yield from attempt(source, calls, json_calls)
