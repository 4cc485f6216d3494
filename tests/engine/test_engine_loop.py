"""The engine thread: order, errors, failure and shutdown."""

import threading

import pytest

from text_generation_server.engine.loop import EngineLoop
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


def test_a_cancelled_call_does_not_run(loop):
    gate = threading.Event()
    loop.submit(lambda engine: gate.wait(5))
    cancelled = loop.submit(lambda engine: engine.append(1))
    assert cancelled.cancel()
    gate.set()
    assert loop.submit(len).result(5) == 0
