"""The items of a streamed response, each from its first event to its last. Knows nothing of the response around."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from json.encoder import encode_basestring as quote
from typing import Any

from text_generation_router.chat.events import CallArguments, CallBegin, CallEnd, Content, Event, Reasoning
from text_generation_router.routes.openai.responses.objects import (
    COMPLETED,
    IN_PROGRESS,
    Object,
    call_item,
    message_item,
    new_id,
    reasoning_item,
    reasoning_part,
    text_part,
)

Write = Callable[[str, str], str]
"""Makes an event of its type, and its members as JSON."""


class Items:
    """All items of a response. done: those that are whole, for the response's end."""

    def __init__(self, write: Write) -> None:
        self.done: list[Object] = []
        self._write = write
        self._open: _Text | _Call | None = None

    @property
    def begun(self) -> bool:
        """Whether there is one."""
        return bool(self.done) or self._open is not None

    def events(self, event: Event, logprobs: str) -> Iterator[str]:
        """What an event of the model becomes. logprobs: a list of its tokens' as JSON."""
        match event:
            case Content(text):
                yield from self._text(MESSAGE, text, logprobs)
            case Reasoning(text):
                yield from self._text(REASONING, text, "")
            case CallBegin(id=id, name=name):
                yield from self.closed()
                yield from self._opened(_Call(self._write, len(self.done), id, name))
            case CallArguments(text=text) if isinstance(self._open, _Call):
                yield self._open.delta(text)
            case CallEnd():
                yield from self.closed()

    def closed(self, status: str = COMPLETED) -> Iterator[str]:
        """The end of the item that is open, if one is."""
        if self._open is not None:
            yield from self._open.end(status)
            self.done.append(self._open.item(status))
            self._open = None

    def _text(self, kind: "TextKind", text: str, logprobs: str) -> Iterator[str]:
        item = self._open
        if not isinstance(item, _Text) or item.kind is not kind:
            yield from self.closed()
            item = _Text(self._write, len(self.done), kind)
            yield from self._opened(item)
        yield item.delta(text, logprobs)

    def _opened(self, item: "_Text | _Call") -> Iterator[str]:
        self._open = item
        yield from item.begin()


class _Place:
    """An item's place in the output, and its id."""

    def __init__(self, write: Write, index: int, prefix: str) -> None:
        self._write = write
        self._index = f'"output_index":{index}'
        self.id = new_id(prefix)
        self.where = f'"item_id":"{self.id}",{self._index}'

    def told(self, event: str, item: Object) -> str:
        """That the item as it is now has been added, or is done."""
        return self._write(f"response.output_item.{event}", f'{self._index},"item":{_json(item)}')


@dataclass(frozen=True, slots=True)
class TextKind:
    """An item that is one part of text. prefix: of its id. event: what its pieces are called.

    part: of a text and the log-probabilities of its tokens. item: of an id, a status and parts.
    """

    prefix: str
    event: str
    part: Callable[[str, list[Any]], Object]
    item: Callable[[str, str, list[Object]], Object]


MESSAGE = TextKind("msg", "output_text", text_part, message_item)
REASONING = TextKind("rs", "reasoning_text", lambda text, _: reasoning_part(text), reasoning_item)


class _Text:
    """An item of a kind."""

    def __init__(self, write: Write, index: int, kind: TextKind) -> None:
        self.kind = kind
        self._write = write
        self._place = _Place(write, index, kind.prefix)
        self._where = self._place.where + ',"content_index":0'
        self._texts: list[str] = []
        self._logprobs: list[Any] = []

    def begin(self) -> Iterator[str]:
        yield self._place.told("added", self.item(IN_PROGRESS))
        yield self._write("response.content_part.added", f'{self._where},"part":{_json(self._part())}')

    def delta(self, text: str, logprobs: str) -> str:
        """A piece. logprobs: empty where there are none by their nature."""
        self._texts.append(text)
        if not logprobs:
            return self._write(f"response.{self.kind.event}.delta", f'{self._where},"delta":{quote(text)}')
        if logprobs != "[]":
            self._logprobs += json.loads(logprobs)
        rest = f'"delta":{quote(text)},"logprobs":{logprobs}'
        return self._write(f"response.{self.kind.event}.delta", f"{self._where},{rest}")

    def end(self, status: str) -> Iterator[str]:
        part = self._part()
        told = {name: part[name] for name in ("text", "logprobs") if name in part}
        yield self._write(f"response.{self.kind.event}.done", f"{self._where},{_json(told)[1:-1]}")
        yield self._write("response.content_part.done", f'{self._where},"part":{_json(part)}')
        yield self._place.told("done", self.item(status))

    def item(self, status: str) -> Object:
        """The item as it is now, without a part before there is anything in it."""
        return self.kind.item(self._place.id, status, [self._part()] if self._texts else [])

    def _part(self) -> Object:
        return self.kind.part("".join(self._texts), self._logprobs)


class _Call:
    """An item that is a call."""

    def __init__(self, write: Write, index: int, call_id: str, name: str) -> None:
        self._write = write
        self._place = _Place(write, index, "fc")
        self._call_id = call_id
        self._name = name
        self._arguments = ""

    def begin(self) -> Iterator[str]:
        yield self._place.told("added", self.item(IN_PROGRESS))

    def delta(self, text: str) -> str:
        """A piece of its arguments."""
        self._arguments += text
        told = f'{self._place.where},"delta":{quote(text)}'
        return self._write("response.function_call_arguments.delta", told)

    def end(self, status: str) -> Iterator[str]:
        told = f'"name":{quote(self._name)},"arguments":{quote(self._arguments)}'
        yield self._write("response.function_call_arguments.done", f"{self._place.where},{told}")
        yield self._place.told("done", self.item(status))

    def item(self, status: str) -> Object:
        """The item as it is now."""
        return call_item(self._place.id, status, self._call_id, self._name, self._arguments)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
