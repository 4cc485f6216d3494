"""Answers and chunks as the JSON of OpenAI's API, put together from strings: this runs for every token.

Knows chats from completions by their `Shape`, and no HTTP.
"""

import time
import uuid
from collections.abc import Sequence
from json.encoder import encode_basestring as quote

from text_generation_router.routes.asked import Choice, Step, Usage
from text_generation_router.routes.openai.errors import DONE, OPENAI_ERRORS
from text_generation_router.routes.openai.shapes import Shape
from text_generation_router.sse import PLAIN
from text_generation_router.types import FinishReason, Token

REASONS = {FinishReason.LENGTH: "length", FinishReason.EOS_TOKEN: "stop", FinishReason.STOP_SEQUENCE: "stop"}


def usage_json(usage: Usage) -> str:
    """The object `usage`."""
    return (
        f'{{"prompt_tokens":{usage.prompt_tokens},"completion_tokens":{usage.completion_tokens},'
        f'"total_tokens":{usage.prompt_tokens + usage.completion_tokens}}}'
    )


class Rendering:
    """One request's answer: everything that is the same in all of its chunks is written once. See `Writer`.

    fingerprint: what tells versions of the server apart. logprobs: whether they are told. usage: whether a stream
    tells it, in a chunk of its own.
    """

    keeps_stops = False
    errors = OPENAI_ERRORS
    framing = PLAIN

    def __init__(self, shape: Shape, model: str, fingerprint: str, *, logprobs: bool, usage: bool) -> None:
        self._shape = shape
        self._logprobs = logprobs
        self._usage = usage
        self._opened: set[int] = set()
        id = shape.id_prefix + uuid.uuid4().hex
        facts = f'"created":{int(time.time())},"model":{quote(model)},"system_fingerprint":{quote(fingerprint)}'
        self._whole = f'{{"id":"{id}","object":"{shape.whole}",{facts},"choices":['
        self._chunk = f'{{"id":"{id}","object":"{shape.chunk}",{facts},"choices":['
        self._end = '],"usage":null}' if usage else "]}"

    def whole(self, choices: Sequence[Choice], usage: Usage) -> str:
        """See `Writer`."""
        written = [
            f'{{"index":{index},{self._shape.message(choice.text)},'
            f'"logprobs":{self._told(*worded(choice.tokens, choice.top_tokens), 0)},'
            f'"finish_reason":"{REASONS[choice.end.reason]}"}}'
            for index, choice in enumerate(choices)
        ]
        return f'{self._whole}{",".join(written)}],"usage":{usage_json(usage)}}}'

    def begin(self, prompt_tokens: int) -> Sequence[str]:
        """See `Writer`."""
        return ()

    def step(self, index: int, step: Step) -> Sequence[str]:
        """See `Writer`. A choice may have a chunk before its text, and has one after it."""
        chunks = []
        if index not in self._opened:
            self._opened.add(index)
            if (opening := self._shape.opening()) is not None:
                chunks.append(self._one(index, opening, "null", "null"))
        tokens, top_tokens = worded(step.tokens, step.top_tokens)
        if step.text or (self._logprobs and tokens):
            logprobs = self._told(tokens, top_tokens, step.offset)
            chunks.append(self._one(index, self._shape.delta(step.text), logprobs, "null"))
        if step.end is not None:
            chunks.append(self._one(index, self._shape.closing(), "null", f'"{REASONS[step.end.reason]}"'))
        return chunks

    def end(self, usage: Usage) -> Sequence[str]:
        """See `Writer`."""
        return (f'{self._chunk}],"usage":{usage_json(usage)}}}', DONE) if self._usage else (DONE,)

    def _one(self, index: int, content: str, logprobs: str, reason: str) -> str:
        choice = f'{{"index":{index},{content},"logprobs":{logprobs},"finish_reason":{reason}}}'
        return self._chunk + choice + self._end

    def _told(self, tokens: Sequence[Token], top_tokens: Sequence[Sequence[Token]], offset: int) -> str:
        return self._shape.logprobs(tokens, top_tokens, offset) if self._logprobs else "null"


def worded(
    tokens: Sequence[Token], top_tokens: Sequence[Sequence[Token]]
) -> tuple[Sequence[Token], Sequence[Sequence[Token]]]:
    """The tokens that are part of the text, and the alternatives to them: special ones, as an end is, are not."""
    if not any(token.special for token in tokens):
        return tokens, top_tokens
    kept = [place for place, token in enumerate(tokens) if not token.special]
    return [tokens[place] for place in kept], [top_tokens[place] for place in kept if top_tokens]
