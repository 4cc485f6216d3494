"""How the served model writes calls and reasoning, and so how its answers are read. Knows no request's body."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self, TypeVar

from text_generation_router.chat.events import CallArguments, CallBegin, CallEnd, Event
from text_generation_router.chat.formats.calls import Calls
from text_generation_router.chat.formats.reasoning import Marks
from text_generation_router.chat.formats.registry import (
    FORCED,
    REASONING,
    SINGLE,
    TOOL_FORMATS,
    ToolFormat,
    reasoning_marks,
    tool_format,
)
from text_generation_router.chat.formats.source import Source, Steps
from text_generation_router.chat.reader import PLAIN, AnswerForm
from text_generation_router.chat.tools import Tools
from text_generation_router.errors import StartError
from text_generation_router.options import flag

T = TypeVar("T")

_NO_TOOLS = Tools(offered=(), schemas={})


@dataclass(frozen=True, slots=True)
class Dialect:
    """A model's formats.

    reasoning: None if it does not reason, or its calls' format reads that too. single: whether its template takes no
    more than one call an answer.
    """

    calls: ToolFormat
    reasoning: Marks | None
    single: bool = False

    @classmethod
    def of(cls, template: str, tool_call_parser: str | None, reasoning_parser: str | None) -> Self:
        """As a chat template says, or the options by name. Raises StartError for names that nothing has."""
        return cls(
            _named("tool_call_parser", tool_call_parser, TOOL_FORMATS, lambda: tool_format(template)),
            _named("reasoning_parser", reasoning_parser, REASONING, lambda: reasoning_marks(template)),
            SINGLE in template,
        )

    def callable(self, tools: Tools | None) -> Tools | None:
        """The tools as this model can call them: what it may not be told of later it must not do now."""
        return replace(tools, parallel=False) if tools is not None and self.single else tools

    def form(self, prompt: str, tools: Tools | None) -> AnswerForm:
        """How answers to a prompt are read, which are free, or are calls where tools are forced."""
        tools = tools or _NO_TOOLS
        if tools.forced:
            return AnswerForm(lambda: FormatReader(FORCED, tools, None, False), calls=True)
        if not (tools.offered or self.calls.always or self.reasoning):
            return PLAIN
        known = self.calls if tools.offered or self.calls.always else _TEXT
        opened = self.reasoning is not None and self.reasoning.opened_by(prompt)
        marks = known.marks | (self.reasoning.special if self.reasoning else frozenset())
        return AnswerForm(lambda: FormatReader(known, tools, self.reasoning, opened), marks, calls=bool(tools.offered))

    def without_reasoning(self, prompt: str) -> str:
        """A prompt whose answer begins behind reasoning: a grammar leaves no room for it."""
        opened = self.reasoning is not None and self.reasoning.opened_by(prompt)
        return f"{prompt.rstrip()}\n\n{self.reasoning.end}\n\n" if opened and self.reasoning else prompt


class FormatReader:
    """Reads an answer as a format says. reasoning: what is read before. opened: whether the prompt has begun it."""

    def __init__(self, known: ToolFormat, tools: Tools, reasoning: Marks | None, opened: bool) -> None:
        self._source = Source()
        self._most_calls = None if tools.parallel else 1
        self._steps = _read(self._source, known, Calls(tools.schemas, known.new_id), reasoning, opened)

    def feed(self, text: str) -> Sequence[Event]:
        """See `Reader`."""
        if not text:
            return ()
        self._source.push(text)
        return self._events()

    def end(self) -> Sequence[Event]:
        """See `Reader`."""
        self._source.ended = True
        return self._events()

    def _events(self) -> Sequence[Event]:
        events = []
        for event in self._steps:
            if event is None:
                break
            if not self._surplus(event):
                events.append(event)
        return events

    def _surplus(self, event: Event) -> bool:
        """Whether it is of a call more than wanted."""
        return (
            self._most_calls is not None
            and isinstance(event, CallBegin | CallArguments | CallEnd)
            and event.index >= self._most_calls
        )


def _read(source: Source, known: ToolFormat, calls: Calls, reasoning: Marks | None, opened: bool) -> Steps[None]:
    if reasoning is not None:
        yield from reasoning.read(source, opened)
    yield from known.read(source, calls)


def _text(source: Source, calls: Calls) -> Steps[None]:
    yield from source.tell_until((), calls.text)


_TEXT = ToolFormat(_text)
"""Of models that may not call."""


def _named(option: str, name: str | None, table: Mapping[str, T], default: Callable[[], T]) -> T:
    if name is None:
        return default()
    if name not in table:
        raise StartError(f"{flag(option)} is {name!r}, expected one of {', '.join(table)}")
    return table[name]
