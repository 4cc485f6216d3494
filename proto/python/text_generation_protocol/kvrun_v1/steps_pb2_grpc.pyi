"""Types of steps_pb2_grpc, as seen from an asyncio channel."""

from collections.abc import AsyncIterable
from typing import Protocol, TypeVar

from text_generation_protocol.kvrun_v1 import steps_pb2 as pb

_Request = TypeVar("_Request", contravariant=True)
_Response = TypeVar("_Response", covariant=True)

class _Answers(Protocol[_Response]):
    async def read(self) -> _Response | object: ...

class _Call(Protocol[_Request, _Response]):
    def __call__(self, requests: AsyncIterable[_Request]) -> _Answers[_Response]: ...

class StepsStub:
    def __init__(self, channel: object) -> None: ...
    Decode: _Call[pb.StepsRequest, pb.Step]

def add_StepsServicer_to_server(servicer: object, server: object) -> None: ...
