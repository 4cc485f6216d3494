"""Messages to engine types and back, where both protocol versions agree. Knows no engine, sockets or tokenizer."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from loguru import logger

from text_generation_server.engine.types import (
    BatchView,
    Failure,
    FinishReason,
    GeneratedText,
    Generation,
    PrefillCommand,
    RefusedRequest,
    Request,
    ShardInfo,
    StepResult,
    StoppingParams,
    TokenList,
    WarmupCommand,
    WarmupResult,
)
from text_generation_server.errors import InvalidRequest
from text_generation_server.grammar.grammar_type import GrammarType
from text_generation_server.images.types import PlacedImage
from text_generation_server.sampling.params import SamplingParams
from text_generation_server.sampling.sanitise import sanitised

Message = Any
"""A message of the version's own generated module: the versions' classes share names, but are different ones."""

ROUTER_LIMIT = 4 * 2**20
"""Bytes of the largest answer that routers take (docs/protocol.md#sizes)."""

DISPENSABLE: dict[str, Callable[[Message], int]] = {
    "prefill_top_tokens": lambda generation: sum(len(t.ids) for t in getattr(generation, "prefill_top_tokens", ())),
    "prefill_tokens": lambda generation: len(generation.prefill_tokens.ids),
    "top_tokens": lambda generation: sum(len(tokens.ids) for tokens in generation.top_tokens),
}
"""Lists of a Generation that may be left out, and how long they are."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt's text; `truncate` > 0 keeps that many tokens from its end, special ones included.

    ids: the prompt itself, where it came as ids. images: what follows the text, each as its file or URL and the text
    behind it.
    """

    text: str
    truncate: int
    add_special_tokens: bool
    ids: tuple[int, ...] = ()
    images: tuple[tuple[bytes | str, str], ...] = ()

    def without_images(self) -> "Prompt":
        """The same with its texts alone."""
        return replace(self, text=self.text + "".join(text for _, text in self.images), images=())


class EncodedPrompt(NamedTuple):
    """A prompt's ids, and what it shows."""

    ids: tuple[int, ...]
    images: tuple[PlacedImage, ...] = ()


Encoded = EncodedPrompt | InvalidRequest
"""A prompt as the engine takes it, or why it cannot."""

Encode = Callable[[Sequence[Prompt]], Sequence[Encoded]]
"""Makes ids of prompts."""


def readable(encoded: Encoded) -> EncodedPrompt:
    """The prompt. Raises InvalidRequest where there is none."""
    if isinstance(encoded, InvalidRequest):
        raise encoded
    return encoded


class Wire(ABC):
    """One protocol version. `pb` is its generated module; what the versions differ in is abstract."""

    def __init__(self, pb: Any) -> None:
        self._pb = pb

    @abstractmethod
    def info(self, info: ShardInfo) -> Message:
        """InfoResponse."""

    @abstractmethod
    def prompt(self, message: Message) -> Prompt:
        """A Request's prompt."""

    @abstractmethod
    def request(self, message: Message, prompt: EncodedPrompt) -> Request:
        """Request."""

    def prefill_command(self, message: Message, encode: Encode) -> PrefillCommand:
        """PrefillRequest; requests that cannot be read are refused alone."""
        requests, refused = [], []
        messages = message.batch.requests
        for item, encoded in zip(messages, encode([self.prompt(one) for one in messages]), strict=True):
            try:
                requests.append(self.request(item, readable(encoded)))
            except InvalidRequest as error:
                refused.append(RefusedRequest(item.id, f"request {item.id}: {error}"))
        return PrefillCommand(message.batch.id, tuple(requests), self.joined_batch(message), tuple(refused))

    @abstractmethod
    def joined_batch(self, message: Message) -> int | None:
        """Id of the cached batch that a PrefillRequest joins."""

    @abstractmethod
    def prefill_response(self, result: StepResult, total_ns: int) -> Message:
        """PrefillResponse."""

    @abstractmethod
    def warmup_command(self, message: Message, encode: Encode) -> WarmupCommand:
        """WarmupRequest."""

    @abstractmethod
    def warmup_response(self, result: WarmupResult) -> Message:
        """WarmupResponse."""

    @abstractmethod
    def omits_special_tokens(self, message: Message) -> bool:
        """Whether a WarmupRequest's router never says that it wants special tokens (docs/protocol.md#warming-up)."""

    @abstractmethod
    def cached_batch(self, batch: BatchView) -> Message:
        """CachedBatch."""

    def _warmup_requests(self, messages: Sequence[Message], encode: Encode) -> tuple[Request, ...]:
        """All of them, without the image that routers always send. Raises InvalidRequest if one cannot be read."""
        encoded = encode([self.prompt(message).without_images() for message in messages])
        return tuple(self.request(item, readable(one)) for item, one in zip(messages, encoded, strict=True))

    def discovery(self, urls: list[str]) -> Message:
        """ServiceDiscoveryResponse."""
        return self._pb.ServiceDiscoveryResponse(urls=urls)

    def health(self) -> Message:
        """HealthResponse."""
        return self._pb.HealthResponse()

    def cleared(self) -> Message:
        """ClearCacheResponse."""
        return self._pb.ClearCacheResponse()

    def filtered(self, batch: BatchView) -> Message:
        """FilterBatchResponse."""
        return self._pb.FilterBatchResponse(batch=self.cached_batch(batch))

    def decode_response(self, result: StepResult, total_ns: int) -> Message:
        """DecodeResponse."""
        response = self._pb.DecodeResponse(**self._step(result, total_ns), concat_ns=result.concat_ns)
        return within_router_limit(response)

    def _step(self, result: StepResult, total_ns: int) -> dict[str, Any]:
        """What the answers of Prefill and Decode have in common in every version."""
        return {
            "generations": [generation_fields(generation) for generation in result.generations],
            "batch": None if result.batch is None else self.cached_batch(result.batch),
            "forward_ns": result.forward_ns,
            "decode_ns": result.decode_ns,
            # A step may have run before the call that reports it; routers still expect the parts within the whole.
            "total_ns": max(total_ns, result.forward_ns + result.decode_ns + (result.concat_ns or 0)),
        }


def sampling_params(message: Message, **more: Any) -> SamplingParams:
    """NextTokenChooserParameters; fields left at zero are neutral (docs/protocol.md#choosing-tokens).

    more: what one version alone has.
    """
    return sanitised(
        SamplingParams(
            temperature=message.temperature,
            top_k=message.top_k,
            top_p=message.top_p,
            typical_p=message.typical_p,
            do_sample=message.do_sample,
            seed=message.seed,
            repetition_penalty=message.repetition_penalty,
            frequency_penalty=message.frequency_penalty,
            watermark=message.watermark,
            grammar=message.grammar,
            grammar_type=_grammar_type(message.grammar_type),
            **more,
        )
    )


def _grammar_type(number: int) -> GrammarType:
    try:
        return GrammarType(number)
    except ValueError:
        kinds = ", ".join(f"{kind.value} ({kind.name})" for kind in GrammarType)
        raise InvalidRequest(f"grammar_type is {number}, expected one of {kinds}") from None


def stopping_params(message: Message, **more: Any) -> StoppingParams:
    """StoppingCriteriaParameters. more: what one version alone has."""
    return StoppingParams(
        max_new_tokens=message.max_new_tokens,
        stop_sequences=tuple(message.stop_sequences),
        ignore_eos=message.ignore_eos_token,
        **more,
    )


def generation_fields(generation: Generation) -> dict[str, Any]:
    """Generation, as a dict of its fields: messages in messages are made twice as fast that way, one a row and step."""
    fields: dict[str, Any] = {"request_id": generation.request_id, "tokens": _tokens(generation.tokens)}
    if generation.prefill_tokens is not None:
        fields["prefill_tokens"] = _tokens(generation.prefill_tokens)
    if generation.prefill_top_tokens:
        fields["prefill_top_tokens"] = [_tokens(tokens) for tokens in generation.prefill_top_tokens]
    if generation.top_tokens:
        fields["top_tokens"] = [_tokens(tokens) for tokens in generation.top_tokens]
    if generation.finished is not None:
        end = generation.finished
        fields["generated_text"] = _failure(end) if isinstance(end, Failure) else _generated_text(end)
    return fields


def _tokens(tokens: TokenList) -> dict[str, Any]:
    """Tokens."""
    return {
        "ids": tokens.ids,
        "logprobs": tokens.logprobs,
        "texts": tokens.texts,
        "is_special": tokens.is_special,
    }


def _generated_text(text: GeneratedText) -> dict[str, Any]:
    """GeneratedText."""
    return {
        "text": text.text,
        "generated_tokens": text.generated_tokens,
        "finish_reason": text.finish_reason.value,
        "seed": text.seed,
    }


def _failure(failure: Failure) -> dict[str, Any]:
    """GeneratedText of a request that failed alone; routers that do not know `failure` see an answer that says why."""
    return {
        "text": failure.reason,
        "generated_tokens": failure.generated_tokens,
        "finish_reason": FinishReason.EOS_TOKEN.value,
        "failure": failure.reason,
    }


def within_router_limit(response: Message) -> Message:
    """Lists that a generation can do without are left out of answers that no router takes, the longest first."""
    if response.ByteSize() <= ROUTER_LIMIT:
        return response
    for field, length in DISPENSABLE.items():
        for generation in sorted(response.generations, key=length, reverse=True):
            if response.ByteSize() <= ROUTER_LIMIT:
                return response
            if length(generation):
                logger.warning(
                    "request {}: {} are left out, the answer would exceed the {} bytes that routers take",
                    *(generation.request_id, field, ROUTER_LIMIT),
                )
                generation.ClearField(field)
    return response
