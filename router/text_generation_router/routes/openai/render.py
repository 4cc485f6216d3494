"""Answers and chunks as the JSON of OpenAI's API, put together from strings: this runs for every token.

Knows chats from completions by their `Shape`, and no HTTP.
"""

import time
import uuid
from collections.abc import Sequence
from itertools import zip_longest
from json.encoder import encode_basestring as quote

from text_generation_router.chat.events import CallBegin
from text_generation_router.routes.asked import Choice, End, Step, Usage
from text_generation_router.routes.openai.errors import DONE, OPENAI_ERRORS
from text_generation_router.routes.openai.shapes import Shape, worded
from text_generation_router.sse import PLAIN
from text_generation_router.types import FinishReason

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
    tells_reasoning = True
    errors = OPENAI_ERRORS
    framing = PLAIN

    def __init__(self, shape: Shape, model: str, fingerprint: str, *, logprobs: bool, usage: bool) -> None:
        self._shape = shape
        self._logprobs = logprobs
        self._usage = usage
        self._begun: set[int] = set()
        self._called: set[int] = set()
        id = shape.id_prefix + uuid.uuid4().hex
        facts = f'"created":{int(time.time())},"model":{quote(model)},"system_fingerprint":{quote(fingerprint)}'
        self._whole = f'{{"id":"{id}","object":"{shape.whole}",{facts},"choices":['
        self._chunk = f'{{"id":"{id}","object":"{shape.chunk}",{facts},"choices":['
        self._end = '],"usage":null}' if usage else "]}"
        self._nothing_more = f',"logprobs":null,"finish_reason":null}}{self._end}'

    def whole(self, choices: Sequence[Choice], usage: Usage) -> str:
        """See `Writer`."""
        written = [
            f'{{"index":{index},{self._shape.message(choice.message)},'
            f'"logprobs":{self._told(choice)},"finish_reason":{_reason(choice.end, bool(choice.message.calls))}}}'
            for index, choice in enumerate(choices)
        ]
        return f'{self._whole}{",".join(written)}],"usage":{usage_json(usage)}}}'

    def begin(self, prompt_tokens: int) -> Sequence[str]:
        """See `Writer`."""
        return ()

    def step(self, index: int, step: Step) -> Sequence[str]:
        """See `Writer`. A choice may have a chunk before its first event, and has one after its last."""
        events = step.events
        if len(events) == 1 and not (self._logprobs or step.end) and index in self._begun:  # as nearly all are
            content = self._shape.delta(events[0])
            if content is not None and type(events[0]) is not CallBegin:
                return (f'{self._chunk}{{"index":{index},{content}{self._nothing_more}',)
        chunks = [] if index in self._begun else self._opened(index, step)
        contents = [content for event in step.events if (content := self._shape.delta(event)) is not None]
        if self._logprobs:
            chunks += self._with_logprobs(index, contents, step)
        else:
            chunks += [self._one(index, content, "null", "null") for content in contents]
        for event in step.events:
            if type(event) is CallBegin:
                self._called.add(index)
        if step.end is not None:
            chunks.append(self._one(index, self._shape.closing(), "null", _reason(step.end, index in self._called)))
        return chunks

    def end(self, usage: Usage) -> Sequence[str]:
        """See `Writer`."""
        return (f'{self._chunk}],"usage":{usage_json(usage)}}}', DONE) if self._usage else (DONE,)

    def _opened(self, index: int, step: Step) -> list[str]:
        """What comes before a choice's first event: a chunk at most."""
        if not (step.events or step.end or self._logprobs):
            return []
        self._begun.add(index)
        opening = self._shape.opening(any(isinstance(event, CallBegin) for event in step.events))
        return [] if opening is None else [self._one(index, opening, "null", "null")]

    def _with_logprobs(self, index: int, contents: list[str], step: Step) -> list[str]:
        """The chunks of a step, the first of which has its log-probabilities."""
        tokens, top_tokens = worded(step.tokens, step.top_tokens)
        told = [self._shape.logprobs(tokens, top_tokens, step.offset)] if tokens else []
        contents = contents or [self._shape.silence()] * len(told)
        return [self._one(index, *chunk, "null") for chunk in zip_longest(contents, told, fillvalue="null")]

    def _one(self, index: int, content: str, logprobs: str, reason: str) -> str:
        choice = f'{{"index":{index},{content},"logprobs":{logprobs},"finish_reason":{reason}}}'
        return self._chunk + choice + self._end

    def _told(self, choice: Choice) -> str:
        if not self._logprobs:
            return "null"
        return self._shape.logprobs(*worded(choice.tokens, choice.top_tokens), 0)


def _reason(end: End, called: bool) -> str:
    """Calls that are all there end an answer by themselves."""
    return '"tool_calls"' if called and end.reason is not FinishReason.LENGTH else f'"{REASONS[end.reason]}"'
