"""Answers and chunks as the JSON of OpenAI's API, put together from strings: this runs for every token.

Knows chats from completions by their `Shape`, and no HTTP.
"""

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from json.encoder import encode_basestring as quote

from text_generation_router.chat.events import Event, Message
from text_generation_router.routes.openai.shapes import Shape
from text_generation_router.types import FinishReason, Token

_REASONS = {FinishReason.LENGTH: "length", FinishReason.EOS_TOKEN: "stop", FinishReason.STOP_SEQUENCE: "stop"}


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of a request: each prompt once, however many answers it gets."""

    prompt_tokens: int
    completion_tokens: int

    def json(self) -> str:
        """The object `usage`."""
        return (
            f'{{"prompt_tokens":{self.prompt_tokens},"completion_tokens":{self.completion_tokens},'
            f'"total_tokens":{self.prompt_tokens + self.completion_tokens}}}'
        )


@dataclass(frozen=True, slots=True)
class Choice:
    """A whole answer. top_tokens: alternatives to each token, if asked for."""

    message: Message
    tokens: Sequence[Token]
    top_tokens: Sequence[Sequence[Token]]
    reason: FinishReason


class Rendering:
    """One request's answer: everything that is the same in all of its chunks is written once.

    fingerprint: what tells versions of the server apart. logprobs: whether they are told. usage: whether a stream
    tells it, in a chunk of its own. calls: whether an answer may be calls of tools, and no text.
    """

    def __init__(self, shape: Shape, model: str, fingerprint: str, *, logprobs: bool, usage: bool, calls: bool) -> None:
        self._shape = shape
        self._logprobs = logprobs
        self._calls = calls
        id = shape.id_prefix + uuid.uuid4().hex
        facts = f'"created":{int(time.time())},"model":{quote(model)},"system_fingerprint":{quote(fingerprint)}'
        self._whole = f'{{"id":"{id}","object":"{shape.whole}",{facts},"choices":['
        self._chunk = f'{{"id":"{id}","object":"{shape.chunk}",{facts},"choices":['
        self._end = '],"usage":null}' if usage else "]}"

    def answer(self, choices: Sequence[Choice], usage: Usage) -> str:
        """The whole answer."""
        written = [
            f'{{"index":{index},{self._shape.message(choice.message)},'
            f'"logprobs":{self._told(choice)},'
            f'"finish_reason":{_reason(choice.reason, bool(choice.message.calls))}}}'
            for index, choice in enumerate(choices)
        ]
        return f'{self._whole}{",".join(written)}],"usage":{usage.json()}}}'

    def opening(self, index: int) -> list[str]:
        """What a choice has before its first event: a chunk at most."""
        content = self._shape.opening(self._calls)
        return [] if content is None else [self._one(index, content, "null", "null")]

    def deltas(
        self,
        index: int,
        events: Sequence[Event],
        tokens: Sequence[Token],
        top_tokens: Sequence[Sequence[Token]],
        offset: int,
    ) -> list[str]:
        """The chunks of a step, the first of which has its log-probabilities. offset: as for `Shape.logprobs`."""
        contents = [content for event in events if (content := self._shape.delta(event)) is not None]
        if not self._logprobs:
            return [self._one(index, content, "null", "null") for content in contents]
        if tokens and not contents:
            contents = [self._shape.silence()]
        told = [self._shape.logprobs(tokens, top_tokens, offset)] if tokens else []
        return [self._one(index, *chunk, "null") for chunk in zip_longest(contents, told, fillvalue="null")]

    def closing(self, index: int, reason: FinishReason, called: bool) -> str:
        """The last chunk of a choice. called: whether it was calls of tools."""
        return self._one(index, self._shape.closing(), "null", _reason(reason, called))

    def usage(self, usage: Usage) -> str:
        """The chunk after all choices."""
        return f'{self._chunk}],"usage":{usage.json()}}}'

    def _one(self, index: int, content: str, logprobs: str, reason: str) -> str:
        choice = f'{{"index":{index},{content},"logprobs":{logprobs},"finish_reason":{reason}}}'
        return self._chunk + choice + self._end

    def _told(self, choice: Choice) -> str:
        return self._shape.logprobs(choice.tokens, choice.top_tokens, 0) if self._logprobs else "null"


def _reason(reason: FinishReason, called: bool) -> str:
    """Calls that are all there end an answer by themselves."""
    return '"tool_calls"' if called and reason is not FinishReason.LENGTH else f'"{_REASONS[reason]}"'
