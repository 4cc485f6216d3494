"""What answers look like, for the OpenAPI document alone: they are written by hand where they are made.

Answers of other makers' APIs are described by them.
"""

from typing import Any

from pydantic import BaseModel, RootModel

from text_generation_router.types import FinishReason


class Token(BaseModel):
    """A token of the answer."""

    id: int
    text: str
    logprob: float | None
    special: bool


class PrefillToken(BaseModel):
    """A token of the prompt."""

    id: int
    text: str
    logprob: float | None


class Sequence(BaseModel):
    """What is told about a whole answer."""

    finish_reason: FinishReason
    generated_tokens: int
    seed: int | None
    prefill: list[PrefillToken]
    tokens: list[Token]
    top_tokens: list[list[Token]] = []


class BestOfSequence(Sequence):
    """An answer that was not the likeliest."""

    generated_text: str


class Details(Sequence):
    """What is told about the answer, and those that were not the likeliest."""

    best_of_sequences: list[BestOfSequence] = []


class Generated(BaseModel):
    """The answer of `/generate`."""

    generated_text: str
    details: Details | None = None


class GeneratedList(RootModel[list[Generated]]):
    """The answer of `/`: one in a list."""


class StreamDetails(BaseModel):
    """What is told at the end of a stream."""

    finish_reason: FinishReason
    generated_tokens: int
    seed: int | None
    input_length: int


class StreamEvent(BaseModel):
    """An event of a stream."""

    index: int
    token: Token
    top_tokens: list[Token] = []
    generated_text: str | None
    details: StreamDetails | None


class SimpleToken(BaseModel):
    """A token of a text, and the bytes it is from."""

    id: int
    text: str
    start: int
    stop: int


class Tokenized(RootModel[list[SimpleToken]]):
    """The answer of `/tokenize`."""


class Detokenized(BaseModel):
    """The answer of `/detokenize`."""

    text: str


class ChatTokenized(BaseModel):
    """The answer of `/chat_tokenize`."""

    tokenize_response: list[SimpleToken]
    templated_text: str


class Info(BaseModel):
    """The answer of `/info`."""

    model_id: str
    model_sha: str | None
    model_pipeline_tag: str | None
    model_dtype: str
    model_device_type: str
    max_concurrent_requests: int
    max_best_of: int
    max_stop_sequences: int
    max_input_tokens: int
    max_total_tokens: int
    max_batch_total_tokens: int
    max_client_batch_size: int
    validation_workers: int
    router: str
    version: str
    sha: str | None
    docker_label: str | None


class Counted(BaseModel):
    """The answer of `/v1/messages/count_tokens`."""

    input_tokens: int


class Predictions(BaseModel):
    """The answer of `/vertex`."""

    predictions: list[str]


class ErrorBody(BaseModel):
    """An error: TGI's `error` and `error_type`, OpenAI's object, or Anthropic's with a `type`."""

    error: str | dict[str, Any]
    error_type: str | None = None
    type: str | None = None
