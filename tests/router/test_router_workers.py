"""Several processes that answer HTTP are one router: one queue, one limit, one set of figures, one end."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from mocks.fake_adapters import FakeAdapters
from mocks.running_router import RunningRouter, events, running_router
from text_generation_router.errors import StartError

TWO = {"router_workers": 2}


def workers() -> list[int]:
    """The processes that answer."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return [
        int(pid) for pid in children if b"text_generation_router.workers" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]


async def begun(router: RunningRouter, stack: list[asyncio.Task], count: int, **parameters: int) -> None:
    """Let as many streams run, of which each has a connection of its own."""
    first = [asyncio.Event() for _ in range(count)]

    async def stream(place: int) -> list[dict]:
        body = {"inputs": f"prompt {place}", "parameters": parameters}
        received = []
        async with router.client.stream("POST", "/generate_stream", json=body) as response:
            async for event in events(response):
                received.append(event)
                first[place].set()
        return received

    stack += [asyncio.ensure_future(stream(place)) for place in range(count)]
    async with asyncio.timeout(20):
        for event in first:
            await event.wait()


async def test_they_are_one_router_from_the_first_request_to_the_last(directory):
    """Who leaves frees rows, limits and figures are everybody's, and an end waits for those under way."""
    options = {**TWO, "max_concurrent_requests": 4}
    async with running_router(directory, options=options, step_s=0.01, loads=FakeAdapters(**{"/law": "1"})) as router:
        assert len(workers()) == 2
        leaving, staying = [], []
        await begun(router, leaving, 4, max_new_tokens=900)
        assert await router.metric("tgi_batch_current_size") == 4
        refused = await asyncio.gather(*(router.generate("one too many", max_new_tokens=3) for _ in range(4)))
        assert {answer.status_code for answer in refused} == {429}
        assert refused[0].json() == {"error": "Model is overloaded", "error_type": "overloaded"}
        for stream in leaving:
            stream.cancel()
        await asyncio.gather(*leaving, return_exceptions=True)
        await router.until_idle()
        answer = await router.generate("short", max_new_tokens=3)
        assert answer.json()["generated_text"] == router.text("short", 3)
        assert int(answer.headers["x-queue-time"]) >= 0 and int(answer.headers["x-inference-time"]) >= 10
        for path, known in (("load", True), ("unload", False)):
            body = {"lora_name": "law", "lora_path": "/law"}
            assert (await router.client.post(f"/v1/{path}_lora_adapter", json=body)).status_code == 200
            found = await asyncio.gather(*(router.client.get("/v1/models") for _ in range(4)))
            assert {"law" in answer.text for answer in found} == {known}
        router.shard.failures["Decode"] = "no kernel"
        assert (await router.generate("fails", max_new_tokens=5)).status_code == 424
        assert await router.metric("tgi_request_count") == 10
        assert await router.metric("tgi_request_success") == await router.metric("tgi_request_duration_count") == 1
        for failure, times in (("dropped", 4), ("overloaded", 4), ("generation", 1)):
            assert await router.metric(f'tgi_request_failure{{err="{failure}"}}') == times
        assert await router.metric("tgi_cache_blocks") == 4095
        await begun(router, staying, 4, max_new_tokens=60)
        router.stop.set()
        for place, received in enumerate(await asyncio.gather(*staying)):
            assert received[-1]["generated_text"] == router.text(f"prompt {place}", 60)
        async with asyncio.timeout(10):
            assert await router.exit_code == 0
        assert workers() == []


async def test_a_worker_that_dies_frees_what_it_held_and_is_replaced(directory):
    options = {**TWO, "max_concurrent_requests": 4, "graceful_termination_timeout": 0}
    async with running_router(directory, options=options, step_s=0.01) as router:
        streams, before = [], workers()
        await begun(router, streams, 4, max_new_tokens=900)
        assert await router.metric("tgi_request_count") == 4
        os.kill(before[0], signal.SIGKILL)
        async with asyncio.timeout(20):
            while set(workers()) == set(before) or len(workers()) < 2 or sum(stream.done() for stream in streams) < 2:
                await asyncio.sleep(0.05)
            while await router.metric("tgi_batch_current_size") != 2:
                await asyncio.sleep(0.01)
        assert await router.metric("tgi_request_count") == 4
        answers = await asyncio.gather(*(router.generate(f"{n}", max_new_tokens=3) for n in range(2)))
        assert [answer.status_code for answer in answers] == [200] * 2
        router.stop.set()
        told = await asyncio.gather(*streams, return_exceptions=True)
        ends = [received[-1]["error"] for received in told if not isinstance(received, BaseException)]
        assert ends == ["Request failed during generation: the server stops"] * 2
        async with asyncio.timeout(10):
            assert await router.exit_code == 0


async def test_a_model_that_cannot_be_read_is_the_end(directory):
    with pytest.raises(StartError, match="nowhere"):
        async with running_router(directory, options={**TWO, "chat_template": "/nowhere/template.jinja"}):
            pass
    assert workers() == []
