"""The shards as one: every call goes to all of them, and their answers are merged.

With `adapter_calls`, the only module that knows gRPC and protobuf. How routers call shards is in
`text_generation_protocol.calls`; here is what this one's nouns become. Knows nothing of queues, blocks or HTTP.
"""

import asyncio
from collections.abc import Awaitable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar, cast

import grpc

from text_generation_protocol import calls
from text_generation_protocol.v3 import generate_pb2 as pb
from text_generation_protocol.v3.generate_pb2_grpc import TextGenerationServiceStub
from text_generation_router.adapter_calls import AdapterCalls
from text_generation_router.errors import ShardError, StartError
from text_generation_router.types import (
    CachedBatch,
    FinishReason,
    GeneratedText,
    Generation,
    Sampling,
    ShardInfo,
    StepAnswer,
    StepTimings,
    Token,
    ValidRequest,
    WarmupAnswer,
    WireRequest,
)
from text_generation_server.grammar.grammar_type import GrammarType

_LOOK_S = 0.05
"""Between two looks for a shard that is still loading."""

_PROBE_ID = 2**64 - 1
"""Request and batch id of a probe; its token goes to scratch space, block and slot 0."""

_FINISH_REASONS = {
    pb.FINISH_REASON_LENGTH: FinishReason.LENGTH,
    pb.FINISH_REASON_EOS_TOKEN: FinishReason.EOS_TOKEN,
    pb.FINISH_REASON_STOP_SEQUENCE: FinishReason.STOP_SEQUENCE,
}

_GRAMMAR_TYPES = {
    GrammarType.JSON: pb.GRAMMAR_TYPE_JSON,
    GrammarType.REGEX: pb.GRAMMAR_TYPE_REGEX,
    GrammarType.EBNF: pb.GRAMMAR_TYPE_EBNF,
}

_FOR_CLIENTS = {
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}
"""Statuses of errors that shards expect, whose texts are made for who asked; others are exceptions' own."""

T = TypeVar("T")


class ShardedClient:
    """Calls all shards at once. Errors of a call come as `ShardError`. adapters: the calls for those."""

    def __init__(self, channels: Sequence[grpc.aio.Channel]) -> None:
        self._channels = channels
        self.adapters = AdapterCalls(channels)
        self._stubs = [TextGenerationServiceStub(channel) for channel in channels]

    @classmethod
    async def connect(cls, master_path: str) -> Self:
        """Ask the shard at a Unix socket for all sockets, and connect to them. StartError if nobody answers there."""
        if not Path(master_path).exists():
            raise StartError(f"no socket at {master_path}; start text-generation-server first, or set the right path")
        async with _channel(master_path) as channel:
            try:
                found = await TextGenerationServiceStub(channel).ServiceDiscovery(pb.ServiceDiscoveryRequest())
            except grpc.aio.AioRpcError as error:
                raise StartError(f"no shard answers at {master_path}: {error.details()}") from error
        return cls([_channel(url) for url in found.urls])

    @staticmethod
    async def appear(master_path: str) -> None:
        """Return when somebody takes connections at a Unix socket. Who starts shards ends those that wait in vain."""
        while True:
            try:
                _, writer = await asyncio.open_unix_connection(master_path)
            except OSError:
                await asyncio.sleep(_LOOK_S)
            else:
                writer.close()
                return

    async def close(self) -> None:
        """Hang up."""
        for channel in self._channels:
            await channel.close(None)

    async def lost(self) -> None:
        """Return when a shard can no longer be reached."""
        watches = [asyncio.ensure_future(_until_lost(channel)) for channel in self._channels]
        try:
            await asyncio.wait(watches, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for watch in watches:
                watch.cancel()

    async def info(self) -> ShardInfo:
        """What the last shard says about itself; they are all alike."""
        answer = (await _all([stub.Info(pb.InfoRequest()) for stub in self._stubs]))[-1]
        return ShardInfo(
            requires_padding=answer.requires_padding,
            dtype=answer.dtype,
            device_type=answer.device_type,
            window_size=answer.window_size if answer.HasField("window_size") else None,
            speculate=answer.speculate,
            support_chunking=answer.support_chunking,
            shares_prefixes=answer.use_prefix_caching or answer.prefix_caching_by_adapter,
            attention_impl=answer.attention_impl,
            block_size=answer.block_size,
            support_resuming=answer.support_resuming,
            tells_prefill_room=answer.tells_prefill_room,
            vocab_size=answer.vocab_size if answer.HasField("vocab_size") else None,
            adapters=tuple(answer.adapter_ids),
            extensions=frozenset(answer.request_extensions),
        )

    async def health(self) -> None:
        """Return if all shards are alive."""
        await _all([stub.Health(pb.HealthRequest()) for stub in self._stubs])

    async def probe(self) -> None:
        """Return if all shards can generate a token. Must not run beside another Prefill or Decode."""
        answer = await self.prefill(_PROBE_ID, [_probe_request()], None)
        if answer.batch is not None:
            await self.clear_cache(_PROBE_ID)

    async def warmup(
        self,
        max_prefill_tokens: int,
        max_input_tokens: int | None,
        max_total_tokens: int | None,
        most_requests: int | None,
    ) -> WarmupAnswer:
        """Let the shards try their largest batch and size their cache; the smallest answer counts."""
        message = calls.warmup(max_prefill_tokens, max_input_tokens, max_total_tokens, most_requests)
        least = calls.least(await _all([stub.Warmup(message) for stub in self._stubs]))
        supported = least.max_supported_total_tokens if least.HasField("max_supported_total_tokens") else None
        most = least.max_batch_size if least.HasField("max_batch_size") else None
        return WarmupAnswer(supported, least.max_input_tokens, least.max_total_tokens, most)

    async def clear_cache(self, batch_id: int | None = None) -> None:
        """Forget a batch, or all."""
        await _all([stub.ClearCache(pb.ClearCacheRequest(id=batch_id)) for stub in self._stubs])

    async def filter_batch(self, batch_id: int, keep: list[int]) -> CachedBatch:
        """Leave only the requests `keep` in a batch, in this order."""
        message = pb.FilterBatchRequest(batch_id=batch_id, request_ids=keep)
        return (await _all([stub.FilterBatch(message) for stub in self._stubs]))[-1].batch

    def prefill(
        self,
        batch_id: int,
        requests: Sequence[WireRequest],
        cached: CachedBatch | None,
        carried: Sequence[tuple[str, str]] = (),
    ) -> Awaitable[StepAnswer]:
        """Start a Prefill of a new batch, joined with `cached` if given; it leaves at the loop's next turn.

        carried: metadata of the call, which tells the shards of its trace.
        """
        batch = calls.batch(batch_id, [_request(request) for request in requests])
        message = pb.PrefillRequest(batch=batch, cached_batch=cast(pb.CachedBatch | None, cached))
        return _step([stub.Prefill(message, metadata=carried or None) for stub in self._stubs])

    def decode(self, batches: Iterable[CachedBatch], carried: Sequence[tuple[str, str]] = ()) -> Awaitable[StepAnswer]:
        """Start a Decode of batches, which are joined; it leaves at the loop's next turn, without being awaited."""
        message = pb.DecodeRequest(batches=cast(Iterable[pb.CachedBatch], batches))
        return _step([stub.Decode(message, metadata=carried or None) for stub in self._stubs])


class _StepAnswer:
    """The answers of all shards to one Prefill or Decode, read lazily."""

    def __init__(self, answers: Sequence[pb.PrefillResponse | pb.DecodeResponse]) -> None:
        last = answers[-1]
        self._answers = [last, *answers[:-1]]
        self.batch: CachedBatch | None = last.batch if last.HasField("batch") else None
        slowest = max(answers, key=lambda answer: answer.total_ns)
        concat_ns = slowest.concat_ns if slowest.HasField("concat_ns") else None
        self.timings = StepTimings(slowest.forward_ns, slowest.decode_ns, concat_ns)

    def request_ids(self) -> list[int]:
        return [
            generation.request_id
            for answer in self._answers
            for generation in answer.generations
            if not generation.generated_text.HasField("failure")
        ]

    def finished(self) -> list[Generation]:
        return [
            _generation(generation)
            for answer in self._answers
            for generation in answer.generations
            if generation.HasField("generated_text")
        ]

    def generations(self) -> Iterator[Generation]:
        return (_generation(generation) for answer in self._answers for generation in answer.generations)


def _generation(message: pb.Generation) -> Generation:
    end = message.generated_text if message.HasField("generated_text") else None
    if end is not None and end.HasField("failure"):
        # In the words of a call that fails, as it does when the request is all there is.
        return Generation(message.request_id, [], [], [], None, f"Server error: {end.failure}")
    final = None if end is None else _final(end)
    top = message.top_tokens
    told = Generation(
        message.request_id, _tokens(message.tokens), [_tokens(tokens) for tokens in top] if top else [], [], final
    )
    if message.HasField("prefill_tokens"):
        told.prefill = _prompt_tokens(message.prefill_tokens)
        told.prefill_top = [_tokens(tokens) for tokens in message.prefill_top_tokens]
    return told


def _tokens(message: pb.Tokens) -> list[Token]:
    ids = message.ids
    if len(ids) == 1:  # nearly always; iterating protobuf's lists costs as much as all the rest
        return [Token(ids[0], message.texts[0], message.logprobs[0], message.is_special[0])]
    return list(map(Token, ids, message.texts, message.logprobs, message.is_special))


def _prompt_tokens(message: pb.Tokens) -> list[Token]:
    return [Token(*fields, False) for fields in zip(message.ids, message.texts, message.logprobs, strict=False)]


def _final(message: pb.GeneratedText) -> GeneratedText:
    seed = message.seed if message.HasField("seed") else None
    return GeneratedText(message.text, message.generated_tokens, _FINISH_REASONS[message.finish_reason], seed)


def _request(wire: WireRequest) -> pb.Request:
    request = wire.request
    return calls.request(
        "".join(part for part in request.chunks if isinstance(part, str)) if request.chunks else request.inputs,
        request.truncate,
        request.max_new_tokens,
        _parameters(request.sampling),
        stop_sequences=request.stop_sequences,
        stop_token_ids=request.stop_token_ids,
        min_new_tokens=request.min_new_tokens,
        ignore_eos=request.ignore_eos,
        chunks=[part if isinstance(part, str) else (part.data, part.kind) for part in request.chunks],
        prompt_ids=request.input_ids if request.given_as_ids else (),
        id=wire.id,
        add_special_tokens=request.add_special_tokens,
        adapter_id=request.adapter_id,
        blocks=wire.blocks,
        slots=wire.slots,
        cache_len=wire.cache_len,
        chunk_len=wire.chunk_len,
        generated_ids=wire.generated_ids,
        resumable=wire.resumable,
        prefill_logprobs=request.prefill_logprobs,
        prefill_top_n_tokens=request.prefill_top_n_tokens,
        top_n_tokens=request.top_n_tokens,
    )


def _parameters(sampling: Sampling) -> pb.NextTokenChooserParameters:
    return pb.NextTokenChooserParameters(
        temperature=sampling.temperature,
        top_k=sampling.top_k,
        top_p=sampling.top_p,
        typical_p=sampling.typical_p,
        do_sample=sampling.do_sample,
        seed=sampling.seed,
        repetition_penalty=sampling.repetition_penalty,
        frequency_penalty=sampling.frequency_penalty,
        watermark=sampling.watermark,
        grammar=sampling.grammar.text if sampling.grammar else "",
        grammar_type=_GRAMMAR_TYPES[sampling.grammar.type] if sampling.grammar else pb.GRAMMAR_TYPE_NONE,
        min_p=sampling.min_p,
        presence_penalty=sampling.presence_penalty,
        count_penalty=sampling.count_penalty,
        logit_bias=[pb.TokenBias(id=token, bias=bias) for token, bias in sampling.logit_bias],
    )


def _probe_request() -> WireRequest:
    request = ValidRequest(
        inputs="liveness",
        input_ids=(),
        truncate=1,
        sampling=Sampling(seed=0),
        max_new_tokens=1,
        add_special_tokens=False,
    )
    return WireRequest(_PROBE_ID, request, blocks=[0], slots=[0], cache_len=0, chunk_len=None)


async def _step(pending: Sequence[Awaitable[Any]]) -> StepAnswer:
    return _StepAnswer(await _all(pending))


async def _all(pending: Sequence[Awaitable[T]]) -> list[T]:
    """The answers of calls that are under way. Waits for all of them even if one fails."""
    answers: list[T] = []
    failure: grpc.aio.AioRpcError | None = None
    for call in pending:
        try:
            answers.append(await call)
        except grpc.aio.AioRpcError as error:
            failure = failure or error
    if failure is not None:
        lost = failure.code() == grpc.StatusCode.UNAVAILABLE
        wrapper = "Could not connect to Text Generation server" if lost else "Server error"
        text = f"{wrapper}: {failure.details()}"
        raise ShardError(text, lost, text if failure.code() in _FOR_CLIENTS else wrapper) from failure
    return answers


async def _until_lost(channel: grpc.aio.Channel) -> None:
    state = channel.get_state(try_to_connect=True)
    while state not in (grpc.ChannelConnectivity.TRANSIENT_FAILURE, grpc.ChannelConnectivity.SHUTDOWN):
        await channel.wait_for_state_change(state)
        state = channel.get_state(try_to_connect=True)


def _channel(place: str) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(calls.target(place), options=calls.CHANNEL_OPTIONS)
