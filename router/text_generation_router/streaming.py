"""Answers that last: streams of events, and noticing that the client has gone. Knows nothing of what is sent."""

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Mapping, Sequence
from contextlib import AbstractContextManager, aclosing
from typing import Any, TypeVar

from starlette.types import Receive, Scope, Send

from text_generation_router.errors import ApiError, ClientGone
from text_generation_router.responses import NATIVE_ERRORS, ErrorForm, json_error, unrouted
from text_generation_router.sse import PLAIN, Framing

T = TypeVar("T")

Events = Sequence[str]
"""The JSON texts of a step."""

BODIES = "text_generation_router.bodies"
"""Where in a scope there may be what sends an answer's body to the HTTP server itself."""

_END = {"type": "http.response.body", "body": b"", "more_body": False}


class EventStream:
    """An ASGI answer that sends the JSON texts of `events` as server-sent events, those of one step together.

    The status is decided by what comes first: an error is answered with its own status and a JSON body; a text, or
    keep_alive_s seconds of silence, start the stream, in which a later error is the last event. It is sent within
    `whole`, which is left by every error, sent or not. form: how errors are told. framing: how events are written.
    """

    def __init__(
        self,
        events: AsyncGenerator[Events, None],
        headers: Mapping[str, str],
        keep_alive_s: float,
        whole: AbstractContextManager[object],
        form: ErrorForm = NATIVE_ERRORS,
        framing: Framing = PLAIN,
    ) -> None:
        self._events = events
        self._headers = headers
        self._keep_alive_s = keep_alive_s
        self._whole = whole
        self._form = form
        self._framing = framing
        self._started = False
        self._sent_at = 0.0
        self._starting = asyncio.Lock()
        self._clock = asyncio.get_running_loop().time
        self._send_start: Send
        self._send_body: Send

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the events end, or the client goes."""
        # Layers between look at how an answer starts, and would pass on each of its pieces.
        self._send_start, self._send_body = send, scope.get(BODIES, send)
        try:
            with self._whole:
                await until_disconnect(receive, self._run())
        except ApiError as error:
            if not self._started:
                await json_error(error, self._form)(scope, receive, send)

    async def _run(self) -> None:
        keep_alive = asyncio.ensure_future(self._keep_alive())
        try:
            frame = self._framing.event
            async with aclosing(self._events) as steps:
                async for events in steps:
                    if events:
                        await self._send(frame(events[0]) if len(events) == 1 else b"".join(map(frame, events)))
        except Exception as error:
            told = error if isinstance(error, ApiError) else unrouted(error)
            if self._started:
                for text in self._form.last_words(told.in_stream()):
                    await self._send(self._framing.event(text))
                await self._send_body(_END)
            raise
        finally:
            keep_alive.cancel()
        await self._send_body(_END)

    async def _keep_alive(self) -> None:
        """Fill every silence of `keep_alive_s`, so that proxies keep the connection."""
        clock = self._clock
        self._sent_at = clock()
        while True:
            await asyncio.sleep(self._sent_at + self._keep_alive_s - clock())
            if clock() >= self._sent_at + self._keep_alive_s:
                await self._send(self._framing.silence)

    async def _send(self, chunk: bytes) -> None:
        self._sent_at = self._clock()
        if not self._started or self._starting.locked():
            async with self._starting:  # who comes while the start waits for a slow client waits too
                if not self._started:
                    self._started = True
                    headers = [(name.encode(), value.encode()) for name, value in self._headers.items()]
                    await self._send_start({"type": "http.response.start", "status": 200, "headers": headers})
        await self._send_body({"type": "http.response.body", "body": chunk, "more_body": True})


async def until_disconnect(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`. The body must be read.

    Raises ClientGone, after cancelling `work`, if the client hangs up before.
    """
    task = asyncio.ensure_future(work)
    watch = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait((task, watch), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGone
        return task.result()
    finally:
        task.cancel()
        watch.cancel()
        await asyncio.wait((task, watch))  # what they hold is given back before this returns


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
