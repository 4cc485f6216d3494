"""The arguments of completions, shared by the sync and the async client. Knows no transport."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Generic, Literal, TypedDict, TypeVar, Unpack, overload

from text_generation.chat import named_model
from text_generation.chat_types import CompletionRequest

AnswerT = TypeVar("AnswerT", covariant=True)
StreamT = TypeVar("StreamT", covariant=True)


class CompletionOptions(TypedDict, total=False):
    """What there is to choose for a completion: what `ChatOptions` says of these."""

    frequency_penalty: float | None
    max_tokens: int | None
    repetition_penalty: float | None
    seed: int | None
    temperature: float | None
    top_p: float | None
    stop: list[str] | None
    adapter_id: str | None
    lora_id: str | None
    model: str | None
    more: Mapping[str, Any] | None


class Completions(ABC, Generic[AnswerT, StreamT]):
    """Turns arguments into a request, and leaves it to the subclass to send it."""

    @overload
    def completion(
        self, prompt: str | list[str], *, stream: Literal[False] = False, **options: Unpack[CompletionOptions]
    ) -> AnswerT: ...
    @overload
    def completion(
        self, prompt: str | list[str], *, stream: Literal[True], **options: Unpack[CompletionOptions]
    ) -> StreamT: ...
    def completion(
        self,
        prompt: str | list[str],
        frequency_penalty: float | None = None,
        max_tokens: int | None = None,
        repetition_penalty: float | None = None,
        seed: int | None = None,
        stream: bool = False,
        temperature: float | None = None,
        top_p: float | None = None,
        stop: list[str] | None = None,
        adapter_id: str | None = None,
        lora_id: str | None = None,
        model: str | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> AnswerT | StreamT:
        """Go on with a prompt or with several, whole or with `stream` in chunks."""
        request = CompletionRequest(
            model=named_model(model, adapter_id, lora_id),
            prompt=prompt,
            frequency_penalty=frequency_penalty,
            max_tokens=max_tokens,
            repetition_penalty=repetition_penalty,
            seed=seed,
            stream=stream,
            temperature=temperature,
            top_p=top_p,
            stop=stop,
            adapter_id=adapter_id,
            lora_id=lora_id,
            **more or {},
        )
        return self._completion_stream(request) if stream else self._completion(request)

    @abstractmethod
    def _completion(self, request: CompletionRequest) -> AnswerT:
        """Send the request and read the whole answer."""

    @abstractmethod
    def _completion_stream(self, request: CompletionRequest) -> StreamT:
        """Send the request and read the answer's chunks as they come."""
