"""The items of a streamed response, each from its first event to its last. Knows nothing of the response around."""

import json
from collections.abc import Callable, Iterator
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
                yield from self._text(_Message, text, logprobs)
            case Reasoning(text):
                yield from self._text(_Reasoning, text, "")
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

    def _text(self, kind: "type[_Text]", text: str, logprobs: str) -> Iterator[str]:
        item = self._open
        if not isinstance(item, kind):
            yield from self.closed()
            item = kind(self._write, len(self.done))
            yield from self._opened(item)
        yield item.delta(text, logprobs)

    def _opened(self, item: "_Text | _Call") -> Iterator[str]:
        self._open = item
        yield from item.begin()


class _Item:
    """An item at its place in the output."""

    PREFIX: str

    def __init__(self, write: Write, index: int) -> None:
        self._write = write
        self._id = new_id(self.PREFIX)
        self._place = f'"output_index":{index}'
        self._where = f'"item_id":"{self._id}",{self._place}'

    def item(self, status: str) -> Object:
        """The item as it is now."""
        raise NotImplementedError

    def _told(self, event: str, status: str) -> str:
        return self._write(f"response.output_item.{event}", f'{self._place},"item":{_json(self.item(status))}')


class _Text(_Item):
    """An item that is one part of text."""

    EVENT: str

    def __init__(self, write: Write, index: int) -> None:
        super().__init__(write, index)
        self._where += ',"content_index":0'
        self._texts: list[str] = []
        self._logprobs: list[Any] = []

    def begin(self) -> Iterator[str]:
        yield self._told("added", IN_PROGRESS)
        yield self._write("response.content_part.added", f'{self._where},"part":{_json(self.part())}')

    def delta(self, text: str, logprobs: str) -> str:
        """A piece. logprobs: empty where there are none by their nature."""
        self._texts.append(text)
        if not logprobs:
            return self._write(f"response.{self.EVENT}.delta", f'{self._where},"delta":{quote(text)}')
        if logprobs != "[]":
            self._logprobs += json.loads(logprobs)
        rest = f'"delta":{quote(text)},"logprobs":{logprobs}'
        return self._write(f"response.{self.EVENT}.delta", f"{self._where},{rest}")

    def end(self, status: str) -> Iterator[str]:
        part = self.part()
        told = {name: part[name] for name in ("text", "logprobs") if name in part}
        yield self._write(f"response.{self.EVENT}.done", f"{self._where},{_json(told)[1:-1]}")
        yield self._write("response.content_part.done", f'{self._where},"part":{_json(part)}')
        yield self._told("done", status)

    def part(self) -> Object:
        raise NotImplementedError

    def _parts(self) -> list[Object]:
        """None before there is anything in it."""
        return [self.part()] if self._texts else []


class _Message(_Text):
    PREFIX, EVENT = "msg", "output_text"

    def part(self) -> Object:
        return text_part("".join(self._texts), self._logprobs)

    def item(self, status: str) -> Object:
        return message_item(self._id, status, self._parts())


class _Reasoning(_Text):
    PREFIX, EVENT = "rs", "reasoning_text"

    def part(self) -> Object:
        return reasoning_part("".join(self._texts))

    def item(self, status: str) -> Object:
        return reasoning_item(self._id, status, self._parts())


class _Call(_Item):
    PREFIX = "fc"

    def __init__(self, write: Write, index: int, call_id: str, name: str) -> None:
        super().__init__(write, index)
        self._call_id = call_id
        self._name = name
        self._arguments = ""

    def begin(self) -> Iterator[str]:
        yield self._told("added", IN_PROGRESS)

    def delta(self, text: str) -> str:
        """A piece of its arguments."""
        self._arguments += text
        return self._write("response.function_call_arguments.delta", f'{self._where},"delta":{quote(text)}')

    def end(self, status: str) -> Iterator[str]:
        told = f'"name":{quote(self._name)},"arguments":{quote(self._arguments)}'
        yield self._write("response.function_call_arguments.done", f"{self._where},{told}")
        yield self._told("done", status)

    def item(self, status: str) -> Object:
        return call_item(self._id, status, self._call_id, self._name, self._arguments)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
