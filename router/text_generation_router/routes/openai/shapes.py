"""How a choice carries its text and log-probabilities, in chats and in completions. Knows no requests.

Source: OpenAI's API reference, objects "chat completion", "chat completion chunk" and "completion".
"""

from collections.abc import Sequence
from itertools import accumulate
from json.encoder import encode_basestring as quote
from math import isfinite, isnan
from typing import Protocol

from text_generation_router.chat.events import (
    Call,
    CallArguments,
    CallBegin,
    CallEnd,
    Content,
    Event,
    Message,
    Reasoning,
)
from text_generation_router.render import number
from text_generation_router.routes.asked import Tops
from text_generation_router.types import Token

_UNLIKELY = "-9999.0"
"""What OpenAI writes for a log-probability that is no number."""


_NOTHING = '""'


class Shape(Protocol):
    """What differs between the APIs: the names, and how a choice carries its text."""

    id_prefix: str
    whole: str
    chunk: str

    def message(self, message: Message) -> str:
        """A whole answer, as a member of its choice."""

    def opening(self, calls: bool) -> str | None:
        """What comes before the first event of a stream. calls: whether there may be no text."""

    def delta(self, event: Event) -> str | None:
        """An event, None if this API does not tell it."""

    def silence(self) -> str:
        """A piece of no text."""

    def closing(self) -> str:
        """What goes with the reason of the end."""

    def logprobs(self, tokens: Sequence[Token], top_tokens: Tops, offset: int) -> str:
        """The log-probabilities of tokens whose texts begin `offset` characters behind the answer's beginning."""


class ChatShape:
    """Of `/v1/chat/completions`."""

    id_prefix = "chatcmpl-"
    whole = "chat.completion"
    chunk = "chat.completion.chunk"

    def message(self, message: Message) -> str:
        """See `Shape`."""
        content = "null" if message.calls and not message.content else quote(message.content)
        reasoning = f',"reasoning_content":{quote(message.reasoning)}' if message.reasoning else ""
        calls = f',"tool_calls":[{",".join(map(_call, message.calls))}]' if message.calls else ""
        return f'"message":{{"role":"assistant","content":{content},"refusal":null{reasoning}{calls}}}'

    def opening(self, calls: bool) -> str | None:
        """See `Shape`."""
        return f'"delta":{{"role":"assistant","content":{"null" if calls else _NOTHING}}}'

    def delta(self, event: Event) -> str | None:
        """See `Shape`."""
        match event:
            case Content(text):
                return f'"delta":{{"content":{quote(text)}}}'
            case Reasoning(text):
                return f'"delta":{{"reasoning_content":{quote(text)}}}'
            case CallBegin(index, id, name):
                begin = f'"id":"{id}","type":"function","function":{{"name":{quote(name)},"arguments":""}}'
                return f'"delta":{{"tool_calls":[{{"index":{index},{begin}}}]}}'
            case CallArguments(index, text):
                function = f'"function":{{"arguments":{quote(text)}}}'
                return f'"delta":{{"tool_calls":[{{"index":{index},{function}}}]}}'
            case CallEnd():
                return None

    def silence(self) -> str:
        """See `Shape`."""
        return f'"delta":{{"content":{_NOTHING}}}'

    def closing(self) -> str:
        """See `Shape`."""
        return '"delta":{}'

    def logprobs(self, tokens: Sequence[Token], top_tokens: Tops, offset: int) -> str:
        """See `Shape`."""
        return f'{{"content":{chat_logprobs(tokens, top_tokens)},"refusal":null}}'


class CompletionShape:
    """Of `/v1/completions`."""

    id_prefix = "cmpl-"
    whole = "text_completion"
    chunk = "text_completion"

    def message(self, message: Message) -> str:
        """See `Shape`."""
        return f'"text":{quote(message.content)}'

    def opening(self, calls: bool) -> str | None:
        """See `Shape`."""
        return None

    def delta(self, event: Event) -> str | None:
        """See `Shape`."""
        return f'"text":{quote(event.text)}' if isinstance(event, Content) else None

    def silence(self) -> str:
        """See `Shape`."""
        return f'"text":{_NOTHING}'

    def closing(self) -> str:
        """See `Shape`."""
        return self.silence()

    def logprobs(self, tokens: Sequence[Token], top_tokens: Tops, offset: int) -> str:
        """See `Shape`."""
        offsets = accumulate((len(token.text) for token in tokens[:-1]), initial=offset)
        tops = top_tokens or [()] * len(tokens)
        return (
            f'{{"tokens":[{",".join(quote(token.text) for token in tokens)}],'
            f'"token_logprobs":[{",".join(_logprob(token) for token in tokens)}],'
            f'"top_logprobs":[{",".join(_alternatives(token, top) for token, top in zip(tokens, tops, strict=True))}],'
            f'"text_offset":[{",".join(map(str, offsets))}]}}'
        )


def worded(tokens: Sequence[Token], top_tokens: Tops) -> tuple[Sequence[Token], Tops]:
    """The tokens that are part of the text, and the alternatives to them: special ones, as an end is, are not."""
    if not any(token.special for token in tokens):
        return tokens, top_tokens
    kept = [place for place, token in enumerate(tokens) if not token.special]
    return [tokens[place] for place in kept], [top_tokens[place] for place in kept if top_tokens]


def chat_logprobs(tokens: Sequence[Token], top_tokens: Tops) -> str:
    """The list of tokens with their log-probabilities."""
    tops = top_tokens or [()] * len(tokens)
    content = [
        f'{_chat_token(token)[:-1]},"top_logprobs":[{",".join(map(_chat_token, top or ()))}]}}'
        for token, top in zip(tokens, tops, strict=True)
    ]
    return f"[{','.join(content)}]"


def _call(call: Call) -> str:
    function = f'{{"name":{quote(call.name)},"arguments":{quote(call.arguments)}}}'
    return f'{{"id":"{call.id}","type":"function","function":{function}}}'


def _chat_token(token: Token) -> str:
    return f'{{"token":{quote(token.text)},"logprob":{_logprob(token)},"bytes":{list(token.text.encode())}}}'


def _alternatives(token: Token, top: Sequence[Token] | None) -> str:
    """What a completion tells of a place: the alternatives with the token itself, null where they are not known."""
    if top is None:
        return "null"
    by_text = {one.text: _logprob(one) for one in (*top, token)}
    return f"{{{','.join(f'{quote(text)}:{value}' for text, value in by_text.items())}}}"


def _logprob(token: Token) -> str:
    """Null for a prompt's first token, which nothing comes before."""
    if isnan(token.logprob):
        return "null"
    return number(token.logprob) if isfinite(token.logprob) else _UNLIKELY
