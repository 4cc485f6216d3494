"""Traces: from a client's `traceparent` to the metadata of calls to the shards."""

import asyncio
import sys

import pytest

from mocks.collector import collecting
from mocks.running_router import events, free_port, running_router
from text_generation_router.errors import StartError

INTERNAL, SERVER, CLIENT = 1, 2, 3
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
HEADERS = {"traceparent": f"00-{TRACE}-{PARENT}-01", "x-request-id": "n7"}


@pytest.fixture
def collector():
    with collecting() as running:
        yield running


def of(collector) -> dict[str, str]:
    """The options of a router that sends its traces there."""
    return {"otlp_endpoint": collector.endpoint, "otlp_service_name": "mine"}


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_request_is_traced_from_its_client_to_the_shards(directory, collector, workers):
    async with running_router(directory, options=of(collector) | {"router_workers": workers}) as router:
        body = {"inputs": "Hello", "parameters": {"max_new_tokens": 3, "seed": 2**63, "do_sample": True}}
        await router.client.post("/generate", json=body, headers=HEADERS)
        told = [
            metadata.get("traceparent") for name, metadata in router.shard.metadata if name in ("Prefill", "Decode")
        ]
    (request,), (whole,), (queued,), (infer,) = map(collector.named, ("POST /generate", "generate", "queued", "infer"))
    steps = collector.named("prefill") + collector.named("decode")
    assert {(span.service, span.trace, span.failed) for span in collector.spans} == {("mine", TRACE, None)}
    assert len(collector.spans) == 4 + len(steps) and len(steps) == 3
    assert request.parent == PARENT and whole.parent == request.id
    assert queued.parent == infer.parent == whole.id and {step.parent for step in steps} == {infer.id}
    assert told == [f"00-{TRACE}-{step.id}-01" for step in steps]
    assert (request.kind, whole.kind, steps[0].kind) == (SERVER, INTERNAL, CLIENT)
    assert request.facts["http.response.status_code"] == 200 and request.facts["request_id"] == "n7"
    known = {"input_length": 6, "generated_tokens": 3, "finish_reason": "length", "seed": str(2**63)}
    assert known.items() <= whole.facts.items()
    assert {"total_time", "validation_time", "queue_time", "inference_time", "time_per_token"} <= whole.facts.keys()


async def test_a_call_for_several_is_a_trace_of_its_own_that_is_linked_with_theirs(directory, collector):
    async with running_router(directory, options=of(collector)) as router:
        await asyncio.gather(*(router.generate(f"prompt {n}", max_new_tokens=40) for n in range(2)))
    wholes, infers = collector.named("generate"), collector.named("infer")
    assert len({span.trace for span in wholes}) == 2
    shared = [span for span in collector.named("decode") if span.facts["batch_size"] == 2]
    assert shared and all(set(span.links) == {infer.id for infer in infers} and not span.parent for span in shared)
    first = [span for span in collector.named("prefill") if span.facts["batch_size"] == 2]
    assert {link for infer in infers for link in infer.links} == {span.id for span in first}


async def test_what_fails_is_marked(directory, collector):
    async with running_router(directory, options=of(collector)) as router:
        router.shard.failures["Decode"] = "no kernel"
        assert (await router.generate("a", max_new_tokens=3)).status_code == 424
        assert (await router.generate("", max_new_tokens=3)).status_code == 422
        async with router.client.stream("POST", "/generate_stream", json={"inputs": "left"}) as response:
            await anext(events(response))
        await router.client.post("/nowhere/at/all")
        await router.until_idle()
    told = "Request failed during generation: Server error"
    assert [span.failed for span in collector.named("generate")] == [told, "given up"]
    assert [span.failed for span in collector.named("decode") if span.failed] == ["Server error: no kernel"]
    assert [span.facts["http.response.status_code"] for span in collector.named("POST /generate")] == [424, 422]
    assert [span.facts["http.response.status_code"] for span in collector.named("POST")] == [404]


async def test_without_a_collector_shards_are_told_nothing_and_nothing_is_imported(directory, monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    async with running_router(directory) as router:
        assert (await router.generate("a", max_new_tokens=2)).status_code == 200
        assert not any("traceparent" in metadata for _, metadata in router.shard.metadata)


async def test_a_collector_that_is_away_is_no_reason_not_to_serve_or_to_end_late(directory):
    async with running_router(directory, options={"otlp_endpoint": f"http://127.0.0.1:{free_port()}"}) as router:
        assert (await router.generate("a", max_new_tokens=2)).status_code == 200
        router.stop.set()
        async with asyncio.timeout(10):
            assert await router.exit_code == 0


@pytest.mark.parametrize(
    ("endpoint", "told"),
    [
        ("localhost:4317", "expected a collector such as http://localhost:4317"),
        ("http://a/v1", "expected"),
        ("http://a:1", r"install kvrun\[otlp\]"),
    ],
)
async def test_traces_that_cannot_be_sent_are_refused_at_the_start(directory, monkeypatch, endpoint, told):
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(StartError, match=told):
        async with running_router(directory, options={"otlp_endpoint": endpoint}):
            pass
