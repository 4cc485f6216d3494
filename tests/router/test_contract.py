"""What the contract of text-generation-inference says of all routes together, and no route's own tests show."""

import asyncio
from itertools import pairwise

from mocks.running_router import events, running_router

IN_ORDER = [
    ({"best_of": 3}, "`best_of` must be > 0 and <= 2"),
    ({"temperature": 0.0}, "`temperature`"),
    ({"repetition_penalty": 0.0}, "`repetition_penalty`"),
    ({"frequency_penalty": 3.0}, "`frequency_penalty`"),
    ({"top_p": 0.0}, "`top_p`"),
    ({"typical_p": 0.0}, "`typical_p`"),
    ({"top_k": 0}, "`top_k`"),
    ({"max_new_tokens": 0}, "`max_new_tokens`"),
    ({"stop": ["a"] * 5}, "`stop`"),
    ({"top_n_tokens": 6}, "`top_n_tokens`"),
    ({"truncate": 0}, "`truncate`"),
]
"""Rules as they are reported: of two that are broken the first."""


async def test_the_first_broken_rule_is_reported(directory):
    async with running_router(directory) as router:
        for (first, text), (second, _) in pairwise(IN_ORDER):
            answer = await router.generate("Hello", **first, **second)
            assert answer.status_code == 422 and text in answer.json()["error"], (first, second)
        answer = await router.generate("", truncate=0)
        assert "`inputs` cannot be empty" in answer.json()["error"]


async def test_of_129_requests_at_once_one_is_too_many(directory):
    async with running_router(directory) as router:
        router.shard.running.clear()
        running = [asyncio.ensure_future(router.generate("Hello", max_new_tokens=2)) for _ in range(128)]
        while await router.metric("tgi_request_count") < 128:
            await asyncio.sleep(0.01)
        refused = await router.generate("", temperature=-1)  # which overload goes before
        assert refused.status_code == 429 and refused.json()["error_type"] == "overloaded"
        assert int(refused.headers["retry-after"]) > 0
        for one in running[:64]:
            one.cancel()
        while await router.metric('tgi_request_failure{err="dropped"}') < 64:
            await asyncio.sleep(0.01)
        again = [asyncio.ensure_future(router.generate("Hello", max_new_tokens=2)) for _ in range(64)]
        router.shard.running.set()
        assert {answer.status_code for answer in await asyncio.gather(*running[64:], *again)} == {200}
        await router.until_idle()


async def test_1500_tokens_are_one_stream_of_1500_tokens(directory):
    async with running_router(directory) as router:
        body = {"inputs": "Hello", "parameters": {"max_new_tokens": 1500, "details": True}}
        async with router.client.stream("POST", "/generate_stream", json=body) as response:
            received = [event async for event in events(response)]
        assert [event["index"] for event in received] == list(range(1, 1501))
        assert received[-1]["generated_text"] == "".join(event["token"]["text"] for event in received)
        assert received[-1]["details"]["generated_tokens"] == 1500
        assert [event["details"] for event in received[:-1]] == [None] * 1499
