"""Calls as Phi 4 mini and IBM's Granite 3 write them: a JSON list behind a mark. Source: their model cards."""

from text_generation_router.chat.formats.calls import Calls, among_text, closing
from text_generation_router.chat.formats.json_calls import json_calls
from text_generation_router.chat.formats.source import Source, Steps

_BEGINS = ("<|tool_call|>", "<tool_call>", "functools")
_END = "<|/tool_call|>"
MARKS = frozenset({"<|tool_call|>", _END})


def phi(source: Source, calls: Calls) -> Steps[None]:
    """<|tool_call|>[{"name": …, "arguments": {…}}, …]<|/tool_call|>"""
    yield from among_text(source, calls, {**dict.fromkeys(_BEGINS, json_calls), _END: closing})
