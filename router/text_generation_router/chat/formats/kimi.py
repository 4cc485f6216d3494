"""Calls as Kimi K2 writes them. Source: its tool-calling guide."""

from text_generation_router.chat.formats.calls import Calls, among_text, closing
from text_generation_router.chat.formats.source import Source, Steps

ALL, ALL_END = "<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"
BEGIN, ARGUMENTS, END = "<|tool_call_begin|>", "<|tool_call_argument_begin|>", "<|tool_call_end|>"
MARKS = frozenset({ALL, ALL_END, BEGIN, ARGUMENTS, END})


def kimi(source: Source, calls: Calls) -> Steps[None]:
    """functions.name:index as an id, and the arguments, between marks."""
    yield from among_text(source, calls, {ALL: _calls, BEGIN: _call, END: closing, ALL_END: closing})


def _calls(source: Source, calls: Calls) -> Steps[None]:
    yield from source.expect(BEGIN)
    yield from _call(source, calls)


def _call(source: Source, calls: Calls) -> Steps[None]:
    id = (yield from source.take_past(ARGUMENTS)).strip()
    yield from calls.with_json(source, id.removeprefix("functions.").partition(":")[0])
