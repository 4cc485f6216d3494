"""The shards' calls for adapters, kvrun.v1.Adapters. Knows not what they are called by clients."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc

from text_generation_protocol.kvrun_v1 import adapters_pb2 as pb
from text_generation_protocol.kvrun_v1.adapters_pb2_grpc import AdaptersStub
from text_generation_router.errors import AdapterRefused

T = TypeVar("T")

_RESIDENCY = {pb.RESIDENCY_DISK: "disk", pb.RESIDENCY_HOST: "host", pb.RESIDENCY_DEVICE: "device"}

_STATUS = {
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.INVALID_ARGUMENT: 422,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 507,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.UNAVAILABLE: 503,
}
"""HTTP's, by the shards'; everything else is 424."""

_NOT_OURS = (
    "the shards are another project's, which load no adapters while they serve: name adapters when they are started"
)


@dataclass(frozen=True, slots=True)
class AdapterInfo:
    """What the shards say of an adapter; see `adapters.proto`."""

    name: str
    rank: int
    targets: tuple[str, ...]
    digest: str
    residency: str
    pinned: bool
    requests: int
    requests_total: int


class AdapterCalls:
    """Calls all shards at once. Errors of a call come as `AdapterRefused`."""

    def __init__(self, channels: Sequence[grpc.aio.Channel]) -> None:
        self._stubs = [AdaptersStub(channel) for channel in channels]

    async def load(self, name: str, place: str, token: str | None) -> AdapterInfo:
        """Give a name to the adapter at a place."""
        return await self._load(pb.LoadRequest(name=name, place=place, hub_token=token))

    async def find(self, name: str, wanted: str) -> AdapterInfo:
        """Give a name to the adapter that the shards have on disk under another."""
        return await self._load(pb.LoadRequest(name=name, find=wanted))

    async def _load(self, request: pb.LoadRequest) -> AdapterInfo:
        return _info((await self._all(lambda stub: stub.Load(request))).adapter)

    async def unload(self, name: str) -> None:
        """Free a name."""
        await self._all(lambda stub: stub.Unload(pb.UnloadRequest(name=name)))

    async def listed(self) -> list[AdapterInfo]:
        """All that have a name."""
        answer = await self._all(lambda stub: stub.List(pb.ListRequest()))
        return [_info(adapter) for adapter in answer.adapters]

    async def pin(self, name: str, pinned: bool) -> None:
        """Let an adapter stay in memory, or no longer."""
        await self._all(lambda stub: stub.Pin(pb.PinRequest(name=name, pinned=pinned)))

    async def _all(self, call: Callable[[AdaptersStub], Awaitable[T]]) -> T:
        """The last shard's answer; they are all alike."""
        try:
            return [await answer for answer in [call(stub) for stub in self._stubs]][-1]
        except grpc.aio.AioRpcError as error:
            told = _NOT_OURS if error.code() is grpc.StatusCode.UNIMPLEMENTED else error.details() or ""
            raise AdapterRefused(_STATUS.get(error.code(), 424), told) from error


def _info(adapter: Any) -> AdapterInfo:
    return AdapterInfo(
        *(adapter.name, adapter.rank, tuple(adapter.targets), adapter.digest, _RESIDENCY[adapter.residency]),
        *(adapter.pinned, adapter.requests, adapter.requests_total),
    )
