"""Types of generate_pb2_grpc, as seen from an asyncio channel."""

from collections.abc import Awaitable, Sequence
from typing import Protocol, TypeVar

from text_generation_protocol.v3 import generate_pb2 as pb

_Request = TypeVar("_Request", contravariant=True)
_Response = TypeVar("_Response", covariant=True)

class _Call(Protocol[_Request, _Response]):
    def __call__(
        self, request: _Request, *, timeout: float | None = ..., metadata: Sequence[tuple[str, str]] | None = ...
    ) -> Awaitable[_Response]: ...

class TextGenerationServiceStub:
    def __init__(self, channel: object) -> None: ...
    Info: _Call[pb.InfoRequest, pb.InfoResponse]
    ServiceDiscovery: _Call[pb.ServiceDiscoveryRequest, pb.ServiceDiscoveryResponse]
    ClearCache: _Call[pb.ClearCacheRequest, pb.ClearCacheResponse]
    FilterBatch: _Call[pb.FilterBatchRequest, pb.FilterBatchResponse]
    Warmup: _Call[pb.WarmupRequest, pb.WarmupResponse]
    Prefill: _Call[pb.PrefillRequest, pb.PrefillResponse]
    Decode: _Call[pb.DecodeRequest, pb.DecodeResponse]
    Health: _Call[pb.HealthRequest, pb.HealthResponse]

def add_TextGenerationServiceServicer_to_server(servicer: object, server: object) -> None: ...
