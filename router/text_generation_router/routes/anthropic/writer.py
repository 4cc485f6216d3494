"""Answers and events as the JSON of Anthropic's API. Knows no HTTP.

Source: Anthropic's API reference, "Messages" and "Streaming messages".
"""

import uuid
from collections.abc import Iterator, Sequence
from json.encoder import encode_basestring as quote

from text_generation_router.chat.events import (
    CallArguments,
    CallBegin,
    CallEnd,
    Content,
    Event,
    Message,
    Reasoning,
)
from text_generation_router.routes.anthropic.errors import ANTHROPIC_ERRORS
from text_generation_router.routes.asked import Choice, End, Step, Usage
from text_generation_router.sse import Framing, named_event
from text_generation_router.types import FinishReason

_PING = '{"type":"ping"}'
_REASONS = {FinishReason.LENGTH: "max_tokens", FinishReason.EOS_TOKEN: "end_turn"}


class MessageWriter:
    """One request's message. See `Writer`."""

    keeps_stops = False
    tells_reasoning = True
    errors = ANTHROPIC_ERRORS
    framing = Framing(named_event, silence=named_event(_PING))

    def __init__(self, model: str) -> None:
        self._model = model
        self._blocks = -1
        self._open: type[Event] | None = None
        self._called = False
        self._end: End | None = None

    def whole(self, choices: Sequence[Choice], usage: Usage) -> str:
        """See `Writer`."""
        (choice,) = choices
        content, called = ",".join(_blocks(choice.message)), bool(choice.message.calls)
        return self._message(content, _end(choice.end, called), _usage(usage.prompt_tokens, usage.completion_tokens))

    def begin(self, prompt_tokens: int) -> Sequence[str]:
        """See `Writer`."""
        message = self._message("", '"stop_reason":null,"stop_sequence":null', _usage(prompt_tokens, 0))
        return f'{{"type":"message_start","message":{message}}}', _PING

    def step(self, index: int, step: Step) -> Sequence[str]:
        """See `Writer`."""
        self._end = step.end or self._end
        return [written for event in step.events for written in self._event(event)]

    def end(self, usage: Usage) -> Sequence[str]:
        """See `Writer`."""
        events = [] if self._blocks >= 0 else [*self._started(Content, _text_block(""))]
        end = _end(self._end, self._called)
        told = _usage(usage.prompt_tokens, usage.completion_tokens)
        last = f'{{"type":"message_delta","delta":{{{end}}},"usage":{told}}}'
        return [*events, *self._stopped(), last, '{"type":"message_stop"}']

    def _message(self, content: str, end: str, usage: str) -> str:
        id = f"msg_{uuid.uuid4().hex}"
        facts = f'"type":"message","role":"assistant","model":{quote(self._model)}'
        return f'{{"id":"{id}",{facts},"content":[{content}],{end},"usage":{usage}}}'

    def _event(self, event: Event) -> Iterator[str]:
        match event:
            case Content(text):
                yield from self._started(Content, _text_block(""))
                yield self._delta(f'"text_delta","text":{quote(text)}')
            case Reasoning(text):
                yield from self._started(Reasoning, _thinking_block(""))
                yield self._delta(f'"thinking_delta","thinking":{quote(text)}')
            case CallBegin(id=id, name=name):
                self._called = True
                yield from self._stopped()
                yield from self._started(CallBegin, _call_block(id, name, "{}"))
            case CallArguments(text=text):
                yield self._delta(f'"input_json_delta","partial_json":{quote(text)}')
            case CallEnd():
                yield from self._stopped()

    def _started(self, kind: type[Event], block: str) -> Iterator[str]:
        """A block of a kind, unless the one that is open is of it."""
        if self._open is kind:
            return
        yield from self._stopped()
        self._open = kind
        self._blocks += 1
        yield f'{{"type":"content_block_start","index":{self._blocks},"content_block":{block}}}'

    def _stopped(self) -> Iterator[str]:
        if self._open is Reasoning:
            yield self._delta('"signature_delta","signature":""')
        if self._open is not None:
            self._open = None
            yield f'{{"type":"content_block_stop","index":{self._blocks}}}'

    def _delta(self, delta: str) -> str:
        return f'{{"type":"content_block_delta","index":{self._blocks},"delta":{{"type":{delta}}}}}'


def _blocks(message: Message) -> Iterator[str]:
    """The blocks of a whole message: one at least."""
    if message.reasoning:
        yield _thinking_block(message.reasoning)
    if message.content or not message.calls:
        yield _text_block(message.content)
    for call in message.calls:
        yield _call_block(call.id, call.name, call.arguments or "{}")


def _text_block(text: str) -> str:
    return f'{{"type":"text","text":{quote(text)}}}'


def _thinking_block(text: str) -> str:
    return f'{{"type":"thinking","thinking":{quote(text)},"signature":""}}'


def _call_block(id: str, name: str, arguments: str) -> str:
    return f'{{"type":"tool_use","id":{quote(id)},"name":{quote(name)},"input":{arguments}}}'


def _end(end: End | None, called: bool) -> str:
    """Why the message ended. Calls that are all there end one by themselves."""
    if end is None:
        return '"stop_reason":"end_turn","stop_sequence":null'
    if called and end.reason is not FinishReason.LENGTH:
        return '"stop_reason":"tool_use","stop_sequence":null'
    if end.stop:
        return f'"stop_reason":"stop_sequence","stop_sequence":{quote(end.stop)}'
    return f'"stop_reason":"{_REASONS.get(end.reason, "end_turn")}","stop_sequence":null'


def _usage(prompt_tokens: int, completion_tokens: int) -> str:
    cache = '"cache_creation_input_tokens":0,"cache_read_input_tokens":0'
    return f'{{"input_tokens":{prompt_tokens},{cache},"output_tokens":{completion_tokens}}}'
