"""A caller of one protocol version: plain stubs on a Unix socket. Knows nothing of the server's code."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import grpc
import pytest

from text_generation_protocol.v2 import generate_pb2 as pb_v2
from text_generation_protocol.v2 import generate_pb2_grpc as grpc_v2
from text_generation_protocol.v3 import generate_pb2 as pb_v3
from text_generation_protocol.v3 import generate_pb2_grpc as grpc_v3

VERSIONS: dict[str, tuple[ModuleType, ModuleType]] = {"v2": (pb_v2, grpc_v2), "v3": (pb_v3, grpc_v3)}

HEALTH_ID = 2**64 - 1
LENGTH, EOS_TOKEN, STOP_SEQUENCE = 0, 1, 2
ROUTER_LIMIT = 4 * 2**20
"""Bytes of the largest answer that tonic takes, which no router raises (docs/protocol.md#sizes)."""

Message = Any


class Caller:
    """Makes messages of its version and sends them; answers that routers cannot take are errors here too."""

    def __init__(self, socket: Path, version: str) -> None:
        self.version = version
        self.pb, rpc = VERSIONS[version]
        options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", ROUTER_LIMIT)]
        self.channel = grpc.insecure_channel(f"unix://{socket}", options=options)
        self.stub = rpc.TextGenerationServiceStub(self.channel)

    def close(self) -> None:
        """End the connection."""
        self.channel.close()

    def raw(self, method: str, content: bytes = b"") -> bytes:
        """Call a method of this version's service with bytes, for bytes."""
        path = f"/generate.{self.version}.TextGenerationService/{method}"
        answer: bytes = self.channel.unary_unary(path)(content, timeout=30)
        return answer

    def parameters(self, **changes: object) -> Message:
        """NextTokenChooserParameters, neutral but for the changes."""
        neutral = {"temperature": 1.0, "top_p": 1.0, "typical_p": 1.0, "repetition_penalty": 1.0}
        return self.pb.NextTokenChooserParameters(**neutral | changes)

    def request(
        self,
        request_id: int,
        text: str = "hello",
        new: int = 5,
        *,
        stops: Sequence[str] = (),
        ignore_eos: bool = True,
        parameters: dict[str, object] | None = None,
        **changes: object,
    ) -> Message:
        """A greedy request without special tokens where that can be said."""
        stopping = self.pb.StoppingCriteriaParameters(
            max_new_tokens=new, stop_sequences=stops, ignore_eos_token=ignore_eos
        )
        return self.pb.Request(
            **{
                "id": request_id,
                "inputs": text,
                "parameters": self.parameters(**parameters or {}),
                "stopping_parameters": stopping,
            }
            | changes
        )

    def prefill(self, batch_id: int, *requests: Message, cached: int | None = None) -> Message:
        """Prefill a batch, joined to a cached one if that is named."""
        joined = {} if cached is None else {"cached_batch": self.pb.CachedBatch(id=cached)}
        batch = self.pb.Batch(id=batch_id, requests=requests, size=len(requests))
        return self.stub.Prefill(self.pb.PrefillRequest(batch=batch, **joined), timeout=60)

    def decode(self, *batch_ids: int) -> Message:
        """One step of these batches."""
        batches = [self.pb.CachedBatch(id=batch_id) for batch_id in batch_ids]
        return self.stub.Decode(self.pb.DecodeRequest(batches=batches), timeout=60)

    def filter(self, batch_id: int, keep: Sequence[int]) -> Message:
        """Keep these requests; the CachedBatch that is left."""
        return self.stub.FilterBatch(self.pb.FilterBatchRequest(batch_id=batch_id, request_ids=keep), timeout=60).batch

    def clear(self, batch_id: int | None = None) -> Message:
        """Drop a batch, or all."""
        return self.stub.ClearCache(self.pb.ClearCacheRequest(id=batch_id), timeout=60)

    def warmup(self, *requests: Message, prefill: int = 64, **limits: int) -> Message:
        """Warm up with these requests."""
        batch = self.pb.Batch(requests=requests, size=len(requests))
        return self.stub.Warmup(self.pb.WarmupRequest(batch=batch, max_prefill_tokens=prefill, **limits), timeout=120)

    def health(self) -> Message:
        """The Health call."""
        return self.stub.Health(self.pb.HealthRequest(), timeout=60)

    def liveness(self, **changes: object) -> Message:
        """The Prefill that routers send as a health check (docs/protocol.md#liveness)."""
        return self.prefill(HEALTH_ID, self.request(HEALTH_ID, "liveness", 1, ignore_eos=False, **changes))

    def run_out(self, response: Message) -> dict[int, list[Message]]:
        """Decode until nothing is cached; every Generation from this response on, by request."""
        generations: dict[int, list[Message]] = {}
        while True:
            for generation in response.generations:
                generations.setdefault(generation.request_id, []).append(generation)
            if not response.HasField("batch"):
                return generations
            response = self.decode(response.batch.id)

    def answer(self, request: Message, batch_id: int = 1000) -> list[Message]:
        """All Generations of a request that is served alone."""
        return self.run_out(self.prefill(batch_id, request))[request.id]


def ids_of(generations: Sequence[Message]) -> list[int]:
    """The generated token ids."""
    return [token for generation in generations for token in generation.tokens.ids]


def logprobs_of(generations: Sequence[Message]) -> list[float]:
    """Their log-probabilities."""
    return [logprob for generation in generations for logprob in generation.tokens.logprobs]


def texts_of(generations: Sequence[Message]) -> list[str]:
    """Their texts."""
    return [text for generation in generations for text in generation.tokens.texts]


def batch_of(response: Message) -> tuple[int, list[int], int] | None:
    """Id, request ids and size of the batch that is cached now."""
    batch = response.batch
    return (batch.id, list(batch.request_ids), batch.size) if response.HasField("batch") else None


@contextmanager
def refused(*codes: grpc.StatusCode, says: str = ".") -> Iterator[None]:
    """What is done inside is answered with one of these statuses (any, if none is named)."""
    with pytest.raises(grpc.RpcError, match=says) as caught:
        yield
    assert not codes or caught.value.code() in codes, caught.value
    assert caught.value.details()
