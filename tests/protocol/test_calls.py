"""Messages of our own callers: as the conformance tests' routers write them, which share no code with them."""

from pathlib import Path

import pytest

from conformance.caller import Caller
from conformance.router_generations import GENERATIONS
from conformance.router_messages import warm_up_requests
from text_generation_protocol import calls
from text_generation_protocol.v3 import generate_pb2 as pb


def test_a_warm_up_is_what_another_router_sends_but_for_its_picture():
    (generation,) = (one for one in GENERATIONS if one.name == "3.0")
    caller = Caller(Path("/nowhere"), "v3")
    _, *theirs = warm_up_requests(caller, generation, 256)
    caller.close()
    message = calls.warmup(256, *generation.limits)
    assert list(message.batch.requests) == [theirs[0], *theirs] and message.batch.size == 3
    assert (message.max_prefill_tokens, message.max_input_tokens, message.max_total_tokens) == (256, 96, 192)


def test_limits_that_shards_decide_are_left_out():
    message = calls.warmup(1000)
    (request,) = message.batch.requests
    assert (request.truncate, request.stopping_parameters.max_new_tokens) == (1000, 1)
    assert not message.HasField("max_input_tokens") and not message.HasField("max_total_tokens")


def test_a_warm_up_has_no_more_requests_than_a_batch_and_always_room_for_an_answer():
    assert len(calls.warmup(1000, 10, most_requests=3).batch.requests) == 3
    assert calls.warmup(1000, None, 100).batch.requests[0].stopping_parameters.max_new_tokens == 1


def test_a_batch_counts_what_its_requests_hold():
    requests = [calls.request("a", 1, 2, calls.parameters(), blocks=[1, 2], slots=range(n)) for n in (3, 4)]
    batch = calls.batch(7, requests)
    assert (batch.size, batch.max_tokens, batch.max_blocks) == (2, 7, 2)


@pytest.mark.parametrize("place", ["/tmp/shard-0", "unix:///tmp/shard-0"])
def test_sockets_are_named_by_path_or_by_url(place):
    assert calls.target(place) == "unix:/tmp/shard-0"


def test_a_shard_that_does_not_size_its_cache_answers_for_all():
    sized = [pb.WarmupResponse(max_supported_total_tokens=n, max_total_tokens=t) for n, t in ((5, 1), (4, 3), (4, 2))]
    assert calls.least(sized) is sized[2]
    silent = pb.WarmupResponse(max_input_tokens=9)
    assert calls.least([*sized, silent]) is silent
