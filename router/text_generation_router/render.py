"""Generations as the JSON of the native API, put together from strings: this runs for every token.

Floats are written as the shortest text that reads back as the same 32-bit float. Knows neither HTTP nor SSE.
"""

from collections.abc import Sequence
from json.encoder import encode_basestring as quote
from math import isfinite

from numpy import float32

from text_generation_router.inference import Completion
from text_generation_router.types import GeneratedText, Generation, Token

_NO_END = '"generated_text":null,"details":null'


def stream_details(final: GeneratedText, input_length: int) -> str:
    """`details` of a stream's last event."""
    return (
        f'{{"finish_reason":"{final.finish_reason.value}","generated_tokens":{final.generated_tokens},'
        f'"seed":{_optional(final.seed)},"input_length":{input_length}}}'
    )


def stream_tokens(first_index: int, generation: Generation, text: str | None, details: str) -> list[str]:
    """The events of a step, one a token, counted from `first_index`; text and details go with the last one."""
    if text is None and not generation.top_tokens and len(generation.tokens) == 1:  # as nearly all are
        token = generation.tokens[0]
        special = "true" if token.special else "false"
        return [
            f'{{"index":{first_index},"token":{{"id":{token.id},"text":{quote(token.text)},'
            f'"logprob":{number(token.logprob)},"special":{special}}},{_NO_END}}}'
        ]
    last = len(generation.tokens) - 1
    events = []
    for i, token in enumerate(generation.tokens):
        top = f'"top_tokens":{_list(generation.top_tokens[i])},' if generation.top_tokens else ""
        end = f'"generated_text":{quote(text)},"details":{details}' if i == last and text is not None else _NO_END
        events.append(f'{{"index":{first_index + i},"token":{_token(token)},{top}{end}}}')
    return events


def generated(text: str, details: str | None) -> str:
    """The answer of `/generate`; without details if they are None."""
    rest = "" if details is None else f',"details":{details}'
    return f'{{"generated_text":{quote(text)}{rest}}}'


def details(best: Completion, others: Sequence[Completion], prompt: str) -> str:
    """`details` of a whole generation. prompt: what goes before the texts of the other samples."""
    sequences = [
        f'{{"generated_text":{quote(prompt + other.generated_text.text)},{_facts(other)}}}' for other in others
    ]
    return f"{{{_facts(best, sequences)}}}"


def number(value: float) -> str:
    """A 32-bit float; null for what JSON has no number for."""
    return str(float32(value)) if isfinite(value) else "null"


def _facts(completion: Completion, best_of_sequences: Sequence[str] = ()) -> str:
    final = completion.generated_text
    prefill = ",".join(map(_prefill_token, completion.prefill))
    best_of = f',"best_of_sequences":[{",".join(best_of_sequences)}]' if best_of_sequences else ""
    top = f',"top_tokens":[{",".join(map(_list, completion.top_tokens))}]' if completion.top_tokens else ""
    return (
        f'"finish_reason":"{final.finish_reason.value}","generated_tokens":{final.generated_tokens},'
        f'"seed":{_optional(final.seed)},"prefill":[{prefill}],"tokens":{_list(completion.tokens)}{best_of}{top}'
    )


def _list(tokens: Sequence[Token]) -> str:
    return f"[{','.join(map(_token, tokens))}]"


def _token(token: Token) -> str:
    return (
        f'{{"id":{token.id},"text":{quote(token.text)},"logprob":{number(token.logprob)},'
        f'"special":{_bool(token.special)}}}'
    )


def _prefill_token(token: Token) -> str:
    return f'{{"id":{token.id},"text":{quote(token.text)},"logprob":{number(token.logprob)}}}'


def _bool(value: bool) -> str:
    return "true" if value else "false"


def _optional(value: int | None) -> str:
    return "null" if value is None else str(value)
