"""Calls as JSON between marks, as many models write them: which marks each has. Sources: their chat templates."""

from dataclasses import dataclass

from text_generation_router.chat.formats.calls import Body, Calls, among_text, closing, nothing
from text_generation_router.chat.formats.json_calls import json_calls
from text_generation_router.chat.formats.source import Source, Steps


@dataclass(frozen=True, slots=True)
class Marks:
    """What a format writes around calls: one of the begins, and perhaps the end. silent: around text."""

    begins: tuple[str, ...]
    end: str
    silent: tuple[str, ...] = ()

    @property
    def special(self) -> frozenset[str]:
        """All of them."""
        return frozenset({*self.begins, self.end, *self.silent})


HERMES = Marks(("<tool_call>",), "</tool_call>")
"""Nous Hermes', Qwen 2.5's and 3's, SmolLM3's, Granite 4's: an object in each pair of marks."""

PHI = Marks(("<|tool_call|>", "<tool_call>", "functools"), "<|/tool_call|>")
"""Phi 4 mini's and Granite 3's: a list."""

NEMOTRON = Marks(("<TOOLCALL>",), "</TOOLCALL>")
"""NVIDIA's Llama Nemotron's and Nemotron Nano's: a list."""

COHERE = Marks(("<|START_ACTION|>",), "<|END_ACTION|>", ("<|START_RESPONSE|>", "<|END_RESPONSE|>"))
"""Command R7B's and A's: a list, of objects with `tool_name`."""


def marked_json(marks: Marks, source: Source, calls: Calls) -> Steps[None]:
    """{"name": …, "arguments": {…}}, or a list of such, between marks."""
    begins: dict[str, Body] = dict.fromkeys(marks.begins, json_calls)
    yield from among_text(source, calls, {**begins, marks.end: closing, **dict.fromkeys(marks.silent, nothing)})
