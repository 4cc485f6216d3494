"""Steps that the shard makes by itself: who comes and goes meanwhile, and shards that push none."""

import asyncio

import pytest

from mocks.running_router import events, running_router


async def begun(router, prompt, count):
    """A stream that has its first tokens, and what it will have received."""
    received, seen = [], asyncio.Event()

    async def read():
        body = {"inputs": prompt, "parameters": {"max_new_tokens": count}}
        async with router.client.stream("POST", "/generate_stream", json=body) as response:
            async for event in events(response):
                received.append(event)
                if len(received) > 4:
                    seen.set()
        return received

    reading = asyncio.ensure_future(read())
    await seen.wait()
    return reading


async def test_one_call_brings_all_steps_while_nobody_comes_or_goes(directory):
    async with running_router(directory) as router:
        answers = await asyncio.gather(*(router.generate("same beginning", max_new_tokens=60) for _ in range(3)))
        assert {answer.json()["generated_text"] for answer in answers} == {router.text("same beginning", 60)}
        calls = router.shard.pushed.calls
        assert (await router.generate("alone", max_new_tokens=300)).json()["generated_text"] == router.text(
            "alone", 300
        )
        assert router.shard.pushed.calls == calls + 1
        assert router.shard.steps().count("Decode") >= 299
        assert await router.metric('tgi_batch_inference_count{method="decode"}') == router.shard.steps().count("Decode")
        await router.until_idle()


async def test_who_comes_joins_after_the_step_under_way_and_who_leaves_is_taken_out(directory):
    async with running_router(directory, step_s=0.01) as router:
        staying, leaving = await begun(router, "staying", 120), await begun(router, "leaving", 1000)
        running = len(router.shard.calls)
        assert (await router.generate("coming", max_new_tokens=3)).json()["generated_text"] == router.text("coming", 3)
        assert router.shard.steps()[running:].index("Prefill") <= 20
        leaving.cancel()
        while "FilterBatch" not in router.shard.steps():
            await asyncio.sleep(0.001)
        assert (await staying)[-1]["generated_text"] == router.text("staying", 120)
        await router.until_idle()


async def test_the_shard_is_not_far_ahead_of_a_router_that_does_not_read(directory):
    async with running_router(directory) as router:
        reading = await begun(router, "slow", 400)
        made = router.shard.steps().count("Decode")
        for _ in range(made + 60):  # as many turns of the loop that both have; the router is given every one of them
            await asyncio.sleep(0)
        told = await router.metric('tgi_batch_inference_success{method="decode"}')
        assert router.shard.steps().count("Decode") - told <= 16 + 8
        assert (await reading)[-1]["generated_text"] == router.text("slow", 400)


async def test_a_step_that_fails_among_pushed_ones_ends_its_requests_and_no_others(directory):
    async with running_router(directory) as router:
        reading = await begun(router, "failing", 900)
        router.shard.failures["Decode"] = "no kernel"
        assert (await reading)[-1]["error_type"] == "generation"
        assert (await router.generate("next", max_new_tokens=5)).json()["generated_text"] == router.text("next", 5)
        await router.until_idle()


async def test_a_probe_waits_for_the_step_under_way_only(directory):
    async with running_router(directory, step_s=0.01) as router:
        router.shard.failures["Prefill"] = "broken"
        await router.generate("Hello", max_new_tokens=3)
        reading = await begun(router, "running", 200)
        async with asyncio.timeout(1):
            assert (await router.client.get("/health")).status_code == 200
        assert not reading.done()
        assert (await reading)[-1]["generated_text"] == router.text("running", 200)


@pytest.mark.parametrize("pushing", [True, False])
async def test_shards_that_push_nothing_are_asked_for_each_step(directory, pushing):
    async with running_router(directory, pushing=pushing, step_s=0.001) as router:
        staying = await begun(router, "staying", 150)
        leaving = await begun(router, "leaving", 1000)
        leaving.cancel()
        answers = await asyncio.gather(*(router.generate(f"prompt {n}", max_new_tokens=n) for n in range(1, 9)))
        assert [one.json()["generated_text"] for one in answers] == [router.text(f"prompt {n}", n) for n in range(1, 9)]
        assert (await staying)[-1]["generated_text"] == router.text("staying", 150)
        assert bool(router.shard.pushed.calls) == pushing
        await router.until_idle()
