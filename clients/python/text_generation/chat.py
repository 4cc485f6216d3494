"""The arguments of chats, shared by the sync and the async client. Knows no transport."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Generic, Literal, TypedDict, TypeVar, Unpack, overload

from text_generation.chat_types import ChatRequest, Message, Tool

AnswerT = TypeVar("AnswerT", covariant=True)
StreamT = TypeVar("StreamT", covariant=True)

Turns = Sequence[Message | Mapping[str, Any]]
Tools = Sequence[Tool | Mapping[str, Any]]


class ChatOptions(TypedDict, total=False):
    """What there is to choose for a chat; None, the default of each, leaves it to the server.

    repetition_penalty: 1.0 is none (CTRL, arXiv 1909.05858).
    frequency_penalty, presence_penalty: subtracted for each time a token occurred, or once if it did; 0.0 is none.
    logit_bias: added to tokens' scores.
    logprobs: return log-probabilities; top_logprobs: and those of so many alternatives.
    max_tokens: most tokens to generate.
    n: how many answers.
    seed: of the random choices.
    temperature: divides the logits; 0 takes the likeliest token.
    top_p: choose among the likeliest tokens that have probability p together.
    tools: what the model may call; tool_choice: whether it may, must, or which one.
    stop: texts that end the answer, without being part of it.
    response_format: what the answer must be, for example a JSON schema.
    adapter_id, lora_id: the LoRA adapter to use, by either name.
    model: what the server calls its model, or an adapter.
    more: further keys of the body.
    """

    repetition_penalty: float | None
    frequency_penalty: float | None
    logit_bias: Any
    logprobs: bool | None
    top_logprobs: int | None
    max_tokens: int | None
    n: int | None
    presence_penalty: float | None
    seed: int | None
    temperature: float | None
    top_p: float | None
    tools: Tools | None
    tool_choice: Any
    stop: list[str] | None
    response_format: dict[str, Any] | None
    adapter_id: str | None
    lora_id: str | None
    model: str | None
    more: Mapping[str, Any] | None


class Chats(ABC, Generic[AnswerT, StreamT]):
    """Turns arguments into a request, and leaves it to the subclass to send it."""

    @overload
    def chat(self, messages: Turns, *, stream: Literal[False] = False, **options: Unpack[ChatOptions]) -> AnswerT: ...
    @overload
    def chat(self, messages: Turns, *, stream: Literal[True], **options: Unpack[ChatOptions]) -> StreamT: ...
    def chat(
        self,
        messages: Turns,
        repetition_penalty: float | None = None,
        frequency_penalty: float | None = None,
        logit_bias: Any = None,
        logprobs: bool | None = None,
        top_logprobs: int | None = None,
        max_tokens: int | None = None,
        n: int | None = None,
        presence_penalty: float | None = None,
        stream: bool = False,
        seed: int | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        tools: Tools | None = None,
        tool_choice: Any = None,
        stop: list[str] | None = None,
        response_format: dict[str, Any] | None = None,
        adapter_id: str | None = None,
        lora_id: str | None = None,
        model: str | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> AnswerT | StreamT:
        """Go on with a conversation, whole or with `stream` in chunks; `ChatOptions` says what the arguments are."""
        request = ChatRequest(
            model=named_model(model, adapter_id, lora_id),
            messages=[_as(Message, message) for message in messages],
            repetition_penalty=repetition_penalty,
            frequency_penalty=frequency_penalty,
            logit_bias=logit_bias,
            logprobs=logprobs,
            top_logprobs=top_logprobs,
            max_tokens=max_tokens,
            n=n,
            presence_penalty=presence_penalty,
            stream=stream,
            seed=seed,
            temperature=temperature,
            top_p=top_p,
            tools=None if tools is None else [_as(Tool, tool) for tool in tools],
            tool_choice=tool_choice,
            stop=stop,
            response_format=response_format,
            adapter_id=adapter_id,
            lora_id=lora_id,
            **more or {},
        )
        return self._chat_stream(request) if stream else self._chat(request)

    @abstractmethod
    def _chat(self, request: ChatRequest) -> AnswerT:
        """Send the request and read the whole answer."""

    @abstractmethod
    def _chat_stream(self, request: ChatRequest) -> StreamT:
        """Send the request and read the answer's chunks as they come."""


def named_model(model: str | None, adapter_id: str | None, lora_id: str | None) -> str:
    """The `model` of a body. Servers where adapters have no key of their own take it for their name."""
    return model or adapter_id or lora_id or "tgi"


M = TypeVar("M", Message, Tool)


def _as(kind: type[M], given: M | Mapping[str, Any]) -> M:
    return given if isinstance(given, kind) else kind.model_validate(given)
