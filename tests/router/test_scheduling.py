"""What the shards are asked for, and when; the fake shard checks slots, chunks and order of every call by itself."""

import asyncio

import pytest

from mocks.fake_shard import FakeShard
from mocks.running_router import events, running_router


async def test_requests_join_a_running_batch(directory):
    async with running_router(directory) as router:
        long = asyncio.ensure_future(router.generate("long", max_new_tokens=60))
        while router.shard.steps().count("Decode") < 5:
            await asyncio.sleep(0)
        assert (await router.generate("short", max_new_tokens=3)).json()["generated_text"] == router.text("short", 3)
        assert not long.done()
        assert (await long).json()["generated_text"] == router.text("long", 60)
        joined = [call for name, call in router.shard.calls if name == "Prefill"]
        assert [call.HasField("cached_batch") for call in joined] == [False, True]
        assert await router.metric('tgi_batch_concat{reason="chunking"}') == 1


async def test_a_prompt_longer_than_the_budget_is_computed_in_pieces(directory):
    prompts = {"a" * 600: 5, "b" * 100: 9, "c" * 300: 4}
    async with running_router(directory, options={"max_batch_prefill_tokens": 128}) as router:
        answers = await asyncio.gather(*(router.generate(text, max_new_tokens=n) for text, n in prompts.items()))
        texts = [answer.json()["generated_text"] for answer in answers]
        assert texts == [router.text(prompt, count) for prompt, count in prompts.items()]
        chunks = [
            request.chunk_len
            for name, call in router.shard.calls
            if name == "Prefill"
            for request in call.batch.requests
            if request.HasField("chunk_len")
        ]
        assert chunks and all(chunk <= 128 for chunk in chunks)
        await router.until_idle()


async def test_shards_that_tell_how_much_room_a_step_has_get_no_more(directory):
    async with running_router(directory, prefill_room=16) as router:
        long = asyncio.ensure_future(router.generate("long", max_new_tokens=60))
        while router.shard.steps().count("Decode") < 5:
            await asyncio.sleep(0)
        answer = await router.generate("b" * 40, max_new_tokens=3)
        assert answer.json()["generated_text"] == router.text("b" * 40, 3)
        alone, joined = [call.batch.requests[0] for name, call in router.shard.calls if name == "Prefill"]
        assert not alone.HasField("chunk_len") and joined.chunk_len == 16
        router.shard.prefill_room = 0
        waiting = asyncio.ensure_future(router.generate("c", max_new_tokens=2))
        assert (await waiting).json()["generated_text"] == router.text("c", 2)
        prefills = [call for name, call in router.shard.calls if name == "Prefill"]
        assert not prefills[-1].HasField("cached_batch") and (await long).status_code == 200


async def test_who_waits_is_started_by_priority_and_then_by_arrival(directory):
    async with running_router(directory, options={"max_batch_size": 1}) as router:
        router.shard.running.clear()
        answers = [asyncio.ensure_future(router.generate("running", max_new_tokens=3))]
        while "Prefill" not in router.shard.steps():
            await asyncio.sleep(0.01)
        for place, (prompt, priority) in enumerate({"a": 0, "b": 5, "c": -1, "d": None, "e": -1}.items()):
            answers.append(asyncio.ensure_future(router.generate(prompt, max_new_tokens=1, priority=priority)))
            while await router.metric("tgi_queue_size") <= place:
                await asyncio.sleep(0.01)
        router.shard.running.set()
        await asyncio.gather(*answers)
        sent = [call.batch.requests[0].inputs for name, call in router.shard.calls if name == "Prefill"]
        assert sent == ["running", "c", "e", "a", "d", "b"]


@pytest.mark.parametrize("block_size", [1, 16])
async def test_a_computed_prompt_is_reused(directory, block_size):
    async with running_router(directory, block_size=block_size) as router:
        prompt = "The beginning that both of them share. "
        for ending in ("first", "second", "second"):
            answer = await router.generate(prompt + ending, max_new_tokens=4)
            assert answer.json()["generated_text"] == router.text(prompt + ending, 4)
        cached = [
            request.cache_len
            for name, call in router.shard.calls
            if name == "Prefill"
            for request in call.batch.requests
        ]
        shared = len(prompt) + 1
        whole = shared + len("second") - 1
        assert cached == [0, shared - shared % block_size, whole - whole % block_size]
        assert await router.metric("tgi_prefix_cache_hit_tokens") == sum(cached)


async def test_a_running_requests_prompt_is_shared_too(directory):
    async with running_router(directory) as router:
        first = asyncio.ensure_future(router.generate("same prompt", max_new_tokens=50))
        while router.shard.steps().count("Decode") < 3:
            await asyncio.sleep(0)
        await router.generate("same prompt", max_new_tokens=2)
        assert not first.done()
        requests = [
            request for name, call in router.shard.calls if name == "Prefill" for request in call.batch.requests
        ]
        assert [request.cache_len for request in requests] == [0, len("same prompt")]
        await first
        await router.until_idle()


async def test_a_small_cache_is_shared_by_waiting(directory):
    sizes = {"num_slots": 96, "max_total_tokens": 80}
    async with running_router(directory, options={"max_batch_prefill_tokens": 64}, **sizes) as router:
        prompts = [letter * 20 for letter in "abcdefgh"]
        answers = await asyncio.gather(*(router.generate(prompt, max_new_tokens=20) for prompt in prompts))
        assert [answer.json()["generated_text"] for answer in answers] == [router.text(p, 20) for p in prompts]
        assert max(len(ids) for name, ids in router.shard.calls if name == "Decode") == 1
        await router.until_idle()


@pytest.mark.parametrize("block_size", [1, 16])
async def test_the_largest_request_fits_into_the_empty_cache(directory, block_size):
    options = {"max_batch_prefill_tokens": 64}
    async with running_router(directory, options=options, num_slots=128, block_size=block_size) as router:
        info = (await router.client.get("/info")).json()
        assert info["max_total_tokens"] == 128 - block_size + 1
        answer = await router.client.post("/generate", json={"inputs": "x" * 40})
        assert len(answer.json()["generated_text"]) == info["max_total_tokens"] - 41


async def test_shards_that_do_not_chunk_get_prefills_of_their_own(directory):
    options = {"max_batch_prefill_tokens": 64, "max_input_tokens": 60, "waiting_served_ratio": 0.0}
    async with running_router(directory, options=options, chunking=False) as router:
        prompts = {f"{letter * 30}": 20 + i for i, letter in enumerate("abcde")}
        answers = await asyncio.gather(*(router.generate(text, max_new_tokens=n) for text, n in prompts.items()))
        texts = [answer.json()["generated_text"] for answer in answers]
        assert texts == [router.text(prompt, count) for prompt, count in prompts.items()]
        assert any(len(ids) == 2 for name, ids in router.shard.calls if name == "Decode")
        await router.until_idle()


async def test_without_chunking_few_waiting_requests_wait_for_more_or_for_long(directory):
    options = {"max_input_tokens": 60, "waiting_served_ratio": 2.0, "max_waiting_tokens": 8}
    async with running_router(directory, options=options, chunking=False, pushing=False, step_s=0.03) as router:
        first = asyncio.ensure_future(router.generate("first", max_new_tokens=40))
        while "Decode" not in router.shard.steps():
            await asyncio.sleep(0)
        await router.generate("second", max_new_tokens=1)
        steps = [name for name in router.shard.steps() if name in ("Prefill", "Decode")]
        assert steps[: steps.index("Prefill", 1)].count("Decode") == 8
        assert await router.metric('tgi_batch_concat{reason="wait_exceeded"}') == 1
        await first


async def test_finished_requests_left_in_the_batch_are_filtered_before_their_slots_are_reused(directory):
    options = {"max_batch_prefill_tokens": 64}
    async with running_router(directory, options=options, keep_finished=True, num_slots=128) as router:
        counts = [3, 9, 5, 7, 12, 2, 8]
        prompts = [letter * 12 for letter in "abcdefg"]
        answers = await asyncio.gather(
            *(router.generate(prompt, max_new_tokens=n) for prompt, n in zip(prompts, counts, strict=True))
        )
        for prompt, count, answer in zip(prompts, counts, answers, strict=True):
            assert answer.json()["generated_text"] == router.text(prompt, count)
        assert "FilterBatch" in router.shard.steps()
        await router.until_idle()


async def test_shards_that_drop_finished_requests_are_not_asked_to(directory):
    async with running_router(directory) as router:
        await asyncio.gather(*(router.generate(f"prompt {n}", max_new_tokens=n) for n in range(1, 9)))
        assert not {"FilterBatch", "ClearCache"} & set(router.shard.steps()[1:])


async def test_every_rank_is_asked_and_their_tokens_are_put_together(directory):
    async with running_router(directory, world_size=2) as router:
        prompts = [f"prompt {i}" for i in range(6)]
        answers = await asyncio.gather(*(router.generate(prompt, max_new_tokens=6) for prompt in prompts))
        assert [answer.json()["generated_text"] for answer in answers] == [router.text(p, 6) for p in prompts]
        one, other = (shard.steps().count("Decode") for shard in router.shards)
        assert one == other


@pytest.mark.parametrize(
    "most",
    [
        {"options": {"max_batch_size": 3}},
        {"max_batch_size": 3},
        {"max_batch_size": 3, "options": {"router_workers": 2, "max_batch_size": 5}},
    ],
    ids=("asked for", "room", "room, by workers"),
)
async def test_no_more_requests_run_than_a_batch_may_hold(directory, most):
    async with running_router(directory, **most) as router:
        sizes = []
        answers = [asyncio.ensure_future(router.generate(f"prompt {i}", max_new_tokens=10)) for i in range(9)]
        while not all(answer.done() for answer in answers):
            sizes.append(len(router.shard.live_rows()))
            await asyncio.sleep(0)
        assert max(sizes) == 3


async def test_overload_is_refused_at_once_and_permits_come_back(directory):
    async with running_router(directory, options={"max_concurrent_requests": 128}) as router:
        router.shard.running.clear()
        body = {"inputs": "Hi", "parameters": {"max_new_tokens": 1}}
        waiting = [asyncio.ensure_future(router.client.post("/generate", json=body)) for _ in range(128)]
        while await router.metric("tgi_request_count") < 128:
            await asyncio.sleep(0.1)
        for path in ("/generate", "/generate_stream"):
            refused = await router.client.post(path, json={**body, "inputs": ""})
            assert refused.status_code == 429 and refused.headers["retry-after"] == "1"
            assert refused.json() == {"error": "Model is overloaded", "error_type": "overloaded"}
        for request in waiting[:64]:
            request.cancel()
        await asyncio.gather(*waiting[:64], return_exceptions=True)
        router.shard.running.set()
        assert {answer.status_code for answer in await asyncio.gather(*waiting[64:])} == {200}
        await router.until_idle()
        again = await asyncio.gather(*(router.client.post("/generate", json=body) for _ in range(128)))
        assert {answer.status_code for answer in again} == {200}
        assert await router.metric('tgi_request_failure{err="overloaded"}') == 2


@pytest.mark.parametrize(
    ("path", "leaver", "steps", "others"),
    [
        ("/generate", {}, 0, 0),
        ("/generate_stream", {}, 0, 0),
        ("/generate_stream", {"inputs": "leaving " * 100}, 2, 1),
        ("/generate", {}, 6, 1),
        ("/generate_stream", {}, 6, 0),
        ("/generate", {"best_of": 2, "do_sample": True}, 6, 0),
    ],
    ids=["prefill", "prefill of a stream", "between chunks", "decode", "decode of a stream", "all samples"],
)
async def test_who_hangs_up_leaves_batch_and_cache_after_the_step_under_way(directory, path, leaver, steps, others):
    async with running_router(directory, options={"max_batch_prefill_tokens": 128}, keep_finished=True) as router:
        staying = [asyncio.ensure_future(router.generate("staying", max_new_tokens=200)) for _ in range(others)]
        while len(router.shard.live_rows()) < others:
            await asyncio.sleep(0)
        parameters = {"max_new_tokens": 1000, **leaver}
        body = {"inputs": parameters.pop("inputs", "leaving"), "parameters": parameters}
        if not steps:
            router.shard.running.clear()
        leaving = asyncio.ensure_future(router.client.post(path, json=body))
        await held_after(router.shard, others, steps)
        assert not others or steps > 2 or any(row.prefilling for row in router.shard.live_rows())
        leaving.cancel()
        while not await router.metric('tgi_request_failure{err="dropped"}'):
            await asyncio.sleep(0.001)
        held = len(router.shard.calls)
        router.shard.running.set()
        while len(router.shard.calls) == held:
            await asyncio.sleep(0)
        assert router.shard.steps()[held] == ("FilterBatch" if others else "ClearCache")
        for answer in staying:
            assert (await answer).json()["generated_text"] == router.text("staying", 200)
        await router.until_idle()


async def held_after(shard: FakeShard, prefills: int, steps: int) -> None:
    """Hold the call that comes `steps` after the first Prefill behind so many others."""
    while shard.steps().count("Prefill") <= prefills:
        await asyncio.sleep(0)
    if not steps:
        return
    first = [at for at, name in enumerate(shard.steps()) if name == "Prefill"][prefills]
    while len(shard.calls) < first + steps:
        await asyncio.sleep(0)
    shard.running.clear()
    passed = len(shard.calls)
    while len(shard.calls) == passed:
        await asyncio.sleep(0)


async def test_a_client_that_hangs_up_in_the_queue_is_never_run(directory):
    async with running_router(directory, options={"max_batch_size": 1}) as router:
        running = asyncio.ensure_future(router.generate("running", max_new_tokens=100))
        waiting = asyncio.ensure_future(router.generate("waiting", max_new_tokens=100))
        while await router.metric("tgi_queue_size") < 1:
            await asyncio.sleep(0)
        router.shard.running.clear()
        waiting.cancel()
        while await router.metric("tgi_queue_size"):
            await asyncio.sleep(0.001)
        router.shard.running.set()
        await running
        await router.until_idle()
        assert router.shard.steps().count("Prefill") == 1
        assert await router.metric('tgi_request_failure{err="dropped"}') == 1


async def test_a_client_that_does_not_read_delays_nobody(directory):
    async with running_router(directory, pad="x" * 50_000) as router:
        reader, writer = await asyncio.open_connection("127.0.0.1", router.client.base_url.port, limit=1024)
        body = b'{"inputs": "slow", "parameters": {"max_new_tokens": 200}}'
        head = (
            "POST /generate_stream HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n"
        )
        writer.write(head.format(len(body)).encode() + body)
        fast = {"inputs": "fast", "parameters": {"max_new_tokens": 150}}
        async with router.client.stream("POST", "/generate_stream", json=fast) as response:
            received = [event async for event in events(response)]
        assert len(received) == 150
        while router.shard.live_rows():  # the slow one's tokens are made all the same
            await asyncio.sleep(0.01)
        steps = router.shard.steps()
        assert steps.count("Prefill") + steps.count("Decode") >= 200
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        writer.close()
        await writer.wait_closed()
