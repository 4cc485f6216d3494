"""The engine thread: order, errors, failure and shutdown."""

import threading

import pytest

from text_generation_server.engine.loop import CALLS, EngineLoop
from text_generation_server.errors import InvalidRequest, ModelError


@pytest.fixture
def loop():
    loop = EngineLoop[list[int]]([])
    loop.start()
    yield loop
    loop.stop()


def test_calls_run_in_order_in_one_thread(loop):
    threads = {loop.submit(lambda engine, i=i: (engine.append(i), threading.get_ident())[1]) for i in range(50)}
    assert len({f.result(5) for f in threads}) == 1
    assert loop.submit(list).result(5) == list(range(50))


def test_an_error_reaches_its_caller_alone(loop):
    def bad(engine: list[int]) -> None:
        raise InvalidRequest("no")

    failing, good = loop.submit(bad), loop.submit(len)
    with pytest.raises(InvalidRequest):
        failing.result(5)
    assert good.result(5) == 0 and loop.alive


def test_a_model_error_is_the_end(loop):
    def fatal(engine: list[int]) -> None:
        raise ModelError("the device is gone")

    with pytest.raises(ModelError):
        loop.submit(fatal).result(5)
    assert loop.failed.is_set() and not loop.alive


def test_pauses_are_used_until_nothing_is_left():
    left, done = [3], threading.Event()

    def use_pause(engine: list[int]) -> bool:
        engine.append(left[0])
        left[0] -= 1
        if not left[0]:
            done.set()
        return bool(left[0])

    loop = EngineLoop[list[int]]([], use_pause)
    loop.start()
    assert done.wait(5)
    assert loop.submit(lambda engine: engine[:3]).result(5) == [3, 2, 1]
    loop.stop()


def test_without_a_pause_some_is_done_between_calls():
    used: list[int] = []
    loop = EngineLoop[list[int]]([], lambda engine: used.append(len(engine)) or True)
    for number in range(2 * CALLS):
        loop.submit(lambda engine, number=number: engine.append(number))
    loop.submit(lambda engine: None)
    loop.start()
    assert loop.submit(lambda engine: used[:2]).result(5) == [CALLS, 2 * CALLS]
    loop.stop()


def test_a_pause_that_fails_is_the_end():
    def fail(engine: list[int]) -> bool:
        raise ModelError("the device is gone")

    loop = EngineLoop[list[int]]([], fail)
    loop.start()
    assert loop.failed.wait(5)
    assert not loop.alive
    loop.stop()


def test_a_cancelled_call_does_not_run(loop):
    gate = threading.Event()
    loop.submit(lambda engine: gate.wait(5))
    cancelled = loop.submit(lambda engine: engine.append(1))
    assert cancelled.cancel()
    gate.set()
    assert loop.submit(len).result(5) == 0
