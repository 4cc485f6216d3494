"""Reads what a server answers: whole bodies and streams of tokens. Knows no sockets."""

import json
from collections.abc import Iterator
from typing import Any

from text_generation.errors import IncompleteGenerationError, TextGenerationError, UnknownError, parse_error
from text_generation.events import EventDecoder
from text_generation.types import Response, StreamResponse

_END = "[DONE]"


def read_answer(status: int, body: str) -> Response:
    """The answer in a body of `POST /`: an object, or a list of one. Raises the error that it holds instead."""
    if status != 200:
        raise read_error(status, body)
    payload = _parse(body)
    return Response.model_validate(payload[0] if isinstance(payload, list) else payload)


def read_error(status: int, body: str) -> TextGenerationError:
    """The error of a body that need not be JSON: proxies, and older servers on malformed requests, send plain text."""
    try:
        payload = json.loads(body)
    except ValueError:
        payload = body or f"status {status} without a body"
    return parse_error(status, payload if isinstance(payload, dict) else {"error": payload})


class EventReader:
    """Turns the bytes of one stream into its tokens, and knows at the end whether the stream was whole."""

    def __init__(self) -> None:
        self._events = EventDecoder()
        self._finished = False

    def feed(self, chunk: bytes) -> Iterator[StreamResponse]:
        """The tokens that these bytes complete. Raises the error of an error event."""
        for data in self._events.feed(chunk):
            if data.strip() != _END:
                yield self._token(data)

    def close(self) -> None:
        """Raises IncompleteGenerationError where the last token never came."""
        if not self._finished:
            raise IncompleteGenerationError("the stream ended before its last token")

    def _token(self, data: str) -> StreamResponse:
        payload = _parse(data)
        if "token" not in payload:
            raise parse_error(200, payload)
        event = StreamResponse.model_validate(payload)
        self._finished = event.generated_text is not None
        return event


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise UnknownError(f"expected JSON, the server sent {text[:200]!r}") from error
