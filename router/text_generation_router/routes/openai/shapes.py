"""How a choice carries its text and log-probabilities, in chats and in completions. Knows no requests.

Source: OpenAI's API reference, objects "chat completion", "chat completion chunk" and "completion".
"""

from collections.abc import Sequence
from itertools import accumulate
from json.encoder import encode_basestring as quote
from math import isfinite, isnan
from typing import Protocol

from text_generation_router.render import number
from text_generation_router.types import Token

_UNLIKELY = "-9999.0"
"""What OpenAI writes for a log-probability that is no number."""


class Shape(Protocol):
    """What differs between the APIs: the names, and how a choice carries its text."""

    id_prefix: str
    whole: str
    chunk: str

    def message(self, text: str) -> str:
        """The text of a whole answer, as a member of its choice."""

    def opening(self) -> str | None:
        """What comes before the first text of a stream."""

    def delta(self, text: str) -> str:
        """A piece of text."""

    def closing(self) -> str:
        """What goes with the reason of the end."""

    def logprobs(self, tokens: Sequence[Token], top_tokens: Sequence[Sequence[Token] | None], offset: int) -> str:
        """The log-probabilities of tokens whose texts begin `offset` characters behind the answer's beginning."""


class ChatShape:
    """Of `/v1/chat/completions`."""

    id_prefix = "chatcmpl-"
    whole = "chat.completion"
    chunk = "chat.completion.chunk"

    def message(self, text: str) -> str:
        """See `Shape`."""
        return f'"message":{{"role":"assistant","content":{quote(text)},"refusal":null}}'

    def opening(self) -> str | None:
        """See `Shape`."""
        return '"delta":{"role":"assistant","content":""}'

    def delta(self, text: str) -> str:
        """See `Shape`."""
        return f'"delta":{{"content":{quote(text)}}}'

    def closing(self) -> str:
        """See `Shape`."""
        return '"delta":{}'

    def logprobs(self, tokens: Sequence[Token], top_tokens: Sequence[Sequence[Token] | None], offset: int) -> str:
        """See `Shape`."""
        tops = top_tokens or [()] * len(tokens)
        content = [
            f'{_chat_token(token)[:-1]},"top_logprobs":[{",".join(map(_chat_token, top or ()))}]}}'
            for token, top in zip(tokens, tops, strict=True)
        ]
        return f'{{"content":[{",".join(content)}],"refusal":null}}'


class CompletionShape:
    """Of `/v1/completions`."""

    id_prefix = "cmpl-"
    whole = "text_completion"
    chunk = "text_completion"

    def message(self, text: str) -> str:
        """See `Shape`."""
        return f'"text":{quote(text)}'

    def opening(self) -> str | None:
        """See `Shape`."""
        return None

    def delta(self, text: str) -> str:
        """See `Shape`."""
        return f'"text":{quote(text)}'

    def closing(self) -> str:
        """See `Shape`."""
        return '"text":""'

    def logprobs(self, tokens: Sequence[Token], top_tokens: Sequence[Sequence[Token] | None], offset: int) -> str:
        """See `Shape`."""
        offsets = accumulate((len(token.text) for token in tokens[:-1]), initial=offset)
        tops = top_tokens or [()] * len(tokens)
        return (
            f'{{"tokens":[{",".join(quote(token.text) for token in tokens)}],'
            f'"token_logprobs":[{",".join(_logprob(token) for token in tokens)}],'
            f'"top_logprobs":[{",".join(_alternatives(token, top) for token, top in zip(tokens, tops, strict=True))}],'
            f'"text_offset":[{",".join(map(str, offsets))}]}}'
        )


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
