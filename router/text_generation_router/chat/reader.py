"""How an answer's text is read: a piece of it in, events out. Knows no model's format."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from text_generation_router.chat.events import Content, Event


class Reader(Protocol):
    """Reads one answer. However its text is cut, the events are the same, but for how theirs are.

    Never raises: what it cannot read is content.
    """

    def feed(self, text: str) -> Sequence[Event]:
        """What is known once `text` has been generated."""

    def end(self) -> Sequence[Event]:
        """What is known once the answer has ended."""


class PlainReader:
    """Reads an answer that is text and nothing else."""

    def feed(self, text: str) -> Sequence[Event]:
        """See `Reader`."""
        return (Content(text),) if text else ()

    def end(self) -> Sequence[Event]:
        """See `Reader`."""
        return ()


@dataclass(frozen=True, slots=True)
class AnswerForm:
    """How the answers to one request are read.

    reader: makes what reads one of them. marks: the special tokens that it reads, and which are part of its text
    therefore; no other special token is. calls: whether there may be calls of tools.
    """

    reader: Callable[[], Reader] = PlainReader
    marks: frozenset[str] = frozenset()
    calls: bool = False


PLAIN = AnswerForm()
