"""Steps without a call for each, kvrun.v1.Steps (docs/conformance.md#steps-unasked)."""

import queue
from collections.abc import Iterator
from contextlib import closing

import grpc
import pytest

from conformance.caller import refused, texts_of
from text_generation_protocol.kvrun_v1 import steps_pb2 as pb
from text_generation_protocol.kvrun_v1.steps_pb2_grpc import StepsStub
from text_generation_server.rpc.sockets import socket_url

NOT_FOUND = grpc.StatusCode.NOT_FOUND


class Steps:
    """One call, and what is said in it."""

    def __init__(self, channel: grpc.Channel, *batch_ids: int, allowed: int = 1000) -> None:
        self._said: queue.SimpleQueue[pb.StepsRequest | None] = queue.SimpleQueue()
        self._said.put(pb.StepsRequest(batch_ids=batch_ids, steps=allowed))
        self.answers: Iterator[pb.Step] = StepsStub(channel).Decode(iter(self._said.get, None))

    def allow(self, steps: int) -> None:
        self._said.put(pb.StepsRequest(steps=steps))

    def end(self) -> list[pb.Step]:
        """No more to say; what still comes."""
        self._said.put(None)
        return list(self.answers)

    def whole(self) -> list[pb.Step]:
        """All steps of batches that end by themselves."""
        steps = [next(self.answers)]
        while not steps[-1].last:
            steps.append(next(self.answers))
        assert self.end() == []
        return steps


@pytest.fixture
def channel(shard) -> Iterator[grpc.Channel]:
    with closing(grpc.insecure_channel(socket_url(shard.path))) as channel:
        yield channel


def test_c122_steps_come_until_the_batch_ends_and_say_what_decodes_say(shard, channel):
    caller = shard.v3
    first = caller.prefill(1, caller.request(10, "ab", 3), caller.request(11, "cd", 6, top_n_tokens=2))
    asked = caller.run_out(first)
    texts = {one: "".join(text for each in found for text in texts_of([each])) for one, found in asked.items()}
    told = {one.request_id: "".join(texts_of([one])) for one in caller.prefill(
        2, caller.request(10, "ab", 3), caller.request(11, "cd", 6, top_n_tokens=2)).generations}  # fmt: skip
    steps = Steps(channel, 2).whole()
    assert len(steps) == 5 and [step.last for step in steps] == [False] * 4 + [True]
    for step in steps:
        assert len(step.ids) == len(step.logprobs) == len(step.texts) == len(step.request_ids)
        for request_id, text in zip(step.request_ids, step.texts, strict=True):
            told[request_id] += text
        for one in step.generations:
            told[one.request_id] += "".join(texts_of([one]))
    assert told == texts
    assert list(steps[0].request_ids) == [10] and [one.request_id for one in steps[0].generations] == [11]
    ends = [one for step in steps for one in step.generations if one.HasField("generated_text")]
    assert [one.generated_text.generated_tokens for one in ends] == [3, 6]
    assert list(steps[1].batch.request_ids) == [11] and not steps[-1].HasField("batch")
    shard.assert_idle()


def test_c123_the_callers_end_is_the_last_step_and_the_batch_stays(shard, channel):
    caller = shard.v3
    caller.prefill(1, caller.request(10, "ab", 100))
    caller.prefill(2, caller.request(11, "cd", 100))
    steps = Steps(channel, 1, 2)
    assert next(steps.answers).HasField("concat_ns")
    rest = steps.end()
    assert rest and [step.last for step in rest] == [False] * (len(rest) - 1) + [True]
    assert list(caller.filter(1, [11]).request_ids) == [11]
    assert len(caller.decode(1).generations) == 1
    caller.clear(1)
    shard.assert_idle()


def test_c124_no_more_steps_are_made_than_the_caller_allows(shard, channel):
    caller = shard.v3
    caller.prefill(1, caller.request(10, "ab", 100))
    steps = Steps(channel, 1, allowed=3)
    made = [next(steps.answers) for _ in range(3)]
    steps.allow(2)
    made += [next(steps.answers) for _ in range(2)]
    made += steps.end()
    assert 5 <= len(made) <= 6 and made[-1].last  # what was allowed, and one for the end
    caller.clear(1)


def test_c125_a_call_for_no_batch_or_an_unknown_one_fails_and_who_hangs_up_ends_it(shard, channel):
    caller = shard.v3
    with refused(NOT_FOUND):
        next(Steps(channel, 77).answers)
    with refused():
        next(Steps(channel).answers)
    caller.prefill(1, caller.request(10, "ab", 200))
    call = Steps(channel, 1)
    next(call.answers)
    call.answers.cancel()
    caller.clear(1)
    assert caller.health() is not None
