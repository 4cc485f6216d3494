"""Calls as Llama 3.1 to 4 write them: JSON objects with `parameters`, which are the answer, or stand behind a mark.

Source: Meta's model cards. Programs, which Llama writes behind the same mark, are text.
"""

from text_generation_router.chat.formats.bare_json import leading_json
from text_generation_router.chat.formats.calls import Calls, among_text, nothing
from text_generation_router.chat.formats.json_calls import json_calls
from text_generation_router.chat.formats.source import Source, Steps

MARKS = frozenset({"<|python_tag|>", "<|python_start|>", "<|python_end|>"})


def llama(source: Source, calls: Calls) -> Steps[None]:
    """{"name": …, "parameters": {…}}; more of them behind semicolons."""
    yield from leading_json(source, calls)
    behind = {"<|python_tag|>": json_calls, "<|python_end|>": json_calls, "<|python_start|>": nothing}
    yield from among_text(source, calls, behind)
