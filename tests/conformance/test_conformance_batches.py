"""The life of a batch over Prefill, Decode, FilterBatch and ClearCache (docs/conformance.md#batches)."""

import threading

import grpc
import pytest

from conformance.caller import EOS_TOKEN, HEALTH_ID, LENGTH, Caller, batch_of, ids_of, refused
from conformance.recitals import always
from mocks.mock_model import MockModel, greedy_continuation
from text_generation_server.engine.types import ShardInfo
from text_generation_server.rpc.server import ShardServer
from text_generation_server.rpc.service import FollowerService, Shard
from text_generation_server.rpc.wire_v2 import WireV2
from text_generation_server.rpc.wire_v3 import WireV3

NOT_FOUND, INVALID = grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT


REQUESTS_A_ROUND = 16
"""The leak test starts and drops 10 000 requests, this many with each call."""


def expected(text: str, new: int) -> list[int]:
    """What a greedy request that ignores the end of sequence gets."""
    return greedy_continuation(text.encode(), new, ignore_eos=True)


@pytest.fixture
def caller(shard) -> Caller:
    return shard.v3


def test_c022_c023_c024_a_batch_lives_until_its_length(shard, caller):
    step = caller.prefill(5, caller.request(10, "ab", 3), caller.request(11, "cd", 3))
    for _ in range(2):
        assert [len(g.tokens.ids) for g in step.generations] == [1, 1]
        assert not any(g.HasField("generated_text") for g in step.generations)
        assert batch_of(step) == (5, [10, 11], 2) and step.batch.current_tokens == 2
        step = caller.decode(5)
    ends = [g.generated_text for g in step.generations]
    assert [(end.finish_reason, end.generated_tokens) for end in ends] == [(LENGTH, 3)] * 2
    assert batch_of(step) is None
    with refused(NOT_FOUND):
        caller.decode(5)
    shard.assert_idle()


def test_c025_one_token_needs_no_batch(caller):
    step = caller.prefill(0, caller.request(1, new=1))
    assert step.generations[0].generated_text.generated_tokens == 1 and batch_of(step) is None


@pytest.mark.parametrize("version", ["v2", "v3"])
def test_c026_a_finished_request_leaves_the_others_going(shard, version):
    caller = shard.caller(version)
    step = caller.prefill(0, caller.request(1, "a", 1), caller.request(2, "b", 5))
    assert [g.HasField("generated_text") for g in step.generations] == [True, False]
    assert batch_of(step) in [(0, [1, 2], 2), (0, [2], 1)]
    kept = caller.filter(0, [1, 2])
    assert (kept.id, list(kept.request_ids), kept.size) == (0, [2], 1)
    assert [g.request_id for g in caller.decode(0).generations] == [2]


@pytest.mark.parametrize("version", ["v2", "v3"])
def test_c027_merged_batches_keep_the_first_id(shard, version):
    caller = shard.caller(version)
    caller.prefill(7, caller.request(1, "a"), caller.request(2, "b"))
    caller.prefill(8, caller.request(3, "c"))
    step = caller.decode(7, 8)
    assert batch_of(step) == (7, [1, 2, 3], 3) and len(step.generations) == 3 and step.HasField("concat_ns")
    with refused(NOT_FOUND):
        caller.decode(8)


def test_c028_the_order_of_the_call_decides(caller):
    caller.prefill(7, caller.request(1))
    caller.prefill(8, caller.request(2))
    assert batch_of(caller.decode(8, 7)) == (8, [2, 1], 2)


def test_c029_a_decode_needs_known_batches(caller):
    with refused(INVALID):
        caller.decode()
    with refused(NOT_FOUND):
        caller.decode(99)
    first = caller.prefill(0, caller.request(1, "there", 4))
    with refused(NOT_FOUND):
        caller.decode(0, 99)
    assert ids_of(caller.run_out(first)[1]) == expected("there", 4)


def test_c030_a_filter_needs_a_known_batch_and_a_request(caller):
    with refused(NOT_FOUND):
        caller.filter(99, [1])
    caller.prefill(0, caller.request(1))
    with refused(INVALID):
        caller.filter(0, [])


def test_c031_a_filter_keeps_the_given_order(caller):
    caller.prefill(0, *(caller.request(i, f"prompt {i}", 4) for i in (1, 2, 3)))
    assert list(caller.filter(0, [3, 1]).request_ids) == [3, 1]
    step = caller.decode(0)
    assert {g.request_id: ids_of([g]) for g in step.generations} == {i: expected(f"prompt {i}", 4)[1:2] for i in (1, 3)}
    assert set(caller.run_out(step)) == {1, 3}


def test_c032_a_filter_that_keeps_all_changes_nothing(caller):
    before = caller.prefill(0, caller.request(1), caller.request(2)).batch
    assert caller.filter(0, [1, 2]) == before


def test_c033_a_cleared_batch_is_gone_and_its_cache_is_free(start):
    shard = start(num_slots=1024, model=MockModel(logits=always({7: 1.0})))
    caller = shard.v3
    for _ in range(10_000 // REQUESTS_A_ROUND):
        caller.prefill(0, *(caller.request(i, "abcdef", 40) for i in range(REQUESTS_A_ROUND)))
        caller.clear(0)
    with refused(NOT_FOUND):
        caller.decode(0)
    shard.assert_idle()


def test_c034_a_prefill_replaces_a_batch_of_its_id(shard, caller):
    caller.prefill(0, caller.request(1, "old", 50))
    assert set(caller.run_out(caller.prefill(0, caller.request(2, "new", 3)))) == {2}
    shard.assert_idle()


def test_c035_a_dropped_request_never_appears_again(caller):
    caller.prefill(0, caller.request(1, "a", 9), caller.request(2, "b", 9))
    caller.decode(0)
    caller.filter(0, [2])
    assert set(caller.run_out(caller.decode(0))) == {2}


LIVENESS_FORMS = {
    "2.0": ("v2", {"truncate": 10}),
    "2.2": ("v3", {"truncate": 10, "blocks": [0], "slots": range(16)}),
    "3.0.0": ("v3", {"truncate": 10, "add_special_tokens": True, "blocks": [0], "slots": range(16)}),
    "3.3.7": ("v3", {"truncate": 1, "blocks": [0], "slots": [0]}),
}


@pytest.mark.parametrize("form", LIVENESS_FORMS)
def test_c036_a_liveness_prefill_disturbs_nobody(shard, form):
    version, fields = LIVENESS_FORMS[form]
    caller, prober = shard.v3, shard.caller(version)
    live = caller.prefill(0, caller.request(1, "live", 8, slots=range(11)))
    probe = prober.liveness(**fields)
    assert [g.request_id for g in probe.generations] == [HEALTH_ID] and batch_of(probe) is None
    assert probe.generations[0].generated_text.finish_reason in (LENGTH, EOS_TOKEN)
    assert ids_of(caller.run_out(live)[1]) == expected("live", 8)


def test_c037_a_liveness_prefill_needs_no_free_cache(start):
    shard = start(num_slots=64)
    full = shard.v2.prefill(0, shard.v2.request(1, "x" * 40, 24))
    assert shard.engine.pool.blocks.free_tokens == 0
    for fields in ({"truncate": 10, "blocks": [0], "slots": range(16)}, {"truncate": 1, "slots": [0]}):
        assert shard.v3.liveness(**fields).generations[0].HasField("generated_text")
    assert len(shard.v2.run_out(full)[1]) == 24


@pytest.mark.parametrize("version", ["v2", "v3"])
def test_c038_batches_take_turns(shard, version):
    caller = shard.caller(version)
    special = "\xfe".encode("latin-1") if version == "v2" else b""
    answers = {0: ids_of(caller.prefill(0, caller.request(0, "left", 4)).generations)}
    answers[1] = ids_of(caller.prefill(1, caller.request(1, "right", 4)).generations)
    for _ in range(3):
        for batch_id in answers:
            answers[batch_id] += ids_of(caller.decode(batch_id).generations)
    assert answers == {
        i: greedy_continuation(special + text, 4, ignore_eos=True) for i, text in enumerate([b"left", b"right"])
    }


def test_c039_no_generation_can_come_from_two_ranks(tmp_path):
    """All ranks name rank 0 only, the others refuse work: rank 0 owns every request (docs/protocol.md#connecting)."""

    class Worker:
        alive = True

    url = f"unix://{tmp_path}/tgi-0"
    about = Shard(ShardInfo("torch.float16", "cuda", "flashinfer", 1, True, True), (url,))
    path = tmp_path / "tgi-1"
    services = [FollowerService(wire, about, Worker()) for wire in (WireV2(), WireV3(False))]
    server = ShardServer(path, *services, on_fatal=lambda: None)
    server.start()
    caller = Caller(path, "v3")
    assert list(caller.stub.ServiceDiscovery(caller.pb.ServiceDiscoveryRequest()).urls) == [url]
    for call in (lambda: caller.prefill(0, caller.request(5)), lambda: caller.decode(0), caller.clear):
        with refused(grpc.StatusCode.FAILED_PRECONDITION, says="rank 0"):
            call()
    caller.close()
    server.stop(grace_s=0)


def test_c040_rank_0_returns_all_requests(caller):
    step = caller.prefill(0, *(caller.request(i) for i in range(4, 8)))
    assert [g.request_id for g in step.generations] == [4, 5, 6, 7]
    assert len(caller.stub.ServiceDiscovery(caller.pb.ServiceDiscoveryRequest()).urls) == 1


def test_c041_health_at_100_hz_changes_no_token(shard, caller):
    prober, done, failures = Caller(shard.path, "v3"), threading.Event(), []

    def probe() -> None:
        while not done.wait(0.01):
            try:
                prober.health()
                prober.liveness(truncate=1, blocks=[0], slots=[0])
            except grpc.RpcError as error:
                failures.append(error)

    thread = threading.Thread(target=probe)
    thread.start()
    answer = ids_of(caller.answer(caller.request(1, "steady", 200, slots=range(205))))
    done.set()
    thread.join()
    prober.close()
    assert answer == expected("steady", 200) and failures == []


def test_c042_times_add_up(caller):
    steps = [caller.prefill(0, caller.request(1)), caller.prefill(1, caller.request(2)), caller.decode(0)]
    assert not any(step.HasField("concat_ns") for step in steps)
    steps += [caller.decode(0, 1), caller.prefill(2, caller.request(3), cached=0)]
    assert [step.HasField("concat_ns") for step in steps] == [False] * 3 + [True] * 2
    for step in steps:
        assert 0 < step.forward_ns + step.decode_ns <= step.total_ns
