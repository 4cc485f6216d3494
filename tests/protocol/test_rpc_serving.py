"""The server as callers meet it: errors and their statuses, health in every situation, odd bytes, sizes, reflection."""

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from loguru import logger

from text_generation_protocol.v2 import generate_pb2 as pb_v2
from text_generation_protocol.v3 import generate_pb2 as pb_v3
from text_generation_server.errors import (
    InvalidRequest,
    ModelError,
    NotEnoughMemory,
    OutOfBlocks,
    UnknownBatch,
)

SERVING = health_pb2.HealthCheckResponse.SERVING
CLEAR = pb_v3.ClearCacheRequest()


@pytest.fixture
def logged():
    """Lines logged meanwhile."""
    lines = []
    sink = logger.add(lambda message: lines.append(message), format="{level} {message}", level="ERROR")
    yield lines
    logger.remove(sink)


def prefill(text="ab"):
    message = pb_v3.Request(inputs=text, stopping_parameters=pb_v3.StoppingCriteriaParameters(max_new_tokens=1))
    return pb_v3.PrefillRequest(batch=pb_v3.Batch(id=5, requests=[message]))


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidRequest("too long"), grpc.StatusCode.INVALID_ARGUMENT),
        (UnknownBatch("batch 9 is not cached"), grpc.StatusCode.NOT_FOUND),
        (OutOfBlocks("no slots"), grpc.StatusCode.RESOURCE_EXHAUSTED),
        (NotEnoughMemory("too big"), grpc.StatusCode.RESOURCE_EXHAUSTED),
        (ValueError("odd"), grpc.StatusCode.INTERNAL),
        (KeyError(), grpc.StatusCode.INTERNAL),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_becomes_a_status_and_serving_goes_on(shard, engine, logged, error, code):
    engine.error = error
    with pytest.raises(grpc.RpcError) as caught:
        shard.v3.Decode(pb_v3.DecodeRequest(batches=[pb_v3.CachedBatch(id=9)]))
    assert (caught.value.code(), caught.value.details()) == (code, str(error) or type(error).__name__)
    assert [line.splitlines()[0] for line in logged] == [f"ERROR Decode: {caught.value.details()}"]
    assert shard.v3.ClearCache(CLEAR) == pb_v3.ClearCacheResponse()
    assert not shard.fatal.is_set()


def test_only_unexpected_errors_are_logged_with_their_traceback(shard, engine, logged):
    for error in (InvalidRequest("expected"), ValueError("unexpected")):
        engine.error = error
        with pytest.raises(grpc.RpcError):
            shard.v3.ClearCache(CLEAR)
    assert ["Traceback" in line for line in logged] == [False, True]


def test_an_unrecoverable_error_is_answered_and_reported(shard, engine, logged):
    engine.error = ModelError("device lost")
    with pytest.raises(grpc.RpcError) as caught:
        shard.v3.Prefill(prefill())
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.INTERNAL, "device lost")
    assert shard.fatal.wait(5)
    with pytest.raises(grpc.RpcError) as caught:
        shard.v3.Health(pb_v3.HealthRequest())
    assert caught.value.code() == grpc.StatusCode.INTERNAL


def test_a_long_error_text_is_cut_to_what_a_header_carries(shard, engine, logged):
    engine.error = ValueError("ü" * 100_000)
    with pytest.raises(grpc.RpcError) as caught:
        shard.v3.ClearCache(CLEAR)
    assert caught.value.code() == grpc.StatusCode.INTERNAL
    assert caught.value.details() == "ü" * 1000


def test_requests_that_cannot_be_read_are_refused_alone(shard, engine):
    request = prefill()
    for request_id, changes in {6: {"inputs": ""}, 7: {"inputs": "fail"}, 8: {"inputs": "ab"}}.items():
        request.batch.requests.add(id=request_id, **changes)
    request.batch.requests[3].parameters.grammar_type = 9
    shard.v3.Prefill(request)
    assert engine.prompts == [tuple(b"ab")]
    assert [item.id for item in engine.last.refused] == [6, 7, 8]
    no_tokens, failed, grammar = (item.reason for item in engine.last.refused)
    assert no_tokens == "request 6: the prompt '' has no tokens, expected at least one"
    assert failed == "request 7: the prompt 'fail' cannot be tokenised: no such luck"
    assert grammar.startswith("request 8: grammar_type is 9, expected one of")


@pytest.mark.parametrize("method", ["generate.v3.TextGenerationService/Sing", "generate.v4.TextGenerationService/Info"])
def test_unknown_calls_are_unimplemented(shard, method):
    with pytest.raises(grpc.RpcError) as caught:
        shard.raw(method)
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
    assert shard.v3.Health(pb_v3.HealthRequest()) == pb_v3.HealthResponse()


def test_garbage_bytes_are_an_internal_error(shard, engine):
    with pytest.raises(grpc.RpcError) as caught:
        shard.raw("generate.v3.TextGenerationService/Prefill", b"\xff\xff\xff\xff\xff")
    assert caught.value.code() == grpc.StatusCode.INTERNAL
    assert engine.commands == []
    assert shard.v3.Health(pb_v3.HealthRequest()) == pb_v3.HealthResponse()


def test_a_request_of_20_mib_is_accepted(shard, engine):
    shard.v3.Prefill(prefill("a" * (20 * 2**20)))
    assert len(engine.prompts[0]) == 20 * 2**20


def test_status_calls_are_answered_while_the_engine_is_busy(shard, engine):
    engine.gate.clear()
    running = shard.v3.Prefill.future(prefill())
    assert engine.entered.wait(5)
    assert shard.v3.Health(pb_v3.HealthRequest(), timeout=5) == pb_v3.HealthResponse()
    assert shard.v2.Info(pb_v2.InfoRequest(), timeout=5).dtype == "torch.float16"
    assert len(shard.v3.ServiceDiscovery(pb_v3.ServiceDiscoveryRequest(), timeout=5).urls) == 1
    assert not running.done()
    engine.gate.set()
    assert len(running.result(timeout=5).generations) == 1
    assert len(engine.commands) == 1


def test_engine_calls_run_one_after_the_other(shard, engine):
    engine.gate.clear()
    first = shard.v3.Prefill.future(prefill())
    assert engine.entered.wait(5)
    second = shard.v2.ClearCache.future(pb_v2.ClearCacheRequest(id=1))
    assert not second.done()
    assert len(engine.commands) == 1
    engine.gate.set()
    assert first.result(timeout=5) and second.result(timeout=5) == pb_v2.ClearCacheResponse()
    assert engine.commands[1] == ("clear", 1)


def test_a_caller_that_goes_away_does_not_disturb_others(shard, engine):
    engine.gate.clear()
    leaving = shard.v3.Prefill.future(prefill())
    assert engine.entered.wait(5)
    leaving.cancel()
    engine.gate.set()
    assert len(shard.v3.Prefill(prefill()).generations) == 1


@pytest.mark.parametrize("service", ["", "generate.v2.TextGenerationService", "generate.v3.TextGenerationService"])
def test_standard_health_service(shard, service):
    stub = health_pb2_grpc.HealthStub(shard.channel)
    assert stub.Check(health_pb2.HealthCheckRequest(service=service)).status == SERVING


def test_reflection_lists_both_versions_and_knows_their_messages(shard):
    stub = reflection_pb2_grpc.ServerReflectionStub(shard.channel)
    asked = reflection_pb2.ServerReflectionRequest(list_services="")
    (listed,) = stub.ServerReflectionInfo(iter([asked]))
    names = {service.name for service in listed.list_services_response.service}
    assert {"generate.v2.TextGenerationService", "generate.v3.TextGenerationService"} <= names
    assert {"grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"} <= names
    asked = reflection_pb2.ServerReflectionRequest(file_containing_symbol="generate.v3.InputChunk")
    (found,) = stub.ServerReflectionInfo(iter([asked]))
    assert found.file_descriptor_response.file_descriptor_proto
