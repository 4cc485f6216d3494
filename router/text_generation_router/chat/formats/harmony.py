"""Answers of gpt-oss: messages in channels, one of which is reasoning, and some of which are calls.

Source: OpenAI's description of the harmony response format.
"""

import re

from text_generation_router.chat.events import Reasoning
from text_generation_router.chat.formats.calls import Calls, attempt
from text_generation_router.chat.formats.source import Source, Steps

START, CHANNEL, MESSAGE = "<|start|>", "<|channel|>", "<|message|>"
ENDS = ("<|end|>", "<|return|>", "<|call|>")
MARKS = frozenset({START, CHANNEL, MESSAGE, "<|constrain|>", *ENDS})

_RECIPIENT = re.compile(r"to=(?:functions\.)?([^\s<]+)")
_REASONING = "analysis"


def harmony(source: Source, calls: Calls) -> Steps[None]:
    """<|channel|>name<|message|>text<|end|>, several times; a call is a message to functions.name."""
    while (yield from source.peek()):
        source.keep()
        if (yield from source.skip(*ENDS)) is None:
            yield from attempt(source, calls, _message)


def _message(source: Source, calls: Calls) -> Steps[None]:
    if (yield from source.ahead(START, CHANNEL)) is None:  # text without a header
        yield from source.tell_until((START, CHANNEL, *ENDS), calls.text)
        return
    header = (yield from source.expect(START, CHANNEL)) + (yield from source.take_past(MESSAGE))
    recipient = _RECIPIENT.search(header)
    if recipient is not None:
        yield from calls.with_json(source, recipient[1])
    elif header.partition(CHANNEL)[2].strip().startswith(_REASONING):
        yield from source.tell_until((*ENDS, START), Reasoning)
    else:
        yield from source.tell_until((*ENDS, START), calls.text)
