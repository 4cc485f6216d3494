"""A request that gets its cache space in parts: clients, metrics and others see one from first to last token."""

import asyncio

import httpx
import pytest

from mocks.running_router import RunningRouter, events, running_router
from text_generation_router import queue

STAY = 4
LENGTHS = [3, 4, 5, 8, 9]


@pytest.fixture(autouse=True)
def short_stays(monkeypatch):
    monkeypatch.setattr(queue, "STAY", STAY)


def prefilled(router: RunningRouter) -> list:
    """Every request that was sent, in order."""
    return [one for name, call in router.shard.calls if name == "Prefill" for one in call.batch.requests]


async def streamed(router: RunningRouter, **parameters) -> list[dict]:
    body = {"inputs": "Hello", "parameters": {"details": True, **parameters}}
    async with router.client.stream("POST", "/generate_stream", json=body) as response:
        return [event async for event in events(response)]


@pytest.mark.parametrize("count", LENGTHS)
@pytest.mark.parametrize("switches", [{}, {"chunking": False}, {"prefix_caching": False}, {"keep_finished": True}])
async def test_clients_see_one_answer(directory, count, switches):
    async with running_router(directory, **switches) as router:
        received = await streamed(router, max_new_tokens=count, do_sample=True, seed=5)
        text = router.text("Hello", count)
        assert [event["index"] for event in received] == list(range(1, count + 1))
        assert "".join(event["token"]["text"] for event in received) == text
        assert [event["generated_text"] for event in received] == [None] * (count - 1) + [text]
        details = {"finish_reason": "length", "generated_tokens": count, "seed": 5, "input_length": 6}
        assert received[-1]["details"] == details
        sent = prefilled(router)
        stays = [min(STAY, count - done) for done in range(0, count, STAY)]
        assert [one.stopping_parameters.max_new_tokens for one in sent] == stays
        assert [one.resumable for one in sent] == [True] * (len(stays) - 1) + [False]
        assert {(one.inputs, one.parameters.seed) for one in sent} == {("Hello", 5)}
        await router.until_idle()


@pytest.mark.parametrize("count", LENGTHS)
async def test_ends_are_seen_wherever_a_stay_ends(directory, count):
    async with running_router(directory, eos_after=count) as router:
        answer = (await router.generate("Hello", max_new_tokens=99, details=True)).json()
        assert answer["generated_text"] == router.text("Hello", count)
        assert answer["details"]["finish_reason"] == "eos_token"
    async with running_router(directory) as router:
        text = router.text("Hello", 20)
        stop = text[count - 3 : count]
        answer = (await router.generate("Hello", max_new_tokens=99, stop=[stop], details=True)).json()
        assert answer["generated_text"] == text[: text.index(stop) + 3]
        assert answer["details"]["finish_reason"] == "stop_sequence"


async def test_details_of_the_prompt_come_once(directory):
    async with running_router(directory) as router:
        answer = await router.generate("Hello", max_new_tokens=9, details=True, decoder_input_details=True)
        assert [token["id"] for token in answer.json()["details"]["prefill"]] == router.shard.tokenizer.encode(
            "Hello"
        ).ids
        assert [one.prefill_logprobs for one in prefilled(router)] == [True, False, False]


async def test_a_request_is_counted_once(directory):
    async with running_router(directory) as router:
        await router.generate("Hello", max_new_tokens=3 * STAY)
        for metric, value in {
            "tgi_request_count": 1,
            "tgi_request_success": 1,
            "tgi_request_input_length_count": 1,
            "tgi_request_input_length_sum": 6,
            "tgi_request_max_new_tokens_sum": 3 * STAY,
            "tgi_request_generated_tokens_sum": 3 * STAY,
            "tgi_request_queue_duration_count": 1,
            "tgi_prompt_tokens": 6,
        }.items():
            assert await router.metric(metric) == value, metric


async def test_who_comes_back_comes_before_who_has_not_begun(directory):
    async with running_router(directory, options={"max_batch_size": 1}) as router:
        router.shard.running.clear()
        first = asyncio.ensure_future(router.generate("Hello", max_new_tokens=3 * STAY))
        await asyncio.sleep(0.05)
        second = asyncio.ensure_future(router.generate("World", max_new_tokens=1))
        await asyncio.sleep(0.05)
        router.shard.running.set()
        await asyncio.gather(first, second)
        assert [one.inputs for one in prefilled(router)] == ["Hello"] * 3 + ["World"]


async def test_a_client_that_leaves_between_two_stays_leaves_nothing_behind(directory):
    async with running_router(directory, step_s=0.01) as router:
        body = {"inputs": "Hello", "parameters": {"max_new_tokens": 400}}
        async with router.client.stream("POST", "/generate_stream", json=body) as response:
            async for _ in events(response):
                if len(prefilled(router)) == 3:
                    break
        await router.until_idle()
        assert await router.metric('tgi_request_failure{err="dropped"}') == 1
        assert len(prefilled(router)) < 10


@pytest.mark.parametrize("options", [{"resuming": False}, {"chunking": False}])
async def test_who_could_not_come_back_gets_all_its_space_at_once(directory, options):
    async with running_router(directory, **options) as router:
        prompt = "x" * 250  # with a stay longer than a prefill
        answer: httpx.Response = await router.generate(prompt, max_new_tokens=3 * STAY)
        assert answer.json()["generated_text"] == router.text(prompt, 3 * STAY)
        sent = prefilled(router)
        assert sent[-1].stopping_parameters.max_new_tokens > STAY and not sent[-1].resumable
