"""The two clients: one HTTP connection a call. Knows neither arguments nor answers, only how they travel."""

import ssl
from collections.abc import AsyncGenerator, Coroutine, Generator
from dataclasses import dataclass
from typing import Any

import httpx

from text_generation.answers import EventReader, read_answer, read_error
from text_generation.generation import Generation
from text_generation.types import Request, Response, StreamResponse


@dataclass
class _Endpoint:
    """A server, and what every request to it carries.

    base_url: where requests are posted. timeout: seconds to wait for a connection, and for the next bytes.
    """

    base_url: str
    headers: dict[str, str] | None = None
    cookies: dict[str, str] | None = None
    timeout: float = 10

    def __post_init__(self) -> None:
        # Reading the certificates takes longer than a request, so once for all calls, and not for plain HTTP.
        self._verify: ssl.SSLContext | bool = self.base_url.startswith("https") and httpx.create_ssl_context()

    def _connection(self) -> dict[str, Any]:
        """Arguments of both kinds of httpx client."""
        return {
            "headers": self.headers,
            "cookies": self.cookies,
            "timeout": self.timeout,
            "verify": self._verify,
            "follow_redirects": True,
        }


def _body(request: Request) -> dict[str, Any]:
    return request.model_dump(mode="json", exclude_none=True)


class Client(_Endpoint, Generation[Response, Generator[StreamResponse]]):
    """Generates text on a server, waiting for it.

    >>> client = Client("http://127.0.0.1:3000")
    >>> client.generate("Why is the sky blue?").generated_text
    """

    def _answer(self, request: Request) -> Response:
        with httpx.Client(**self._connection()) as connection:
            reply = connection.post(self.base_url, json=_body(request))
        return read_answer(reply.status_code, reply.text)

    def _stream(self, request: Request) -> Generator[StreamResponse]:
        reader = EventReader()
        with (
            httpx.Client(**self._connection()) as connection,
            connection.stream("POST", self.base_url, json=_body(request)) as reply,
        ):
            if reply.status_code != 200:
                reply.read()
                raise read_error(reply.status_code, reply.text)
            for chunk in reply.iter_bytes():
                yield from reader.feed(chunk)
        reader.close()


class AsyncClient(_Endpoint, Generation[Coroutine[Any, Any, Response], AsyncGenerator[StreamResponse]]):
    """Generates text on a server, in an event loop.

    >>> client = AsyncClient("http://127.0.0.1:3000")
    >>> (await client.generate("Why is the sky blue?")).generated_text
    """

    async def _answer(self, request: Request) -> Response:
        async with httpx.AsyncClient(**self._connection()) as connection:
            reply = await connection.post(self.base_url, json=_body(request))
        return read_answer(reply.status_code, reply.text)

    async def _stream(self, request: Request) -> AsyncGenerator[StreamResponse]:
        reader = EventReader()
        async with (
            httpx.AsyncClient(**self._connection()) as connection,
            connection.stream("POST", self.base_url, json=_body(request)) as reply,
        ):
            if reply.status_code != 200:
                await reply.aread()
                raise read_error(reply.status_code, reply.text)
            async for chunk in reply.aiter_bytes():
                for event in reader.feed(chunk):
                    yield event
        reader.close()
