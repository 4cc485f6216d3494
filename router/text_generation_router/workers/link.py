"""Calls and notes between two processes over a Unix socket, in order. Knows nothing of what is said.

All that is said in one turn of the loop goes in one write. Messages are pickled: at both ends is this program, and
nobody else can get at the socket, which has no name.
"""

import asyncio
import pickle
import socket
import struct
from collections.abc import Iterable
from itertools import count
from typing import Any, Self, cast

from loguru import logger

from text_generation_router.errors import ApiError, StartError

_HEAD = struct.Struct(">I")
_Message = tuple[str, tuple[Any, ...], int | None]
"""A name, arguments, and the number of a call: None for a note."""

_ANSWER = ""


class LinkLost(Exception):
    """The other process is gone."""


class Link(asyncio.Protocol):
    """One end. handler: what is said is its method `on_NAME`, of which calls return the result, or what to await.

    lost: done when the other end is gone.
    """

    def __init__(self, handler: object) -> None:
        loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[None] = loop.create_future()
        self._handler = handler
        self._loop = loop
        self._transport: asyncio.Transport
        self._unsent: list[_Message] = []
        self._received = bytearray()
        self._calls: dict[int, asyncio.Future[Any]] = {}
        self._numbers = count()
        self._answering: set[asyncio.Task[None]] = set()

    @classmethod
    async def over(cls, end: socket.socket, handler: object) -> Self:
        """A link over a connected socket, which it takes."""
        _, link = await asyncio.get_running_loop().create_unix_connection(lambda: cls(handler), sock=end)
        return link

    def note(self, name: str, *arguments: Any) -> None:
        """Say something. Nobody hears it if the other end is gone."""
        self._send((name, arguments, None))

    def call(self, name: str, *arguments: Any) -> asyncio.Future[Any]:
        """Ask for something. The result raises what the other end raises, or LinkLost."""
        answer = self._loop.create_future()
        if self.lost.done():
            answer.set_exception(LinkLost())
            return answer
        number = next(self._numbers)
        self._calls[number] = answer
        self._send((name, arguments, number))
        return answer

    def close(self) -> None:
        """Hang up."""
        self._transport.close()

    # -- see asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        received = self._received
        received += data
        start = 0
        while len(received) - start >= _HEAD.size:
            end = start + _HEAD.size + _HEAD.unpack_from(received, start)[0]
            if len(received) < end:
                break
            with memoryview(received) as view:
                messages = pickle.loads(view[start + _HEAD.size : end])
            start = end
            self._take(messages)
        del received[:start]

    def connection_lost(self, _: Exception | None) -> None:
        if not self.lost.done():
            self.lost.set_result(None)
        for answer in self._calls.values():
            if not answer.done():
                answer.set_exception(LinkLost())
        self._calls.clear()

    # -- what is said

    def _send(self, message: _Message) -> None:
        if self.lost.done():
            return
        if not self._unsent:
            self._loop.call_soon(self._flush)
        self._unsent.append(message)

    def _flush(self) -> None:
        messages, self._unsent = self._unsent, []
        data = pickle.dumps(messages, pickle.HIGHEST_PROTOCOL)
        self._transport.write(_HEAD.pack(len(data)) + data)

    def _take(self, messages: Iterable[_Message]) -> None:
        for name, arguments, number in messages:
            if name == _ANSWER:
                self._answered(*arguments)
            elif number is None:
                getattr(self._handler, f"on_{name}")(*arguments)
            else:
                task = self._loop.create_task(self._answer(name, arguments, number))
                self._answering.add(task)
                task.add_done_callback(self._answering.discard)

    async def _answer(self, name: str, arguments: tuple[Any, ...], number: int) -> None:
        try:
            result = getattr(self._handler, f"on_{name}")(*arguments)
            result = await result if asyncio.iscoroutine(result) else result
        except (ApiError, StartError) as error:
            self.note(_ANSWER, number, None, error)
        except Exception as error:
            logger.opt(exception=error).error("A call of another process failed")
            self.note(_ANSWER, number, None, ApiError("Internal server error"))
        else:
            self.note(_ANSWER, number, result, None)

    def _answered(self, number: int, result: Any, error: Exception | None) -> None:
        answer = self._calls.pop(number)
        if answer.done():
            return
        if error is None:
            answer.set_result(result)
        else:
            answer.set_exception(error)
