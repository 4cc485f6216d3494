"""Traces of a shard's calls, in the trace of the router that makes them."""

import grpc
import pytest

from mocks.collector import collecting
from text_generation_protocol.v2 import generate_pb2 as pb_v2
from text_generation_protocol.v3 import generate_pb2 as pb_v3
from text_generation_server.errors import UnknownBatch
from text_generation_server.tracing import Tracing

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
METADATA = (("traceparent", f"00-{TRACE}-{PARENT}-01"),)
PREFILL, DECODE = "/generate.v3.TextGenerationService/Prefill", "/generate.v3.TextGenerationService/Decode"


def test_a_call_is_a_span_of_the_callers_trace(start_shard, engine):
    with collecting() as collector:
        tracing = Tracing(collector.endpoint, "shards")
        shard = start_shard(engine, tracing=tracing)
        request = pb_v3.PrefillRequest(batch=pb_v3.Batch(requests=[pb_v3.Request(id=1, inputs="a", truncate=9)]))
        answer = shard.v3.Prefill(request, metadata=METADATA)
        engine.error = UnknownBatch("batch 9 is not cached")
        with pytest.raises(grpc.RpcError):
            shard.v3.Decode(pb_v3.DecodeRequest(batches=[pb_v3.CachedBatch(id=9)]), metadata=METADATA)
        shard.v2.ClearCache(pb_v2.ClearCacheRequest())
        shard.v3.Health(pb_v3.HealthRequest(), metadata=METADATA)
        tracing.close()
        (prefill,), (decode,), (clear,) = map(
            collector.named, (PREFILL, DECODE, "/generate.v2.TextGenerationService/ClearCache")
        )
        assert len(collector.spans) == 3 and {span.service for span in collector.spans} == {"shards"}
    assert (prefill.trace, prefill.parent, prefill.kind) == (decode.trace, decode.parent, 2) == (TRACE, PARENT, 2)
    assert (clear.parent, prefill.failed, decode.failed) == ("", None, "batch 9 is not cached")
    about = {"rpc.system": "grpc", "rpc.service": "generate.v3.TextGenerationService", "rpc.method": "Prefill"}
    about |= {"net.transport": "unix", "rpc.grpc.status_code": 0, "total_ns": answer.total_ns}
    assert about.items() <= prefill.facts.items() and prefill.facts["rpc.user_agent"].startswith("grpc-python")
    assert decode.facts["rpc.grpc.status_code"] == grpc.StatusCode.NOT_FOUND.value[0]
