"""What takes too long: a request, a step of the shards, requests that still run when the router must stop."""

import asyncio

import pytest

from mocks.running_router import RunningRouter, events, running_router


async def stream(router: RunningRouter, begun: asyncio.Event | None = None, **parameters: int) -> list[dict]:
    """The events of a stream; `begun` is set at the first."""
    body = {"inputs": "streamed", "parameters": parameters}
    received = []
    async with router.client.stream("POST", "/generate_stream", json=body) as response:
        assert response.status_code == 200
        async for event in events(response):
            received.append(event)
            if begun:
                begun.set()
    return received


async def test_a_request_that_takes_too_long_ends_and_leaves_the_batch(directory):
    async with running_router(directory, options={"request_timeout": 1.5}, step_s=0.01) as router:
        whole, streamed, short = await asyncio.gather(
            router.generate("whole", max_new_tokens=1000),
            stream(router, max_new_tokens=1000),
            router.generate("short", max_new_tokens=3),
        )
        told = {"error": "Request ended unfinished after 1.5 s, which is all that it may take"}
        assert (whole.status_code, whole.json()) == (504, {**told, "error_type": "timeout"})
        assert streamed[-1] == {**told, "error_type": "timeout"} and "token" in streamed[-2]
        assert short.json()["generated_text"] == router.text("short", 3)
        await router.until_idle()
        assert await router.metric('tgi_request_failure{err="timeout"}') == 2


async def test_a_request_may_ask_for_less_time_than_all_have(directory):
    for options, asked, told in (({}, 0.3, "0.3 s"), ({"request_timeout": 0.2}, 9.0, "0.2 s")):
        async with running_router(directory, options=options, step_s=0.01) as router:
            answer = await router.generate("whole", max_new_tokens=1000, timeout=asked)
            assert answer.status_code == 504 and told in answer.json()["error"]
            body = {"prompt": "whole", "max_tokens": 1000, "timeout": asked}
            assert (await router.client.post("/v1/completions", json=body)).status_code == 504
            await router.until_idle()


async def test_the_time_of_a_request_that_waits_for_the_shards_runs_out_too(directory):
    async with running_router(directory, options={"request_timeout": 0.2, "max_batch_size": 1}) as router:
        router.shard.running.clear()
        answers = await asyncio.gather(*(router.generate(f"{n}", max_new_tokens=9) for n in range(3)))
        assert {answer.status_code for answer in answers} == {504}
        router.shard.running.set()
        await router.until_idle()
        assert router.shard.steps().count("Prefill") == 1 and "Decode" not in router.shard.steps()


async def test_the_watchdog_names_the_step_that_does_not_end(directory):
    async with running_router(directory, options={"watchdog_timeout": 0.2}) as router:
        router.shard.running.clear()
        running = asyncio.ensure_future(router.generate("Hello", max_new_tokens=3))
        async with asyncio.timeout(10):
            while (health := await router.client.get("/health")).status_code == 200:
                await asyncio.sleep(0.01)
        assert health.status_code == 503 and health.json()["error_type"] == "healthcheck"
        assert health.json()["error"].startswith("unhealthy: the shards have not answered a prefill of 1 for 0.")
        router.shard.running.set()
        assert (await running).status_code == 200
        assert (await router.client.get("/health")).status_code == 200


async def test_the_watchdog_does_not_wait_for_a_probe_either(directory):
    async with running_router(directory, options={"watchdog_timeout": 0.2}) as router:
        router.shard.failures["Prefill"] = "broken"
        await router.generate("Hello", max_new_tokens=3)
        router.shard.running.clear()
        health = await router.client.get("/health")
        assert health.status_code == 503
        assert health.json()["error"] == "unhealthy: the shards have not answered for 0.2 s"
        router.shard.running.set()
        assert (await router.client.get("/health")).status_code == 200


async def test_without_a_watchdog_a_long_step_is_no_fault(directory):
    async with running_router(directory) as router:
        router.shard.running.clear()
        running = asyncio.ensure_future(router.generate("Hello", max_new_tokens=3))
        while "Prefill" not in router.shard.steps():
            await asyncio.sleep(0.01)
        assert (await router.client.get("/health")).status_code == 200
        router.shard.running.set()
        assert (await running).status_code == 200


async def test_requests_that_outlast_the_grace_are_told_so(directory):
    async with running_router(directory, options={"graceful_termination_timeout": 0}) as router:
        begun = asyncio.Event()
        streaming = asyncio.ensure_future(stream(router, begun, max_new_tokens=1000))
        await begun.wait()
        router.shard.running.clear()
        waiting = asyncio.ensure_future(router.generate("Hello", max_new_tokens=3))
        while await router.metric("tgi_request_count") < 2:
            await asyncio.sleep(0.01)
        router.stop.set()
        told = {"error": "Request failed during generation: the server stops", "error_type": "generation"}
        assert (await streaming)[-1] == told
        answer = await waiting
        assert (answer.status_code, answer.json()) == (424, told)
        assert await router.exit_code == 0


@pytest.mark.parametrize("grace", [0, 90])
async def test_a_router_without_requests_stops_at_once(directory, grace):
    async with running_router(directory, options={"graceful_termination_timeout": grace}) as router:
        router.stop.set()
        async with asyncio.timeout(30):
            assert await router.exit_code == 0
