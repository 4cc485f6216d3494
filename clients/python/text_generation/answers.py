"""Reads what a server answers: whole bodies and streams of events. Knows no sockets."""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, Generic, TypeVar

from pydantic import BaseModel

from text_generation.chat_types import Answer
from text_generation.errors import IncompleteGenerationError, TextGenerationError, UnknownError, parse_error
from text_generation.events import EventDecoder
from text_generation.types import StreamResponse

M = TypeVar("M", bound=BaseModel)
E = TypeVar("E", bound=BaseModel)
ChunkT = TypeVar("ChunkT", bound=Answer)

_END = "[DONE]"


def read_answer(model: type[M], status: int, body: str) -> M:
    """The answer in a body: an object, or a list of one. Raises the error that it holds instead."""
    if status != 200:
        raise read_error(status, body)
    payload = _parse(body)
    return model.model_validate(payload[0] if isinstance(payload, list) else payload)


def read_error(status: int, body: str) -> TextGenerationError:
    """The error of a body that need not be JSON: proxies, and older servers on malformed requests, send plain text."""
    try:
        payload = json.loads(body)
    except ValueError:
        payload = body or f"status {status} without a body"
    return parse_error(status, payload if isinstance(payload, dict) else {"error": payload})


class EventReader(ABC, Generic[E]):
    """Turns the bytes of one stream into its events, and knows at the end whether the stream was whole."""

    def __init__(self) -> None:
        self._events = EventDecoder()
        self._finished = False

    def feed(self, chunk: bytes) -> Iterator[E]:
        """The events that these bytes complete. Raises the error of an error event."""
        for data in self._events.feed(chunk):
            if data.strip() == _END:
                self._ended()
            else:
                yield self._event(_parse(data))

    def close(self) -> None:
        """Raises IncompleteGenerationError where the last event never came."""
        if not self._finished:
            raise IncompleteGenerationError("the stream ended before its last token")

    @abstractmethod
    def _event(self, payload: Any) -> E:
        """What an event holds."""

    def _ended(self) -> None:
        """The stream says that it ends."""


class TokenReader(EventReader[StreamResponse]):
    """Of the native API, whose last token brings the whole text."""

    def _event(self, payload: Any) -> StreamResponse:
        if "token" not in payload:
            raise parse_error(200, payload)
        event = StreamResponse.model_validate(payload)
        self._finished = event.generated_text is not None
        return event


class ChunkReader(EventReader[ChunkT]):
    """Of OpenAI's API, whose streams say when they end."""

    def __init__(self, model: type[ChunkT]) -> None:
        super().__init__()
        self._model = model

    def _event(self, payload: Any) -> ChunkT:
        if "choices" not in payload:
            raise parse_error(200, payload)
        return self._model.model_validate(payload)

    def _ended(self) -> None:
        self._finished = True


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise UnknownError(f"expected JSON, the server sent {text[:200]!r}") from error
