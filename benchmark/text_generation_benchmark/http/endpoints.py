"""What each kind of endpoint is sent, and what its events say. Knows neither connections nor clocks.

Sources: text-generation-inference's documentation of `/generate_stream`; OpenAI's of the completions and chat APIs.
"""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Protocol


class Request(NamedTuple):
    """A prompt, and how many tokens its answer shall have. before: a chat's earlier prompts and answers, in turns."""

    prompt: str
    answer_tokens: int
    before: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Wishes:
    """What all requests have in common.

    parameters: added to what a request asks for. ignore_eos: ask servers that can for answers of the whole length.
    """

    model: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    ignore_eos: bool = True


class Reading(NamedTuple):
    """What an event says: it carries text, it is the answer's last with text, and counts of tokens where it has any."""

    token: bool
    last: bool
    text: str = ""
    prompt_tokens: int | None = None
    answer_tokens: int | None = None


class Endpoint(Protocol):
    """A kind of endpoint. openai: it wants a model's name, which `/v1/models` tells."""

    path: ClassVar[str]
    openai: ClassVar[bool]

    def body(self, request: Request, wishes: Wishes) -> dict[str, Any]:
        """The JSON of a request for a stream."""

    def read(self, event: Mapping[str, Any]) -> Reading:
        """An event that is no error."""


class GenerateStream:
    """text-generation-inference's own API: an event for every token. No request can make it ignore an answer's end."""

    path: ClassVar[str] = "/generate_stream"
    openai: ClassVar[bool] = False

    def body(self, request: Request, wishes: Wishes) -> dict[str, Any]:
        """With details, for the counts in the last event."""
        parameters = {"max_new_tokens": request.answer_tokens, "details": True, **wishes.parameters}
        return {"inputs": _as_one(request), "parameters": parameters}

    def read(self, event: Mapping[str, Any]) -> Reading:
        """The last event has the whole text, and details."""
        token, text = "token" in event, (event.get("token") or {}).get("text", "")
        if event.get("generated_text") is None:
            return Reading(token, False, text)
        details = event.get("details") or {}
        return Reading(token, True, text, details.get("input_length"), details.get("generated_tokens"))


class _OpenAI(ABC):
    """What the two OpenAI formats share: usage at the end, events with choices."""

    openai: ClassVar[bool] = True

    def body(self, request: Request, wishes: Wishes) -> dict[str, Any]:
        """Greedy, and with usage."""
        body = {
            "model": wishes.model,
            **self._prompt(request),
            "max_tokens": request.answer_tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        return body | ({"ignore_eos": True} if wishes.ignore_eos else {}) | dict(wishes.parameters)

    def read(self, event: Mapping[str, Any]) -> Reading:
        """One choice or none; usage may come in every event, or in one without choices."""
        usage, choices = event.get("usage") or {}, event.get("choices")
        counts = usage.get("prompt_tokens"), usage.get("completion_tokens")
        if not choices:
            return Reading(False, False, "", *counts)
        last = bool(choices[0].get("finish_reason"))
        return Reading(self._carries_text(choices[0], last), last, self._text(choices[0]), *counts)

    @abstractmethod
    def _prompt(self, request: Request) -> dict[str, Any]:
        """The part of the body that holds the prompt."""

    @abstractmethod
    def _carries_text(self, choice: Mapping[str, Any], last: bool) -> bool:
        """Whether a choice stands for a token."""

    @abstractmethod
    def _text(self, choice: Mapping[str, Any]) -> str:
        """What it adds to the answer."""


class Completions(_OpenAI):
    """OpenAI's completions."""

    path: ClassVar[str] = "/v1/completions"

    def _prompt(self, request: Request) -> dict[str, Any]:
        return {"prompt": _as_one(request)}

    def _carries_text(self, choice: Mapping[str, Any], last: bool) -> bool:
        """A token may be half a character, so without text; an end without text is none."""
        return bool(choice.get("text")) or not last

    def _text(self, choice: Mapping[str, Any]) -> str:
        return choice.get("text") or ""


class ChatCompletions(_OpenAI):
    """OpenAI's chat: a user's message, behind those of earlier turns."""

    path: ClassVar[str] = "/v1/chat/completions"

    def _prompt(self, request: Request) -> dict[str, Any]:
        roles = itertools.cycle(("user", "assistant"))
        return {
            "messages": [
                {"role": role, "content": text}
                for role, text in zip(roles, (*request.before, request.prompt), strict=False)
            ]
        }

    def _carries_text(self, choice: Mapping[str, Any], last: bool) -> bool:
        """Not every server opens and ends with empty messages, so that empty ones cannot be counted as tokens."""
        delta = choice.get("delta") or {}
        return any(delta.get(key) for key in ("content", "reasoning_content", "reasoning", "tool_calls"))

    def _text(self, choice: Mapping[str, Any]) -> str:
        return (choice.get("delta") or {}).get("content") or ""


ENDPOINTS: tuple[Endpoint, ...] = (GenerateStream(), Completions(), ChatCompletions())
"""Every kind; the first is that of addresses without a path."""


def _as_one(request: Request) -> str:
    """A chat for endpoints that know none: one text."""
    return "".join((*request.before, request.prompt))


def error_of(event: Mapping[str, Any]) -> str | None:
    """The message of an event, or of an answer with another status than 200, that reports an error."""
    error = event.get("error")
    if isinstance(error, Mapping):
        return str(error.get("message") or dict(error))
    return None if error is None else str(error)
