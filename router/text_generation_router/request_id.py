"""The name of every HTTP request: in its answer and in all log lines about it. Knows no routes."""

import re
import uuid
from collections.abc import Awaitable

from loguru import logger
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from text_generation_router.streaming import BODIES

HEADER = b"x-request-id"

_USABLE = re.compile(rb"[!-~]{1,128}")
"""What is taken of a client: it goes into log lines and back into a header."""


class RequestIds:
    """Takes `x-request-id` from a client, or makes one, and answers with it; outermost, so of every answer.

    Log lines written meanwhile have it as `request_id`, those on an error that nobody has caught among them, and so has
    the scope.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on."""
        given = next((value for name, value in scope.get("headers", ()) if name == HEADER), b"")
        request_id = given if _USABLE.fullmatch(given) else uuid.uuid4().hex.encode()

        scope["request_id"] = request_id.decode()

        def answer(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (HEADER, request_id)]
            return send(message)

        scope[BODIES] = send
        with logger.contextualize(request_id=scope["request_id"]):
            try:
                await self._app(scope, receive, answer)
            except Exception as error:
                logger.opt(exception=error).error("A fault of the router's own")
