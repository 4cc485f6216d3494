"""Discovery, bytes of messages, health, errors, sizes, reflection (docs/conformance.md#wire-and-transport)."""

import math
import os
import subprocess
import sys
import time
from pathlib import Path

import grpc
import pytest
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from loguru import logger

from conformance.caller import ROUTER_LIMIT, Caller, batch_of, ids_of, refused
from mocks.mock_model import MockModel, greedy_continuation
from text_generation_protocol.v2 import generate_pb2 as pb_v2
from text_generation_protocol.v3 import generate_pb2 as pb_v3
from text_generation_server.rpc.wire_v3 import EXTENSIONS

VERSIONS = ["v2", "v3"]
SCRIPTED_SHARD = Path(__file__).parents[1] / "protocol" / "scripted_shard.py"
PATIENCE_S = 30


OURS = "c0 3e 81 02"
"""Field 1000, which a stock router passes over: a vocabulary of 257."""


def info_bytes(*tail: str) -> bytes:
    head = bytes.fromhex("12 0d") + b"torch.float16" + bytes.fromhex("1a 04") + b"cuda"
    return head + b"".join(bytes.fromhex(part) if " " in part else part.encode() for part in tail)


@pytest.fixture
def shard_process(tmp_path):
    """A shard in a process of its own over a scripted engine, and its socket."""
    path = tmp_path / "tgi-0"
    process = subprocess.Popen(
        [sys.executable, SCRIPTED_SHARD, path, "well"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )  # fmt: skip
    yield process, path
    process.kill()
    process.communicate()


def wait_for_file(path: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_c001_the_socket_appears_when_info_answers(shard_process):
    process, path = shard_process
    assert process.stdout.readline() == "starting\n"
    wait_for_file(path)
    caller = Caller(path, "v3")
    assert caller.stub.Info(pb_v3.InfoRequest(), timeout=PATIENCE_S).block_size == 16
    caller.close()


@pytest.mark.parametrize("version", VERSIONS)
def test_c002_discovery_is_the_same_list_wherever_it_is_asked(shard, version):
    caller = shard.caller(version)
    urls = list(caller.stub.ServiceDiscovery(caller.pb.ServiceDiscoveryRequest()).urls)
    assert urls[0] == f"unix://{shard.path}" and urls[0].startswith("unix:///") and urls[0].endswith("-0")
    for url in urls:
        there = Caller(Path(url.removeprefix("unix://")), version)
        assert list(there.stub.ServiceDiscovery(there.pb.ServiceDiscoveryRequest()).urls) == urls
        there.close()


def test_c003_info_bytes_v3(start):
    # Requests may be resumed, room for prompts is told, steps are pushed; who knows no such field passes it over.
    resumes, tells_room, pushes = "a0 06 01", "e0 3e 01", "e8 3e 01"
    read = [part for name in EXTENSIONS for part in (f"da 3e {len(name):02x}", name)]
    told = info_bytes("30 01", "38 01", "42 0a", "flashinfer", "48 01", resumes, OURS, *read, tells_room, pushes)
    assert start().v3.raw("Info") == told


def test_c004_info_v2_has_its_five_fields_and_ours(start):
    caller = start().v2
    assert caller.raw("Info") == info_bytes(OURS)
    assert not caller.stub.Info(pb_v2.InfoRequest()).HasField("window_size")


@pytest.mark.parametrize(
    ("attention", "block_size"),
    [("flashinfer", 1), ("paged", 16), ("flashdecoding-ipex", 64), ("flashdecoding", 256)],
)
def test_c005_a_block_has_at_least_one_slot(start, attention, block_size):
    info = start(attention=attention).v3.stub.Info(pb_v3.InfoRequest())
    assert (info.block_size, info.attention_impl, info.requires_padding) == (block_size, attention, False)


@pytest.mark.parametrize("pb", [pb_v2, pb_v3], ids=VERSIONS)
def test_c006_generated_text_bytes(pb):
    text = pb.GeneratedText(text="Hi", generated_tokens=2, finish_reason=pb.FINISH_REASON_EOS_TOKEN, seed=7)
    assert text.SerializeToString() == bytes.fromhex("0a 02 48 69 10 02 18 01 20 07")


@pytest.mark.parametrize("version", VERSIONS)
def test_c007_health_leaves_a_cached_batch_alone(shard, version):
    caller = shard.caller(version)
    first = caller.prefill(0, caller.request(1, "alive", 6))
    assert caller.health() == caller.pb.HealthResponse()
    assert len(ids_of(caller.run_out(first)[1])) == 6


def test_versions_share_their_batches(shard):
    first = shard.v2.prefill(0, shard.v2.request(1, "shared", 3))
    second = shard.v3.decode(0)
    third = shard.v2.decode(0)
    tokens = ids_of([*first.generations, *second.generations, *third.generations])
    assert tokens == greedy_continuation(b"\xfeshared", 3, ignore_eos=True)
    shard.assert_idle()


@pytest.mark.parametrize("version", VERSIONS)
def test_c008_there_may_be_nothing_to_clear(shard, version):
    caller = shard.caller(version)
    for batch_id in (None, 12345, 0):
        assert caller.clear(batch_id) == caller.pb.ClearCacheResponse()


def test_c014_a_request_of_20_mib_is_accepted(start):
    # In fields that are not read here: a prompt of this length would show the tokenizer's speed only.
    large = 20 * 2**20
    shard = start()
    chunks = shard.v3.pb.Input(chunks=[shard.v3.pb.InputChunk(text="the end")])
    requests = {shard.v3: {"input_chunks": chunks, "inputs": "A" * large}, shard.v2: {"image_input": "A" * large}}
    for caller, changes in requests.items():
        request = caller.request(1, changes.pop("inputs", "the end"), 2, **changes)
        assert request.ByteSize() > large
        assert len(ids_of(caller.answer(request))) == 2


def test_c015_prompt_logprobs_that_no_router_takes_are_left_out(start, monkeypatch):
    # The mock model is too slow for 300 000 prompt tokens; a smaller limit shows the same in a moment.
    limit = 14_000
    monkeypatch.setattr("text_generation_server.rpc.wire.ROUTER_LIMIT", limit)
    shard = start(num_slots=4096, max_len=2048)
    caller = shard.v3
    sizes = {1: 1200, 2: 900, 3: 100}
    requests = [caller.request(i, "x" * size, 2, prefill_logprobs=True) for i, size in sizes.items()]
    warnings: list[str] = []
    sink = logger.add(warnings.append, level="WARNING", format="{message}")
    response = caller.prefill(0, *requests)
    logger.remove(sink)
    assert response.ByteSize() <= limit
    assert len(warnings) == 1 and warnings[0].startswith("request 1: prefill_tokens are left out")
    assert [g.request_id for g in response.generations if g.HasField("prefill_tokens")] == [2, 3]
    assert all(len(g.tokens.ids) == 1 for g in response.generations)
    kept = response.generations[1].prefill_tokens
    assert len(kept.ids) == 900 and math.isnan(kept.logprobs[0])
    assert len(caller.decode(0).generations) == 3


def test_c015_the_limit_is_that_of_routers():
    from text_generation_server.rpc.wire import ROUTER_LIMIT as limit

    assert limit <= ROUTER_LIMIT


@pytest.mark.parametrize("version", VERSIONS)
def test_c016_unknown_calls_and_garbage_are_answered(shard, version):
    caller = shard.caller(version)
    with refused(grpc.StatusCode.UNIMPLEMENTED):
        caller.raw("Sing")
    for method in ("Prefill", "Decode", "FilterBatch", "Warmup", "ClearCache"):
        with refused(grpc.StatusCode.INTERNAL):
            caller.raw(method, b"\xff\xff\xff\xff\xff")
    assert caller.health() == caller.pb.HealthResponse()
    shard.assert_idle()


@pytest.mark.parametrize("version", VERSIONS)
def test_c017_an_error_is_answered_with_its_text(start, version):
    def raise_an_error(_):
        raise ValueError("an odd history")

    shard = start(model=MockModel(logits=raise_an_error))
    caller = shard.caller(version)
    with refused(grpc.StatusCode.INTERNAL, says="an odd history"):
        caller.prefill(0, caller.request(1))
    shard.model.logits_of = MockModel().logits_of
    assert batch_of(caller.prefill(1, caller.request(2))) == (1, [2], 1)
    assert not shard.fatal.is_set()


def test_c018_an_unrecoverable_error_is_answered_and_ends_the_process(shard_process):
    process, path = shard_process
    wait_for_file(path)
    caller = Caller(path, "v3")
    with refused(grpc.StatusCode.INTERNAL, says="device lost"):
        caller.prefill(0, caller.request(1, "L"))
    caller.close()
    assert process.wait(PATIENCE_S) == 1
    assert not path.exists()


def test_c019_reflection_lists_both_services(start):
    stub = reflection_pb2_grpc.ServerReflectionStub(start().v3.channel)
    (answer,) = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
    names = {service.name for service in answer.list_services_response.service}
    assert {f"generate.{version}.TextGenerationService" for version in VERSIONS} <= names
