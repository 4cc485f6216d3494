"""OpenAI's routes in the bytes of text-generation-inference 3.3.7, for clients that were written against those.

The one place that knows where it answers otherwise than OpenAI: no ids, stop sequences in texts, other reasons, empty
texts for null, reasons in the chunk of the last token, plain errors, 100 tokens by default, other penalties.
Source: its answers, and its OpenAPI document. Knows no HTTP.
"""

import json
import time
from collections.abc import Sequence
from json.encoder import encode_basestring as quote

from text_generation_router.chat.events import CallArguments, CallBegin, CallEnd, Content, Event, Message, Reasoning
from text_generation_router.errors import ApiError, InvalidBody, Unauthorized, Unrouted
from text_generation_router.render import number
from text_generation_router.responses import ErrorForm, error_body
from text_generation_router.routes.asked import Choice, Step, Tops, Usage
from text_generation_router.routes.openai.errors import DONE
from text_generation_router.routes.openai.render import usage_json
from text_generation_router.routes.openai.schemas import ChatBody, CompletionBody
from text_generation_router.routes.openai.style import Info, Style, fingerprint
from text_generation_router.schemas import GenerateParameters
from text_generation_router.sse import PLAIN
from text_generation_router.types import FinishReason, Token

_EOS = FinishReason.EOS_TOKEN


def _plain(error: ApiError) -> str | None:
    """Bodies that cannot be read are told as text; what reaches no handler, by the status alone."""
    if isinstance(error, Unauthorized | Unrouted):
        return ""
    return str(error) if isinstance(error, InvalidBody) else None


def _last_words(error: ApiError) -> Sequence[str]:
    told = {"error": {"message": str(error), "http_status_code": error.status}}
    return json.dumps(told, ensure_ascii=False, separators=(",", ":")), DONE


_NATIVE_ERRORS = ErrorForm(error_body, lambda error: (error_body(error),), _plain)
_ERRORS = ErrorForm(error_body, _last_words, _plain)


class _Facts:
    """What is the same in all answers to a request."""

    keeps_stops = True
    tells_reasoning = False
    errors = _ERRORS
    framing = PLAIN

    def __init__(self, model: str, info: Info) -> None:
        self._created = f'"id":"","created":{int(time.time())}'
        self._model = f'"model":{quote(model)},"system_fingerprint":{quote(fingerprint(info))}'

    def begin(self, prompt_tokens: int) -> Sequence[str]:
        """See `Writer`."""
        return ()


class TgiChat(_Facts):
    """An answer to a chat. See `Writer`."""

    def __init__(self, body: ChatBody, info: Info) -> None:
        super().__init__(body.model or info["model_id"], info)
        self._logprobs = bool(body.logprobs)
        self._usage = body.include_usage

    def whole(self, choices: Sequence[Choice], usage: Usage) -> str:
        """See `Writer`."""
        written = [
            f'{{"index":{index},"message":{_message(choice.message)},'
            f'"logprobs":{self._told(choice.tokens, choice.top_tokens)},'
            f'"finish_reason":"{_chat_reason(choice.end.reason)}"}}'
            for index, choice in enumerate(choices)
        ]
        return self._object("chat.completion", ",".join(written), usage_json(usage))

    def step(self, index: int, step: Step) -> Sequence[str]:
        """See `Writer`. One chunk a token, a special one too, and the last has the reason."""
        deltas = [delta for event in step.events or [Content("")] if (delta := _delta(event)) is not None]
        reasons = ["null"] * len(deltas)
        if step.end is not None:
            reasons[-1] = f'"{_chat_reason(step.end.reason)}"'
        logprobs = [self._told(step.tokens, step.top_tokens)] + ["null"] * (len(deltas) - 1)
        return [
            self._object(
                "chat.completion.chunk",
                f'{{"index":{index},"delta":{delta},"logprobs":{told},"finish_reason":{reason}}}',
                "null",
            )
            for delta, told, reason in zip(deltas, logprobs, reasons, strict=True)
        ]

    def end(self, usage: Usage) -> Sequence[str]:
        """See `Writer`."""
        return (self._object("chat.completion.chunk", "", usage_json(usage)), DONE) if self._usage else (DONE,)

    def _object(self, kind: str, choices: str, usage: str) -> str:
        return f'{{"object":"{kind}",{self._created},{self._model},"choices":[{choices}],"usage":{usage}}}'

    def _told(self, tokens: Sequence[Token], top_tokens: Tops) -> str:
        if not self._logprobs:
            return "null"
        tops = top_tokens or [()] * len(tokens)
        content = [
            f'{_token(token)[:-1]},"top_logprobs":[{",".join(map(_token, top or ()))}]}}'
            for token, top in zip(tokens, tops, strict=True)
        ]
        return f'{{"content":[{",".join(content)}]}}'


class TgiCompletion(_Facts):
    """An answer to prompts. See `Writer`."""

    def __init__(self, body: CompletionBody, info: Info) -> None:
        super().__init__(info["model_id"], info)

    def whole(self, choices: Sequence[Choice], usage: Usage) -> str:
        """See `Writer`."""
        written = [
            _text_choice(index, choice.message.content, _chat_reason(choice.end.reason))
            for index, choice in enumerate(choices)
        ]
        return self._final(",".join(written), usage)

    def step(self, index: int, step: Step) -> Sequence[str]:
        """See `Writer`. Special tokens are texts, and the last token of each prompt has the reason as it is."""
        text = "".join(token.text for token in step.tokens)
        if step.end is not None:
            return [self._final(_text_choice(index, text, step.end.reason.value), step.end.usage)]
        choice = _text_choice(index, text, "")
        return [f'{{"object":"text_completion",{self._created},"choices":[{choice}],{self._model}}}']

    def end(self, usage: Usage) -> Sequence[str]:
        """See `Writer`."""
        return (DONE,)

    def _final(self, choices: str, usage: Usage) -> str:
        facts = f'"object":"text_completion",{self._created},{self._model}'
        return f'{{{facts},"choices":[{choices}],"usage":{usage_json(usage)}}}'


def _penalties(parameters: GenerateParameters) -> GenerateParameters:
    """A presence penalty is one of repetition there, from 2 on, and a frequency penalty the native one."""
    presence, repetition = parameters.presence_penalty, parameters.repetition_penalty
    meant = {
        "presence_penalty": None,
        "count_penalty": None,
        "repetition_penalty": repetition if presence is None else presence + 2,
        "frequency_penalty": parameters.count_penalty,
    }
    return parameters.model_copy(update=meant)


TGI = Style(
    TgiChat, TgiCompletion, _ERRORS, _NATIVE_ERRORS, chat_tokens=100, completion_tokens=100, penalties=_penalties
)


def _message(message: Message) -> str:
    if message.calls:
        return f'{{"role":"assistant","tool_calls":[{",".join(_call(c.name, c.arguments) for c in message.calls)}]}}'
    return f'{{"role":"assistant","content":{quote(message.reasoning + message.content)}}}'


def _call(name: str, arguments: str) -> str:
    function = f'{{"description":null,"name":{quote(name)},"arguments":{quote(arguments)}}}'
    return f'{{"id":"0","type":"function","function":{function}}}'


def _delta(event: Event) -> str | None:
    match event:
        case Content(text) | Reasoning(text):
            return f'{{"role":"assistant","content":{quote(text)}}}'
        case CallBegin(index=index, name=name):
            return _call_delta(index, quote(name), "")
        case CallArguments(index=index, text=text):
            return _call_delta(index, "null", text)
        case CallEnd():
            return None


def _call_delta(index: int, name: str, arguments: str) -> str:
    function = f'{{"name":{name},"arguments":{quote(arguments)}}}'
    call = f'{{"index":{index},"id":"0","type":"function","function":{function}}}'
    return f'{{"role":"assistant","tool_calls":[{call}]}}'


def _text_choice(index: int, text: str, reason: str) -> str:
    return f'{{"index":{index},"text":{quote(text)},"logprobs":null,"finish_reason":"{reason}"}}'


def _token(token: Token) -> str:
    return f'{{"token":{quote(token.text)},"logprob":{number(token.logprob)}}}'


def _chat_reason(reason: FinishReason) -> str:
    return "stop" if reason is _EOS else reason.value
