"""The calls for adapters of a fake shard: what is at a place is a text, and nothing is computed with it."""

from typing import Any

import grpc

from text_generation_protocol.kvrun_v1 import adapters_pb2 as pb


class FakeAdapters:
    """The servicer. places: what can be loaded, digests by place. loaded: digests by name. log: calls, in order."""

    def __init__(self, **places: str) -> None:
        self.places = places
        self.loaded: dict[str, str] = {}
        self.log: list[tuple[str, ...]] = []
        self.tokens: list[str] = []

    async def Load(self, request: Any, context: Any) -> Any:
        place = request.place or request.find
        self.log.append(("load" if request.place else "find", request.name, place))
        self.tokens += [request.hub_token] if request.HasField("hub_token") else []
        digest = self.places.get(place)
        if digest is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"there is no {place}")
        if digest == "broken":
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "use_dora is True, expected an adapter without it")
        self.loaded[request.name] = digest
        return pb.LoadResponse(adapter=self._adapter(request.name))

    async def Unload(self, request: Any, _: Any) -> Any:
        self.log.append(("unload", request.name))
        del self.loaded[request.name]
        return pb.UnloadResponse()

    async def List(self, _: Any, __: Any) -> Any:
        return pb.ListResponse(adapters=[self._adapter(name) for name in self.loaded])

    async def Pin(self, request: Any, context: Any) -> Any:
        if request.name not in self.loaded:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"there is no adapter {request.name!r}")
        self.log.append(("pin" if request.pinned else "unpin", request.name))
        return pb.PinResponse()

    def _adapter(self, name: str) -> Any:
        return pb.Adapter(name=name, rank=8, targets=["q_proj"], residency=pb.RESIDENCY_HOST, digest=self.loaded[name])
