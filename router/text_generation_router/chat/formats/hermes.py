"""Calls as Nous Hermes, Qwen 2.5 and 3, SmolLM3 and many others write them: a JSON object in <tool_call>."""

from text_generation_router.chat.formats.calls import Calls, among_text, closing
from text_generation_router.chat.formats.json_calls import json_calls
from text_generation_router.chat.formats.source import Source, Steps

BEGIN, END = "<tool_call>", "</tool_call>"


def hermes(source: Source, calls: Calls) -> Steps[None]:
    """<tool_call>{"name": …, "arguments": {…}}</tool_call>, several times."""
    yield from among_text(source, calls, {BEGIN: json_calls, END: closing})
