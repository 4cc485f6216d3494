"""What chats and completions send and bring, as pydantic models. Knows the JSON, not how it travels.

Answers keep fields that are not named here, so that what a newer server tells can be read too.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict


class ToolCall(BaseModel):
    """A call that the model wants made. function: `name` and `arguments`, the latter as the server sends them."""

    id: int | str
    type: str
    function: dict[str, Any]


class Message(BaseModel):
    """One turn of a conversation. content: a text, or parts as OpenAI has them. tool_call_id: of the call answered."""

    model_config = ConfigDict(extra="allow")

    role: str
    content: str | list[Any] | None = None
    name: str | None = None
    tool_calls: Any | None = None
    tool_call_id: str | None = None


class Tool(BaseModel):
    """What the model may call. function: `name`, `description`, and `parameters`, a JSON schema."""

    type: str = "function"
    function: dict[str, Any]


class SamplingRequest(BaseModel):
    """What the bodies of both routes share. None leaves a choice to the server; further keys are sent as they are."""

    model_config = ConfigDict(extra="allow")

    model: str
    repetition_penalty: float | None = None
    frequency_penalty: float | None = None
    max_tokens: int | None = None
    stream: bool = False
    seed: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: list[str] | None = None
    adapter_id: str | None = None
    lora_id: str | None = None


class ChatRequest(SamplingRequest):
    """The body of `/v1/chat/completions`."""

    messages: list[Message]
    logit_bias: Any | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    n: int | None = None
    presence_penalty: float | None = None
    tools: list[Tool] | None = None
    tool_choice: Any | None = None
    response_format: dict[str, Any] | None = None


class CompletionRequest(SamplingRequest):
    """The body of `/v1/completions`."""

    prompt: str | list[str]


class Answer(BaseModel):
    """What all answers tell. usage: counts of tokens; in streams only of the last chunk, and if asked for."""

    model_config = ConfigDict(extra="allow")

    id: str
    object: str
    created: int
    model: str
    system_fingerprint: str | None = None
    usage: Any | None = None


class ChatCompletionComplete(BaseModel):
    """One of the answers to a conversation."""

    index: int
    message: Message
    logprobs: Any | None = None
    finish_reason: str
    usage: Any | None = None


class ChatComplete(Answer):
    """What `chat` returns."""

    choices: list[ChatCompletionComplete]


class Function(BaseModel):
    """A piece of a call: the name comes once, the arguments' JSON in parts."""

    name: str | None = None
    arguments: str = ""


class ChoiceDeltaToolCall(BaseModel):
    """What a chunk adds to the call of an index."""

    index: int
    id: str | None = None
    type: str | None = None
    function: Function


class ChoiceDelta(BaseModel):
    """What a chunk adds to a message. tool_calls: a list; a single one from servers before OpenAI's shape."""

    model_config = ConfigDict(extra="allow")

    role: str | None = None
    content: str | None = None
    tool_calls: list[ChoiceDeltaToolCall] | ChoiceDeltaToolCall | None = None


class Choice(BaseModel):
    """What a chunk adds to one of the answers."""

    index: int
    delta: ChoiceDelta
    logprobs: dict[str, Any] | None = None
    finish_reason: str | None = None


class ChatCompletionChunk(Answer):
    """What `chat` yields with `stream=True`. choices: none in a chunk that tells the usage."""

    choices: list[Choice]


class CompletionComplete(BaseModel):
    """One of the continuations of a prompt, or a piece of it; then the last one has the reason of the end."""

    index: int
    text: str
    logprobs: Any | None = None
    finish_reason: str | None = None


class Completion(Answer):
    """What `completion` returns, and with `stream=True` yields."""

    choices: list[CompletionComplete]
