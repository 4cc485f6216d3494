"""A response as JSON, whole and as events. Knows no HTTP.

Source: OpenAI's API reference, "Responses" and "Streaming events".
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from text_generation_router.chat.events import Content
from text_generation_router.errors import ApiError
from text_generation_router.responses import ErrorForm
from text_generation_router.routes.asked import Choice, End, Step, Tops, Usage
from text_generation_router.routes.openai.errors import RESPONSES_ERRORS
from text_generation_router.routes.openai.responses.objects import (
    COMPLETED,
    FAILED,
    INCOMPLETE,
    Object,
    output,
    response,
    usage,
)
from text_generation_router.routes.openai.responses.schemas import ResponsesBody
from text_generation_router.routes.openai.responses.stream import Items
from text_generation_router.routes.openai.shapes import chat_logprobs, worded
from text_generation_router.sse import NAMED
from text_generation_router.types import FinishReason, Token


class ResponseWriter:
    """One request's response. See `Writer`."""

    keeps_stops = False
    tells_reasoning = True
    framing = NAMED

    def __init__(self, body: ResponsesBody, model: str) -> None:
        self.errors = ErrorForm(RESPONSES_ERRORS.body, self._failed)
        self._response = response(body, model)
        self._logprobs = body.logprobs
        self._events = 0
        self._items = Items(self._event)
        self._end: End | None = None

    def whole(self, choices: Sequence[Choice], usage: Usage) -> str:
        """See `Writer`."""
        (choice,) = choices
        status, logprobs = _status(choice.end), self._told(choice.tokens, choice.top_tokens)
        return _json(self._ended(status, output(choice.message, status, json.loads(logprobs)), usage))

    def begin(self, prompt_tokens: int) -> Sequence[str]:
        """See `Writer`."""
        return [self._whole_event(name, self._response) for name in ("created", "in_progress")]

    def step(self, index: int, step: Step) -> Sequence[str]:
        """See `Writer`."""
        self._end = step.end or self._end
        return list(self._step(step))

    def end(self, usage: Usage) -> Sequence[str]:
        """See `Writer`."""
        status = _status(self._end)
        empty = () if self._items.begun else self._items.events(Content(""), "[]")  # there is one item at least
        events = [*empty, *self._items.closed(status)]
        return [*events, self._whole_event(status, self._ended(status, self._items.done, usage))]

    def _step(self, step: Step) -> Iterator[str]:
        logprobs = self._told(step.tokens, step.top_tokens)
        for event in step.events:
            yield from self._items.events(event, logprobs)
            logprobs = "[]"  # with the first event of a step

    def _failed(self, error: ApiError) -> Sequence[str]:
        told = json.loads(RESPONSES_ERRORS.body(error))["error"]
        failed = {**self._response, "status": FAILED, "error": {"code": told["code"], "message": told["message"]}}
        return [self._whole_event(FAILED, failed)]

    def _ended(self, status: str, items: list[Object], used: Usage) -> Object:
        details = {"reason": "max_output_tokens"} if status == INCOMPLETE else None
        ended = {"status": status, "incomplete_details": details, "output": items, "usage": usage(used)}
        return {**self._response, **ended}

    def _whole_event(self, name: str, response: Object) -> str:
        return self._event(f"response.{name}", f'"response":{_json(response)}')

    def _event(self, kind: str, members: str) -> str:
        number = self._events
        self._events += 1
        return f'{{"type":"{kind}","sequence_number":{number},{members}}}'

    def _told(self, tokens: Sequence[Token], top_tokens: Tops) -> str:
        return chat_logprobs(*worded(tokens, top_tokens)) if self._logprobs else "[]"


def _status(end: End | None) -> str:
    return INCOMPLETE if end is not None and end.reason is FinishReason.LENGTH else COMPLETED


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
