"""The two clients: one HTTP connection a call. Knows neither arguments nor answers, only how they travel."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Generator, Iterator
from contextlib import aclosing, asynccontextmanager, closing, contextmanager
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel

from text_generation.answers import ChunkReader, EventReader, TokenReader, read_answer, read_error
from text_generation.chat import Chats
from text_generation.chat_types import ChatComplete, ChatCompletionChunk, ChatRequest, Completion, CompletionRequest
from text_generation.completions import Completions
from text_generation.endpoint import CHAT, COMPLETION, NATIVE, Endpoint
from text_generation.generation import Generation
from text_generation.retries import Attempts
from text_generation.types import Request, Response, StreamResponse

M = TypeVar("M", bound=BaseModel)


class Client(
    Endpoint,
    Generation[Response, Generator[StreamResponse]],
    Chats[ChatComplete, Generator[ChatCompletionChunk]],
    Completions[Completion, Generator[Completion]],
):
    """Generates text on a server, waiting for it.

    >>> client = Client("http://127.0.0.1:3000")
    >>> client.generate("Why is the sky blue?").generated_text
    """

    def _answer(self, request: Request) -> Response:
        return self._whole(NATIVE, request, Response)

    def _stream(self, request: Request) -> Generator[StreamResponse]:
        return self._events(NATIVE, request, TokenReader())

    def _chat(self, request: ChatRequest) -> ChatComplete:
        return self._whole(CHAT, request, ChatComplete)

    def _chat_stream(self, request: ChatRequest) -> Generator[ChatCompletionChunk]:
        return self._events(CHAT, request, ChunkReader(ChatCompletionChunk))

    def _completion(self, request: CompletionRequest) -> Completion:
        return self._whole(COMPLETION, request, Completion)

    def _completion_stream(self, request: CompletionRequest) -> Generator[Completion]:
        return self._events(COMPLETION, request, ChunkReader(Completion))

    def _whole(self, path: str, request: BaseModel, model: type[M]) -> M:
        with self._sent(path, request) as reply:
            reply.read()
            return read_answer(model, reply.status_code, reply.text)

    def _events(self, path: str, request: BaseModel, reader: EventReader[M]) -> Generator[M]:
        with self._sent(path, request) as reply:
            if reply.status_code != 200:
                reply.read()
                raise read_error(reply.status_code, reply.text)
            for chunk in reply.iter_bytes():
                yield from reader.feed(chunk)
        reader.close()

    @contextmanager
    def _sent(self, path: str, request: BaseModel) -> Iterator[httpx.Response]:
        """The first answer that is not to be waited for, or the last one; its body is not read yet."""
        attempts = Attempts(self.retries)
        with httpx.Client(**self._connection()) as connection:
            while True:
                try:
                    reply = connection.send(connection.build_request(**self._message(path, request)), stream=True)
                except httpx.TransportError as error:
                    if (pause_s := attempts.after_error(error)) is None:
                        raise
                else:
                    with closing(reply):
                        if (pause_s := attempts.after_status(reply.status_code, reply.headers)) is None:
                            yield reply
                            return
                time.sleep(pause_s)


class AsyncClient(
    Endpoint,
    Generation[Coroutine[Any, Any, Response], AsyncGenerator[StreamResponse]],
    Chats[Coroutine[Any, Any, ChatComplete], Coroutine[Any, Any, AsyncGenerator[ChatCompletionChunk]]],
    Completions[Coroutine[Any, Any, Completion], Coroutine[Any, Any, AsyncGenerator[Completion]]],
):
    """Generates text on a server, in an event loop.

    >>> client = AsyncClient("http://127.0.0.1:3000")
    >>> (await client.generate("Why is the sky blue?")).generated_text
    """

    async def _answer(self, request: Request) -> Response:
        return await self._whole(NATIVE, request, Response)

    def _stream(self, request: Request) -> AsyncGenerator[StreamResponse]:
        return self._events(NATIVE, request, TokenReader())

    async def _chat(self, request: ChatRequest) -> ChatComplete:
        return await self._whole(CHAT, request, ChatComplete)

    async def _chat_stream(self, request: ChatRequest) -> AsyncGenerator[ChatCompletionChunk]:
        return self._events(CHAT, request, ChunkReader(ChatCompletionChunk))

    async def _completion(self, request: CompletionRequest) -> Completion:
        return await self._whole(COMPLETION, request, Completion)

    async def _completion_stream(self, request: CompletionRequest) -> AsyncGenerator[Completion]:
        return self._events(COMPLETION, request, ChunkReader(Completion))

    async def _whole(self, path: str, request: BaseModel, model: type[M]) -> M:
        async with self._sent(path, request) as reply:
            await reply.aread()
            return read_answer(model, reply.status_code, reply.text)

    async def _events(self, path: str, request: BaseModel, reader: EventReader[M]) -> AsyncGenerator[M]:
        async with self._sent(path, request) as reply:
            if reply.status_code != 200:
                await reply.aread()
                raise read_error(reply.status_code, reply.text)
            async for chunk in reply.aiter_bytes():
                for event in reader.feed(chunk):
                    yield event
        reader.close()

    @asynccontextmanager
    async def _sent(self, path: str, request: BaseModel) -> AsyncIterator[httpx.Response]:
        """The first answer that is not to be waited for, or the last one; its body is not read yet."""
        attempts = Attempts(self.retries)
        async with httpx.AsyncClient(**self._connection()) as connection:
            while True:
                try:
                    reply = await connection.send(connection.build_request(**self._message(path, request)), stream=True)
                except httpx.TransportError as error:
                    if (pause_s := attempts.after_error(error)) is None:
                        raise
                else:
                    async with aclosing(reply):
                        if (pause_s := attempts.after_status(reply.status_code, reply.headers)) is None:
                            yield reply
                            return
                await asyncio.sleep(pause_s)
