"""The calls of kvrun.v1.Adapters: adapters loaded, dropped, pinned and listed while a shard serves. Knows no files."""

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from text_generation_protocol.kvrun_v1 import adapters_pb2 as pb
from text_generation_server.adapters.files import AdapterFiles
from text_generation_server.adapters.known import AdapterStatus
from text_generation_server.adapters.registry import AdapterRegistry
from text_generation_server.adapters.sources import AdapterSource
from text_generation_server.errors import InvalidRequest, UnknownAdapter, excerpt

T = TypeVar("T")
Context = Any
"""What grpc hands to a call; unused, for errors are raised."""

RESIDENCY = {"disk": pb.RESIDENCY_DISK, "host": pb.RESIDENCY_HOST, "device": pb.RESIDENCY_DEVICE}


class AdaptedEngine(Protocol):
    """The engine as these calls need it; on its own thread only."""

    @property
    def adapters(self) -> AdapterRegistry: ...


class EngineCalls(Protocol):
    """The engine thread."""

    def submit(self, call: Callable[[AdaptedEngine], T]) -> Future[T]:
        """Queue `call(engine)`."""


class AdapterService:
    """The calls, on rank 0. files: where adapters come from."""

    def __init__(self, loop: EngineCalls, files: AdapterFiles) -> None:
        self._loop = loop
        self._files = files

    def Load(self, request: pb.LoadRequest, context: Context) -> pb.LoadResponse:
        """Download if need be, read on all ranks, name; each where nothing else waits for it.

        Raises StartError, InvalidRequest, NotEnoughMemory; the text says why it cannot be served.
        """
        source = self._source(request)
        self._run(lambda adapters: adapters.load(source)).result()
        status = {one.name: one for one in self._run(AdapterRegistry.status)}
        if source.name not in status:
            raise UnknownAdapter(f"the adapter {source.name!r} was unloaded while it was being loaded")
        return pb.LoadResponse(adapter=_adapter(status[source.name]))

    def Unload(self, request: pb.UnloadRequest, context: Context) -> pb.UnloadResponse:
        """Raises UnknownAdapter."""
        self._run(lambda adapters: adapters.unload(request.name))
        return pb.UnloadResponse()

    def List(self, request: pb.ListRequest, context: Context) -> pb.ListResponse:
        """All that have a name."""
        return pb.ListResponse(adapters=[_adapter(one) for one in self._run(AdapterRegistry.status)])

    def Pin(self, request: pb.PinRequest, context: Context) -> pb.PinResponse:
        """Raises UnknownAdapter, InvalidRequest."""
        self._run(lambda adapters: adapters.pin(request.name, request.pinned))
        return pb.PinResponse()

    def _source(self, request: pb.LoadRequest) -> AdapterSource:
        """A local one."""
        name = request.name
        if not name:
            raise InvalidRequest("the adapter has no name; give it one")
        if request.place:
            token = request.hub_token if request.HasField("hub_token") else None
            return self._files.fetched(AdapterSource(name, request.place, request.revision or None), token)
        wanted = request.find if request.HasField("find") else name
        found = self._files.found([wanted])
        if wanted not in found:
            raise UnknownAdapter(
                f"there is no adapter {excerpt(wanted)!r} in the directory of adapters (--lora-dir) or in the hub cache"
            )
        return replace(found[wanted], name=name)

    def _run(self, call: Callable[[AdapterRegistry], T]) -> T:
        return self._loop.submit(lambda engine: call(engine.adapters)).result()


def _adapter(status: AdapterStatus) -> pb.Adapter:
    return pb.Adapter(
        name=status.name,
        rank=status.rank,
        targets=status.targets,
        generation=status.generation,
        residency=RESIDENCY[status.residency],
        pinned=status.pinned,
        requests=status.requests,
        requests_total=status.requests_total,
        digest=status.digest,
    )
