"""Answers and chunks as the JSON of OpenAI's API, put together from strings: this runs for every token.

Knows chats from completions by their `Shape`, and no HTTP.
"""

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from json.encoder import encode_basestring as quote

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
    """A whole answer. top_tokens: alternatives to each token, if asked for; None where they are not known."""

    text: str
    tokens: Sequence[Token]
    top_tokens: Sequence[Sequence[Token] | None]
    reason: FinishReason


class Rendering:
    """One request's answer: everything that is the same in all of its chunks is written once.

    fingerprint: what tells versions of the server apart. logprobs: whether they are told. usage: whether a stream
    tells it, in a chunk of its own.
    """

    def __init__(self, shape: Shape, model: str, fingerprint: str, *, logprobs: bool, usage: bool) -> None:
        self._shape = shape
        self._logprobs = logprobs
        id = shape.id_prefix + uuid.uuid4().hex
        facts = f'"created":{int(time.time())},"model":{quote(model)},"system_fingerprint":{quote(fingerprint)}'
        self._whole = f'{{"id":"{id}","object":"{shape.whole}",{facts},"choices":['
        self._chunk = f'{{"id":"{id}","object":"{shape.chunk}",{facts},"choices":['
        self._end = '],"usage":null}' if usage else "]}"

    def answer(self, choices: Sequence[Choice], usage: Usage) -> str:
        """The whole answer."""
        written = [
            f'{{"index":{index},{self._shape.message(choice.text)},'
            f'"logprobs":{self._told(choice.tokens, choice.top_tokens, 0)},'
            f'"finish_reason":"{_REASONS[choice.reason]}"}}'
            for index, choice in enumerate(choices)
        ]
        return f'{self._whole}{",".join(written)}],"usage":{usage.json()}}}'

    def opening(self, index: int) -> str | None:
        """The first chunk of a choice, if it has one before its text."""
        content = self._shape.opening()
        return None if content is None else self._one(index, content, "null", "null")

    def delta(
        self, index: int, text: str, tokens: Sequence[Token], top_tokens: Sequence[Sequence[Token] | None], offset: int
    ) -> str | None:
        """The chunk of a step, None if it tells nothing. offset: as for `Shape.logprobs`."""
        if not text and not (self._logprobs and tokens):
            return None
        return self._one(index, self._shape.delta(text), self._told(tokens, top_tokens, offset), "null")

    def closing(self, index: int, reason: FinishReason) -> str:
        """The last chunk of a choice."""
        return self._one(index, self._shape.closing(), "null", f'"{_REASONS[reason]}"')

    def usage(self, usage: Usage) -> str:
        """The chunk after all choices."""
        return f'{self._chunk}],"usage":{usage.json()}}}'

    def _one(self, index: int, content: str, logprobs: str, reason: str) -> str:
        choice = f'{{"index":{index},{content},"logprobs":{logprobs},"finish_reason":{reason}}}'
        return self._chunk + choice + self._end

    def _told(self, tokens: Sequence[Token], top_tokens: Sequence[Sequence[Token] | None], offset: int) -> str:
        return self._shape.logprobs(tokens, top_tokens, offset) if self._logprobs else "null"
