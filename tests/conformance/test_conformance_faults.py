"""One request's fault is its own: mates and cached batches go on, nothing leaks, cleaning up always works."""

import math

import grpc
import pytest

from conformance.caller import EOS_TOKEN, HEALTH_ID, batch_of, ids_of, refused
from mocks.mock_model import MockModel, greedy_continuation

INVALID = grpc.StatusCode.INVALID_ARGUMENT

BAD = {
    "no tokens": ({"text": ""}, "no tokens"),
    "no new tokens": ({"new": 0}, "max_new_tokens is 0"),
    "too long": ({"new": 2**32 - 1}, "exceed the 256 tokens"),
    "slots outside": ({"slots": [1, 2, 3, 4, 5, 6, 7, 8, 2**32 - 1]}, "outside the cache"),
    "too few slots": ({"slots": [1, 2]}, "2 slots cannot hold"),
}


def bad(caller, request_id: int, name: str):
    return caller.request(request_id, **{"text": "hello", **BAD[name][0]})


def expected(text: str, new: int) -> list[int]:
    return greedy_continuation(text.encode(), new, ignore_eos=True)


@pytest.mark.parametrize("name", BAD)
def test_a_bad_request_alone_is_an_error(shard, name):
    with refused(INVALID, says=BAD[name][1]):
        shard.v3.prefill(0, bad(shard.v3, 1, name))
    with refused(INVALID, says="request 2"):
        shard.v3.prefill(0, bad(shard.v3, 1, name), bad(shard.v3, 2, name))
    shard.assert_idle()


@pytest.mark.parametrize("name", BAD)
def test_a_bad_request_in_company_ends_alone_and_says_why(shard, name):
    caller = shard.v3
    first = caller.prefill(0, caller.request(1, "running", 6))
    step = caller.prefill(1, bad(caller, 2, name), caller.request(3, "mate", 4), cached=0)
    (ended,) = (g for g in step.generations if g.request_id == 2)
    assert len(ended.tokens.ids) == len(ended.tokens.texts) == ended.generated_text.generated_tokens == 1
    assert ended.generated_text.finish_reason == EOS_TOKEN
    assert BAD[name][1] in ended.generated_text.text == ended.generated_text.failure
    assert batch_of(step) == (0, [1, 3], 2)
    rest = caller.run_out(step)
    assert ids_of([*first.generations, *rest[1]]) == expected("running", 6)
    assert ids_of(rest[3]) == expected("mate", 4)
    shard.assert_idle()


def test_a_bad_request_that_joins_alone_leaves_the_batch_running(shard):
    caller = shard.v3
    first = caller.prefill(0, caller.request(1, "running", 6))
    step = caller.prefill(1, bad(caller, 2, "no tokens"), cached=0)
    assert batch_of(step) == (0, [1], 1)
    assert ids_of([*first.generations, *caller.run_out(step)[1]]) == expected("running", 6)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1.0, 1e30])
@pytest.mark.parametrize("name", ["temperature", "top_p", "typical_p", "repetition_penalty", "frequency_penalty"])
def test_meaningless_parameters_harm_nobody(start, name, value):
    caller = start().v3
    odd = caller.request(1, "odd", 3, parameters={name: value, "do_sample": True})
    answers = caller.run_out(caller.prefill(0, odd, caller.request(2, "mate", 3)))
    assert len(ids_of(answers[1])) == 3 and all(math.isfinite(g.tokens.logprobs[0]) for g in answers[1])
    assert ids_of(answers[2]) == expected("mate", 3)


@pytest.mark.parametrize("changes", [{"top_n_tokens": 2**32 - 1}, {"id": HEALTH_ID - 1}, {"cache_len": 2**32 - 1}])
def test_huge_numbers_are_numbers(start, changes):
    caller = start().v3
    request = caller.request(1, "huge", 3, slots=range(1, 8))
    for name, value in changes.items():
        setattr(request, name, value)
    assert ids_of(caller.answer(request)) == expected("huge", 3)


@pytest.mark.parametrize("version", ["v2", "v3"])
def test_a_failed_step_takes_its_own_batch_only(start, version):
    shard = start(model=MockModel(fail_on=255))
    caller = shard.caller(version)
    caller.prefill(0, caller.request(1, "alive", 5))
    with refused(grpc.StatusCode.INTERNAL):
        caller.prefill(1, caller.request(2, "a <fail>"), caller.request(3, "mate"))
    caller.clear(1)
    assert [g.request_id for g in caller.decode(0).generations] == [1]
    assert list(caller.filter(0, [1]).request_ids) == [1]
    caller.clear(0)
    shard.assert_idle()


def test_a_failed_join_takes_the_cached_batch_with_it(start):
    # Routers fail the requests of both and clear the new one only (docs/protocol.md#faults).
    shard = start(model=MockModel(fail_on=255))
    caller = shard.v3
    caller.prefill(0, caller.request(1, "lost", 5))
    with refused(grpc.StatusCode.INTERNAL):
        caller.prefill(1, caller.request(2, "a <fail>"), cached=0)
        caller.decode(0)  # the step that they joined, where one was under way
    caller.clear(1)
    shard.assert_idle()


def test_a_full_cache_is_an_error_that_passes(start):
    shard = start(num_slots=64)
    caller = shard.v2
    first = caller.prefill(0, caller.request(1, "x" * 30, 30))
    with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, says="are free"):
        caller.prefill(1, caller.request(2, "y", 30))
    caller.clear(1)
    assert len(caller.run_out(first)[1]) == 30
    assert len(caller.answer(caller.request(3, "y", 30))) == 30
    shard.assert_idle()
