"""What goes to a server and what comes back, as pydantic models. Knows the JSON, not how it travels.

The models of chats and completions are in `chat_types`, and have their published names here too.
"""

from enum import StrEnum
from typing import Any, Self

from pydantic import BaseModel, model_validator

from text_generation.chat_types import (
    ChatComplete,
    ChatCompletionChunk,
    ChatCompletionComplete,
    ChatRequest,
    Choice,
    ChoiceDelta,
    ChoiceDeltaToolCall,
    Completion,
    CompletionComplete,
    CompletionRequest,
    Function,
    Message,
    Tool,
    ToolCall,
)
from text_generation.errors import ValidationError

__all__ = [
    "BestOfSequence",
    "ChatComplete",
    "ChatCompletionChunk",
    "ChatCompletionComplete",
    "ChatRequest",
    "Choice",
    "ChoiceDelta",
    "ChoiceDeltaToolCall",
    "Completion",
    "CompletionComplete",
    "CompletionRequest",
    "Details",
    "FinishReason",
    "Function",
    "Grammar",
    "GrammarType",
    "InputToken",
    "Message",
    "Parameters",
    "Request",
    "Response",
    "StreamDetails",
    "StreamResponse",
    "Token",
    "Tool",
    "ToolCall",
]

_STRICTLY_POSITIVE = ("best_of", "repetition_penalty", "temperature", "top_k", "truncate", "top_n_tokens")
_FRACTIONS = ("top_p", "typical_p")
_SAMPLING = ("temperature", "top_k", "top_p", "typical_p")


class GrammarType(StrEnum):
    """The kinds of grammar."""

    Json = "json"
    Regex = "regex"


class Grammar(BaseModel):
    """What the generated text must match: a JSON schema, or a regular expression."""

    type: GrammarType
    value: str | dict[str, Any]


class Parameters(BaseModel):
    """How to generate. None leaves a choice to the server; the methods of `Client` say what each one does.

    Raises text_generation.errors.ValidationError for what every server would refuse.
    """

    do_sample: bool = False
    max_new_tokens: int = 20
    repetition_penalty: float | None = None
    frequency_penalty: float | None = None
    return_full_text: bool = False
    stop: list[str] = []
    seed: int | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    truncate: int | None = None
    typical_p: float | None = None
    best_of: int | None = None
    watermark: bool = False
    details: bool = False
    decoder_input_details: bool = False
    top_n_tokens: int | None = None
    grammar: Grammar | None = None
    adapter_id: str | None = None
    lora_id: str | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        given = self.model_dump(exclude_none=True)
        for name in _STRICTLY_POSITIVE:
            _require(given.get(name, 1) > 0, f"`{name}` must be strictly positive")
        for name in _FRACTIONS:
            _require(0 < given.get(name, 0.5) < 1, f"`{name}` must be > 0.0 and < 1.0")
        _require(-2 <= given.get("frequency_penalty", 0) <= 2, "`frequency_penalty` must be between -2.0 and 2.0")
        _require(given.get("seed", 0) >= 0, "`seed` must be positive")
        _require(self.grammar is None or bool(self.grammar.value), "the `value` of `grammar` cannot be empty")
        if given.get("best_of", 1) > 1:
            _require(self.seed is None, "`seed` must not be set when `best_of` is > 1")
            sampling = self.do_sample or any(name in given for name in _SAMPLING)
            _require(sampling, "you must use sampling when `best_of` is > 1")
        return self


class Request(BaseModel):
    """The body of `POST /`."""

    inputs: str
    parameters: Parameters | None = None
    stream: bool = False

    @model_validator(mode="after")
    def _check(self) -> Self:
        _require(bool(self.inputs), "`inputs` cannot be empty")
        best_of = self.parameters.best_of if self.parameters else None
        _require(not (self.stream and (best_of or 1) > 1), "`best_of` != 1 is not supported when `stream` == True")
        return self


def _require(holds: bool, rule: str) -> None:
    """Raise our own ValidationError: pydantic would wrap a ValueError into its own."""
    if not holds:
        raise ValidationError(rule)


class InputToken(BaseModel):
    """A prompt token; the first has no log-probability."""

    id: int
    text: str
    logprob: float | None = None


class Token(BaseModel):
    """A generated token; `special` ones are no part of the text."""

    id: int
    text: str
    logprob: float | None = None
    special: bool


class FinishReason(StrEnum):
    """Why generation ended: `max_new_tokens` reached, end-of-sequence token, or a stop sequence."""

    Length = "length"
    EndOfSequenceToken = "eos_token"
    StopSequence = "stop_sequence"


class _Sequence(BaseModel):
    """What is told of every whole sequence. `prefill` is empty unless prompt log-probabilities were asked for."""

    finish_reason: FinishReason
    generated_tokens: int
    seed: int | None = None
    prefill: list[InputToken]
    tokens: list[Token]
    top_tokens: list[list[Token]] | None = None


class BestOfSequence(_Sequence):
    """One of the sequences that `best_of` did not choose."""

    generated_text: str


class Details(_Sequence):
    """How a whole answer came about."""

    best_of_sequences: list[BestOfSequence] | None = None


class Response(BaseModel):
    """What `generate` returns."""

    generated_text: str
    details: Details


class StreamDetails(BaseModel):
    """How a streamed answer came about. input_length: tokens of the prompt."""

    finish_reason: FinishReason
    generated_tokens: int
    seed: int | None = None
    input_length: int | None = None


class StreamResponse(BaseModel):
    """One token of a stream, counted from 1; the last one carries the whole text and the details too."""

    index: int | None = None
    token: Token
    top_tokens: list[Token] | None = None
    generated_text: str | None = None
    details: StreamDetails | None = None
