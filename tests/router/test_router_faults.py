"""Shards that fail, forget or die: who is told what, and what goes on."""

import asyncio
import json

import httpx
import pytest

from mocks.fake_shard import PROBE_ID
from mocks.running_router import events, running_router


async def test_a_failed_decode_ends_its_requests_and_no_others(directory):
    async with running_router(directory) as router:
        router.shard.failures["Decode"] = "out of memory"
        answers = await asyncio.gather(*(router.generate(f"prompt {i}", max_new_tokens=5) for i in range(3)))
        failed = [answer for answer in answers if answer.status_code != 200]  # not who came after that decode
        assert {answer.status_code for answer in failed} == {424}
        assert failed[0].json() == {
            "error": "Request failed during generation: Server error",
            "error_type": "generation",
        }
        for i, answer in enumerate(answers):
            assert answer in failed or answer.json()["generated_text"] == router.text(f"prompt {i}", 5)
        assert router.shard.steps().count("ClearCache") == 2  # the first when it came
        assert (await router.generate("next", max_new_tokens=3)).json()["generated_text"] == router.text("next", 3)
        await router.until_idle()
        assert await router.metric('tgi_request_failure{err="generation"}') == len(failed)
        assert await router.metric('tgi_batch_inference_failure{method="decode"}') == 1


@pytest.mark.parametrize("path", ["/generate", "/generate_stream"])
async def test_a_failed_prefill_has_its_own_status_even_for_a_stream(directory, path):
    async with running_router(directory) as router:
        router.shard.failures["Prefill"] = "no kernel"
        body = {"inputs": "Hello", "parameters": {"max_new_tokens": 3}}
        answer = await router.client.post(path, json=body)
        assert answer.status_code == 424 and "no kernel" not in answer.text
        again = await router.generate("Hello", max_new_tokens=3)
        assert again.json()["generated_text"] == router.text("Hello", 3)
        cached = [call.batch.requests[0].cache_len for name, call in router.shard.calls if name == "Prefill"]
        assert cached == [0, 0]  # a prompt that was not computed is not shared


async def test_a_request_that_fails_alone_in_company_is_no_answer(directory):
    """Neither at once nor in the middle, and its prompt is not taken for one that is in the cache."""
    failed = {"error": "Request failed during generation: Server error: no room", "error_type": "generation"}
    async with running_router(directory) as router:
        router.shard.fail_after = {"at once": 0, "in the middle": 2}
        mate = asyncio.ensure_future(router.generate("mate", max_new_tokens=30))
        for prompt in router.shard.fail_after:
            answer = await router.generate(prompt, max_new_tokens=9)
            assert (answer.status_code, answer.json()) == (424, failed)
            body = {"inputs": prompt, "parameters": {"max_new_tokens": 9}}
            streamed = await router.client.post("/generate_stream", json=body)
            if prompt == "at once":
                assert (streamed.status_code, streamed.json()) == (424, failed)
            else:
                *tokens, last = [json.loads(line[5:]) for line in streamed.text.splitlines() if line]
                assert len(tokens) == 2 and last == failed
        assert (await mate).json()["generated_text"] == router.text("mate", 30)
        await router.until_idle()
        assert await router.metric('tgi_request_failure{err="generation"}') == 4
        assert await router.metric("tgi_request_success") == 1
        prefills = [call.batch.requests[0] for name, call in router.shard.calls if name == "Prefill"]
        assert max(wire.cache_len for wire in prefills if wire.inputs == "at once") <= 1  # what all prompts begin with


async def test_an_error_in_a_stream_is_its_last_event(directory):
    async with running_router(directory) as router:
        body = {"inputs": "Hello", "parameters": {"max_new_tokens": 300}}
        async with router.client.stream("POST", "/generate_stream", json=body) as response:
            received = []
            async for event in events(response):
                received.append(event)
                if len(received) == 2:
                    router.shard.failures["Decode"] = "broken"
        assert response.status_code == 200
        assert received[-1] == {
            "error": "Request failed during generation: Server error",
            "error_type": "generation",
        }
        assert all("token" in event for event in received[:-1])


async def test_health_after_a_failure_is_a_token_generated(directory):
    async with running_router(directory) as router:
        router.shard.failures["Decode"] = "broken"
        await router.generate("Hello", max_new_tokens=3)
        before = len(router.shard.calls)
        router.shard.failures["Prefill"] = "still broken"
        unhealthy = await router.client.get("/health")
        assert unhealthy.status_code == 503
        assert unhealthy.json() == {"error": "unhealthy", "error_type": "healthcheck"}
        answers = await asyncio.gather(*(router.client.get("/health") for _ in range(3)))
        assert {answer.status_code for answer in answers} == {200}
        probes = [call for name, call in router.shard.calls[before:] if name == "Prefill"]
        request = probes[-1].batch.requests[0]
        assert probes[-1].batch.id == request.id == PROBE_ID
        assert (request.inputs, request.truncate, request.add_special_tokens) == ("liveness", 1, False)
        probed = len(router.shard.calls)
        assert (await router.client.get("/health")).status_code == 200
        assert router.shard.steps()[probed:] == ["Health"]


async def test_a_probe_does_not_disturb_what_runs(directory):
    async with running_router(directory) as router:
        router.shard.failures["Prefill"] = "broken"
        await router.generate("Hello", max_new_tokens=3)
        running = asyncio.ensure_future(router.generate("running", max_new_tokens=40))
        assert (await router.client.get("/health")).status_code == 200
        assert (await running).json()["generated_text"] == router.text("running", 40)


async def test_a_shard_that_reports_itself_dead_is_unhealthy(directory):
    async with running_router(directory) as router:
        router.shard.alive = False
        for path, status in {"/health": 503, "/health/ready": 503, "/health/live": 200}.items():
            assert (await router.client.get(path)).status_code == status


async def test_requests_that_a_shard_forgets_are_incomplete(directory):
    async with running_router(directory) as router:
        router.shard.step_s = 0.05
        body = {"inputs": "Hello", "parameters": {"max_new_tokens": 50}}
        whole = asyncio.ensure_future(router.client.post("/generate", json=body))
        async with router.client.stream("POST", "/generate_stream", json=body) as response:
            received = []
            async for event in events(response):
                received.append(event)
                router.shard.forget = True
        assert received[-1] == {
            "error": "Incomplete generation stream",
            "error_type": "incomplete_generation_stream",
        }
        assert (await whole).status_code == 500
        assert (await whole).json() == {"error": "Incomplete generation", "error_type": "incomplete_generation"}
        await router.until_idle()


@pytest.mark.parametrize("busy", [True, False])
async def test_a_lost_shard_ends_the_router(directory, busy):
    async with running_router(directory) as router:
        router.shard.running.clear()
        body = {"inputs": "Hello", "parameters": {"max_new_tokens": 5}}
        waiting = [asyncio.ensure_future(router.client.post("/generate", json=body)) for _ in range(3 * busy)]
        while busy and "Prefill" not in router.shard.steps():
            await asyncio.sleep(0.01)
        await router.shard.stop()
        for answer in await asyncio.gather(*waiting):
            assert answer.status_code == 424 and answer.json()["error_type"] == "generation"
        async with asyncio.timeout(10):
            while (await router.client.get("/health")).status_code != 503:
                await asyncio.sleep(0.01)
            assert (await router.generate("more", max_new_tokens=1)).status_code == 424
            assert await router.exit_code == 1


@pytest.mark.parametrize(("method", "leaves"), [("FilterBatch", False), ("ClearCache", True)])
async def test_shards_that_cannot_be_brought_back_into_step_end_the_router(directory, method, leaves):
    """All who wait for an answer learn why there is none, and the launcher sees that the router is gone."""
    async with running_router(directory, keep_finished=True) as router:
        router.shard.running.clear()
        asked = [asyncio.ensure_future(router.generate("Hello", max_new_tokens=count)) for count in (2, 300)[leaves:]]
        while await router.metric("tgi_request_count") < len(asked):
            await asyncio.sleep(0.01)
        router.shard.failures[method] = "broken"
        if leaves:
            asked.pop().cancel()
            while not await router.metric('tgi_request_failure{err="dropped"}'):
                await asyncio.sleep(0.01)
        router.shard.running.set()
        async with asyncio.timeout(10):
            assert [(await one).status_code for one in asked] == [424] * len(asked)
            assert await router.exit_code == 1


async def test_stopping_finishes_what_runs(directory):
    async with running_router(directory) as router:
        running = asyncio.ensure_future(router.generate("Hello", max_new_tokens=300))
        while router.shard.steps().count("Decode") < 5:
            await asyncio.sleep(0)
        router.stop.set()
        async with asyncio.timeout(5):
            with pytest.raises(httpx.TransportError):  # not ready: nobody listens
                while await router.client.get("/health/ready"):
                    await asyncio.sleep(0.01)
        assert (await running).json()["generated_text"] == router.text("Hello", 300)
        assert await router.exit_code == 0


async def test_a_shard_lost_while_stopping_is_still_a_fault(directory):
    async with running_router(directory) as router:
        router.shard.running.clear()
        running = asyncio.ensure_future(router.generate("Hello", max_new_tokens=300))
        while "Prefill" not in router.shard.steps():
            await asyncio.sleep(0.01)
        router.stop.set()
        await asyncio.sleep(0.2)
        await router.shard.stop()
        assert (await running).status_code == 424
        assert await router.exit_code == 1
