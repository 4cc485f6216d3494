"""Calls in an answer: which tools there are, what is told of a call, and the text between them. Knows no format."""

import json
import secrets
import string
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from text_generation_router.chat.events import CallArguments, CallBegin, CallEnd, Content, Event
from text_generation_router.chat.formats.nesting import Broken
from text_generation_router.chat.formats.source import Source, Steps

NewId = Callable[[], str]
"""Makes the id of a call."""

_ALPHANUMERIC = string.ascii_letters + string.digits


def call_id() -> str:
    """As OpenAI's are."""
    return "call_" + secrets.token_hex(12)


def short_id() -> str:
    """Nine letters and digits: templates of Mistral take no others."""
    return "".join(secrets.choice(_ALPHANUMERIC) for _ in range(9))


class Calls:
    """The calls of one answer, as they are told.

    schemas: of the arguments of each tool, by its name. spoken: whether there has been text beside them.
    closed: whether a whole call came last.
    """

    def __init__(self, schemas: Mapping[str, Mapping[str, Any]], new_id: NewId = call_id) -> None:
        self._schemas = schemas
        self._new_id = new_id
        self._count = 0
        self._open = False
        self.spoken = False
        self.closed = False

    def schema(self, name: str) -> Mapping[str, Any]:
        """What is known of a tool's arguments."""
        return self._schemas.get(name, {})

    def begin(self, name: str) -> Event:
        """A call of a tool begins. Raises Broken if there is none of that name."""
        if name not in self._schemas:
            raise Broken
        self._open = True
        return CallBegin(self._count, self._new_id(), name)

    def arguments(self, text: str) -> Event:
        """A piece of the call's arguments."""
        return CallArguments(self._count, text)

    def text(self, text: str) -> Event:
        """A piece of text beside calls."""
        self.spoken, self.closed = True, False
        return Content(text)

    def end(self, source: Source) -> Event:
        """The call has ended well, and what is kept of the text from here on is what follows."""
        source.keep()
        return self._close(None)

    def broken(self, source: Source) -> Iterator[Event]:
        """What has been kept of the text is no call."""
        text = source.kept()
        if self._open:
            yield self._close(text)
        elif text and not (self.closed and text.isspace()):
            yield self.text(text)

    def whole(self, source: Source, name: str, arguments: str) -> Iterator[Event]:
        """A call that is known at once. Raises Broken if it cannot be one."""
        check_object(arguments)
        yield self.begin(name)
        yield self.arguments(arguments)
        yield self.end(source)

    def with_json(self, source: Source, name: str) -> Steps[None]:
        """A call whose arguments come next, as a JSON object. Raises Broken if they do not, or are none in the end."""
        if (yield from source.pass_space()) != "{":
            raise Broken
        yield self.begin(name)
        check_object((yield from source.json(self.arguments)))
        yield self.end(source)

    def _close(self, broken: str | None) -> Event:
        self._open, self.closed = False, broken is None
        self.spoken = self.spoken or broken is not None
        self._count += 1
        return CallEnd(self._count - 1, broken)


Body = Callable[[Source, Calls], Steps[None]]
"""Reads what stands behind a mark."""


def among_text(source: Source, calls: Calls, bodies: Mapping[str, Body]) -> Steps[None]:
    """Text, and what stands behind each of the marks in it. bodies: by their marks.

    White space before and behind calls is nobody's, but between text and text.
    """
    while True:
        if calls.closed and not calls.spoken:
            yield from source.pass_space()
        space, mark = yield from source.tell_until(tuple(bodies), calls.text, str.rstrip)
        if mark is None:
            if space and not calls.closed:
                yield calls.text(space)
            return
        source.keep()
        source.take(space + mark)
        yield from attempt(source, calls, bodies[mark])


def attempt(source: Source, calls: Calls, body: Body) -> Steps[None]:
    """Read something that has been kept from its begin on, and is text if it is broken."""
    try:
        yield from body(source, calls)
    except (Broken, RecursionError):
        yield from calls.broken(source)
    source.release()


def nothing(source: Source, calls: Calls) -> Steps[None]:
    """Behind a mark that means nothing itself."""
    yield from ()


def closing(source: Source, calls: Calls) -> Steps[None]:
    """Behind a mark that ends calls, and is text where there was none."""
    if not calls.closed:
        raise Broken
    yield from ()


def check_object(text: str) -> None:
    """Raises Broken if a text is no JSON object."""
    if not isinstance(loaded(text), dict):
        raise Broken


def loaded(text: str) -> Any:
    """What a JSON text says. Raises Broken if it is none."""
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise Broken from error


def _refuse(constant: str) -> None:
    """Python reads NaN and infinities, which are no JSON."""
    raise Broken
