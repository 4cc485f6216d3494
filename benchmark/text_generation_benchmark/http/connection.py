"""Connections that are kept, one for each request under way. Knows neither requests nor answers."""

import asyncio
import ssl
from collections.abc import Callable
from typing import cast

from text_generation_benchmark.http.targets import Target
from text_generation_benchmark.http.wire import NotHttp, Response

OnBody = Callable[[Response, bytes], None]


class Stale(ConnectionError):
    """The server hung up before it had said anything."""


class Connection(asyncio.Protocol):
    """A connection that carries one exchange at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._done: asyncio.Future[Response] | None = None
        self._response = Response()
        self._on_body: OnBody | None = None

    @property
    def open(self) -> bool:
        """Whether it can be used, as far as is known."""
        return self._transport is not None and not self._transport.is_closing()

    async def exchange(self, request: bytes, on_body: OnBody) -> Response:
        """The whole answer, whose body is handed on as it comes. Raises ConnectionError."""
        if self._transport is None or self._transport.is_closing():
            raise Stale("the server hung up")
        self._response, self._on_body = Response(), on_body
        self._done = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._done

    def close(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        if self._done is None or self._done.done() or self._on_body is None:
            self.close()  # nothing was asked
            return
        try:
            if body := self._response.feed(data):
                self._on_body(self._response, body)
        except NotHttp as error:
            self._done.set_exception(ConnectionError(f"this is not an HTTP/1.1 server: {error}"))
            self.close()
            return
        if self._response.complete:
            self._done.set_result(self._response)

    def connection_lost(self, error: Exception | None) -> None:
        """Called by the loop."""
        self._transport = None
        if self._done is None or self._done.done():
            return
        self._response.hang_up()
        if self._response.complete:
            self._done.set_result(self._response)
        elif self._response.status == 0:
            self._done.set_exception(Stale("the server hung up without an answer"))
        else:
            self._done.set_exception(ConnectionError("the server hung up in the middle of an answer"))


class Pool:
    """As many connections to a server as there are exchanges at a time."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._tls = ssl.create_default_context() if target.tls else None
        self._idle: list[Connection] = []

    async def exchange(self, request: bytes, on_body: OnBody) -> Response:
        """The answer over a connection of its own. Raises OSError.

        A kept connection that turns out to be closed is replaced: servers close those that are idle for long.
        """
        while True:
            kept = self._kept()
            connection = kept or await self._connect()
            try:
                response = await connection.exchange(request, on_body)
            except BaseException as error:
                connection.close()
                if kept is None or not isinstance(error, Stale):
                    raise
                continue
            if response.reusable:
                self._idle.append(connection)
            else:
                connection.close()
            return response

    def close(self) -> None:
        """Hang up all that are idle."""
        while self._idle:
            self._idle.pop().close()

    def _kept(self) -> Connection | None:
        while self._idle:
            if (connection := self._idle.pop()).open:
                return connection
        return None

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(Connection, self._target.host, self._target.port, ssl=self._tls)
        return connection
