"""Types of adapters_pb2_grpc, as seen from an asyncio channel."""

from collections.abc import Awaitable, Sequence
from typing import Protocol, TypeVar

from text_generation_protocol.kvrun_v1 import adapters_pb2 as pb

_Request = TypeVar("_Request", contravariant=True)
_Response = TypeVar("_Response", covariant=True)

class _Call(Protocol[_Request, _Response]):
    def __call__(
        self, request: _Request, *, timeout: float | None = ..., metadata: Sequence[tuple[str, str]] | None = ...
    ) -> Awaitable[_Response]: ...

class AdaptersStub:
    def __init__(self, channel: object) -> None: ...
    Load: _Call[pb.LoadRequest, pb.LoadResponse]
    Unload: _Call[pb.UnloadRequest, pb.UnloadResponse]
    List: _Call[pb.ListRequest, pb.ListResponse]
    Pin: _Call[pb.PinRequest, pb.PinResponse]

def add_AdaptersServicer_to_server(servicer: object, server: object) -> None: ...
