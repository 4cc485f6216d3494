"""What an answer of a model is made of, in the order in which it is told. Knows no model's format, and no API.

A call is told by its begin, pieces of its arguments, which joined are a JSON object, and its end; calls do not overlap.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(slots=True)  # not frozen, like no other: one is made for every token, in half the time
class Content:
    """A piece of the answer's text."""

    text: str


@dataclass(frozen=True, slots=True)
class Reasoning:
    """A piece of what the model thought before it."""

    text: str


@dataclass(frozen=True, slots=True)
class CallBegin:
    """A call of a tool. index: how many there were before. id: of this call among all calls ever."""

    index: int
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class CallArguments:
    """A piece of a call's arguments."""

    index: int
    text: str


@dataclass(frozen=True, slots=True)
class CallEnd:
    """All has been told of a call. broken: as what text it was written if its arguments are no JSON object."""

    index: int
    broken: str | None = None


Event = Content | Reasoning | CallBegin | CallArguments | CallEnd


@dataclass(slots=True)
class Call:
    """A whole call. arguments: the text of a JSON object."""

    id: str
    name: str
    arguments: str = ""


@dataclass(slots=True)
class Message:
    """A whole answer."""

    content: str = ""
    reasoning: str = ""
    calls: list[Call] = field(default_factory=list)


def collected(events: Iterable[Event]) -> Message:
    """The whole of an answer. A broken call is text in it: nothing of it has been told to anyone yet."""
    message = Message()
    for event in events:
        match event:
            case Content(text):
                message.content += text
            case Reasoning(text):
                message.reasoning += text
            case CallBegin(id=id, name=name):
                message.calls.append(Call(id, name))
            case CallArguments(text=text):
                message.calls[-1].arguments += text
            case CallEnd(broken=str(source)):
                message.calls.pop()
                message.content += source
    return message
