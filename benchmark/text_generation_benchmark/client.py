"""Calls on all shards of a server over their Unix sockets (generate.v3). Knows neither workloads nor clocks.

Blocking stubs rather than asyncio: one call is under way at a time, and theirs is the shorter way to the socket.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc

from text_generation_benchmark.errors import BenchmarkError
from text_generation_protocol import calls
from text_generation_protocol.v3 import generate_pb2 as pb
from text_generation_protocol.v3.generate_pb2_grpc import TextGenerationServiceStub

_FAREWELL_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class ShardInfo:
    """What a server says about itself; `shards` is the number of sockets it wants to be called on.

    block_size: 0 from shards before version 2.4, which do not say it. window_size: tokens that a request's blocks hold
    at most, None for all.
    """

    shards: int
    dtype: str
    device_type: str
    attention_impl: str
    block_size: int
    window_size: int | None
    speculate: int
    requires_padding: bool
    support_chunking: bool
    use_prefix_caching: bool

    @property
    def allocates(self) -> bool:
        """Whether its callers choose blocks and slots; others choose them themselves, for one batch at a time."""
        return self.block_size > 0 and not self.requires_padding


@dataclass(frozen=True, slots=True)
class WarmupLimits:
    """What a router allows, in tokens: a forward pass, a prompt, and prompt and answer together."""

    max_prefill_tokens: int
    max_input_tokens: int
    max_total_tokens: int


@dataclass(frozen=True, slots=True)
class Ending:
    """How a request ended: its number of tokens, and their text; failed: the text says why it has no answer."""

    tokens: int
    text: str
    failed: bool


class Answer:
    """What one step returned, all shards' parts together."""

    def __init__(self, parts: Sequence[pb.PrefillResponse | pb.DecodeResponse]) -> None:
        self._parts = parts

    @property
    def batch(self) -> pb.CachedBatch | None:
        """What the shards keep, if any request goes on."""
        last = self._parts[-1]
        return last.batch if last.HasField("batch") else None

    def advanced(self) -> set[int]:
        """The requests that got tokens."""
        return {generation.request_id for generation in self._generations()}

    def tokens(self) -> int:
        """How many tokens there are, of all requests."""
        return sum(len(generation.tokens.ids) for generation in self._generations())

    def ids(self, request_id: int) -> list[int]:
        """The tokens of one request."""
        mine = (generation for generation in self._generations() if generation.request_id == request_id)
        return [token for generation in mine for token in generation.tokens.ids]

    def endings(self) -> dict[int, Ending]:
        """The requests that ended."""
        return {
            generation.request_id: Ending(end.generated_tokens, end.text, end.HasField("failure"))
            for generation in self._generations()
            if generation.HasField("generated_text")
            for end in [generation.generated_text]
        }

    def forward_s(self) -> float:
        """How long the slowest shard's device worked on the step."""
        return max(part.forward_ns for part in self._parts) / 1e9

    def _generations(self) -> Iterator[pb.Generation]:
        for part in self._parts:
            yield from part.generations


class ShardClient:
    """A connection to every shard. A call that fails raises BenchmarkError."""

    def __init__(self, channels: Sequence[grpc.Channel]) -> None:
        self._channels = channels
        self._stubs = [TextGenerationServiceStub(channel) for channel in channels]

    @classmethod
    def connect(cls, socket: Path) -> Self:
        """Ask the first shard for all sockets, and connect to them."""
        if not socket.exists():
            raise BenchmarkError(
                f"no socket at {socket}; start the server first, or say where it listens with --master-shard-uds-path"
            )
        with _channel(str(socket)) as channel:
            found = _result(
                "ServiceDiscovery", TextGenerationServiceStub(channel).ServiceDiscovery, pb.ServiceDiscoveryRequest()
            )
        return cls([_channel(url) for url in found.urls])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave nothing cached, whatever happened, and hang up."""
        for stub in self._stubs:
            with contextlib.suppress(grpc.RpcError):  # a shard that is gone has no cache
                stub.ClearCache(pb.ClearCacheRequest(), timeout=_FAREWELL_SECONDS)
        for channel in self._channels:
            channel.close()

    def info(self) -> ShardInfo:
        """What the last shard says about itself; they are all alike."""
        answer = self._all("Info", pb.InfoRequest())[-1]
        return ShardInfo(
            shards=len(self._stubs),
            dtype=answer.dtype,
            device_type=answer.device_type,
            attention_impl=answer.attention_impl,
            block_size=answer.block_size,
            window_size=answer.window_size if answer.HasField("window_size") else None,
            speculate=answer.speculate,
            requires_padding=answer.requires_padding,
            support_chunking=answer.support_chunking,
            use_prefix_caching=answer.use_prefix_caching,
        )

    def clear(self) -> None:
        """Forget all batches."""
        self._all("ClearCache", pb.ClearCacheRequest())

    def warm_up(self, limits: WarmupLimits) -> int | None:
        """Let the shards try their largest batch; how many tokens fit into their caches, if they say it."""
        request = calls.warmup(limits.max_prefill_tokens, limits.max_input_tokens, limits.max_total_tokens)
        least = calls.least(self._all("Warmup", request))
        return least.max_supported_total_tokens if least.HasField("max_supported_total_tokens") else None

    def prefill(self, request: pb.PrefillRequest) -> Answer:
        """The first step of a batch."""
        return Answer(self._all("Prefill", request))

    def decode(self, batches: Sequence[pb.CachedBatch]) -> Answer:
        """One step of some batches, which become one."""
        return Answer(self._all("Decode", pb.DecodeRequest(batches=batches)))

    def unfinished(self, answer: Answer) -> list[pb.CachedBatch]:
        """The batch to go on with, if any: without requests that have ended, which some shards leave in it."""
        batch, ended = answer.batch, answer.endings()
        if batch is None:
            return []
        if ended and (kept := [id_ for id_ in batch.request_ids if id_ not in ended]) != batch.request_ids:
            batch = self._all("FilterBatch", pb.FilterBatchRequest(batch_id=batch.id, request_ids=kept))[-1].batch
        return [batch]

    def _all(self, method: str, request: Any) -> list[Any]:
        """Every shard's answer. With several, all calls are under way before the first is waited for."""
        methods = [getattr(stub, method) for stub in self._stubs]
        if len(methods) == 1:
            return [_result(method, methods[0], request)]
        futures = [call.future(request) for call in methods]
        return [_result(method, lambda _, future=future: future.result(), request) for future in futures]


def _result(method: str, call: Any, request: Any) -> Any:
    try:
        return call(request)
    except grpc.RpcError as error:
        code, details = error.code().name, error.details()
        raise BenchmarkError(f"{method} failed: {details} ({code})") from error


def _channel(place: str) -> grpc.Channel:
    return grpc.insecure_channel(calls.target(place), options=calls.CHANNEL_OPTIONS)
