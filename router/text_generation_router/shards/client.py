"""The shards as one: every call goes to all of them, and their answers are merged.

Knows nothing of queues, blocks or HTTP.
"""

import asyncio
from collections.abc import Awaitable, Iterable, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar, cast

import grpc

from text_generation_protocol import calls
from text_generation_protocol.v3 import generate_pb2 as pb
from text_generation_protocol.v3.generate_pb2_grpc import TextGenerationServiceStub
from text_generation_router.errors import StartError
from text_generation_router.shards.adapter_calls import AdapterCalls
from text_generation_router.shards.answers import MergedAnswer, shard_error
from text_generation_router.shards.requests import request_message
from text_generation_router.shards.steps import PushedSteps
from text_generation_router.types import (
    CachedBatch,
    Sampling,
    ShardInfo,
    StepAnswer,
    ValidRequest,
    WarmupAnswer,
    WireRequest,
)

_LOOK_S = 0.05
"""Between two looks for a shard that is still loading."""

_PROBE_ID = 2**64 - 1
"""Request and batch id of a probe; its token goes to scratch space, block and slot 0."""

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
            pushes_steps=answer.pushes_steps and len(self._stubs) == 1,
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
        batch = calls.batch(batch_id, [request_message(request) for request in requests])
        message = pb.PrefillRequest(batch=batch, cached_batch=cast(pb.CachedBatch | None, cached))
        return _step([stub.Prefill(message, metadata=carried or None) for stub in self._stubs])

    def decode(self, batches: Iterable[CachedBatch], carried: Sequence[tuple[str, str]] = ()) -> Awaitable[StepAnswer]:
        """Start a Decode of batches, which are joined; it leaves at the loop's next turn, without being awaited."""
        message = pb.DecodeRequest(batches=cast(Iterable[pb.CachedBatch], batches))
        return _step([stub.Decode(message, metadata=carried or None) for stub in self._stubs])

    def steps(self, batches: Iterable[CachedBatch]) -> PushedSteps:
        """Start decoding batches, which are joined, until told otherwise. Only for a shard that says it can."""
        (channel,) = self._channels
        return PushedSteps(channel, [batch.id for batch in batches])


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
    return MergedAnswer(await _all(pending))


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
        raise shard_error(failure) from failure
    return answers


async def _until_lost(channel: grpc.aio.Channel) -> None:
    state = channel.get_state(try_to_connect=True)
    while state not in (grpc.ChannelConnectivity.TRANSIENT_FAILURE, grpc.ChannelConnectivity.SHUTDOWN):
        await channel.wait_for_state_change(state)
        state = channel.get_state(try_to_connect=True)


def _channel(place: str) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(calls.target(place), options=calls.CHANNEL_OPTIONS)
