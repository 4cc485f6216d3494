"""A stream with every line break and control character of Unicode, as the clients that people have read it."""

import asyncio
import json
import sys
import unicodedata
from collections.abc import AsyncIterator

import grpc
import httpx
import pytest
import requests
from huggingface_hub import AsyncInferenceClient, InferenceClient

from mocks.running_router import RunningRouter, running_router
from text_generation import Client
from text_generation_router.sse import event_data

MARKS = "".join(
    character
    for character in map(chr, range(sys.maxunicode + 1))
    if unicodedata.category(character) in ("Cc", "Cf", "Zl", "Zp", "Zs") or ord(character) & 0xFFFE == 0xFFFE
)
"""Controls, formats, separators of lines and of words, and noncharacters."""

BODY = {"inputs": "Hi", "parameters": {"max_new_tokens": 2, "details": True}}
ERROR = f"the shard said {MARKS}"


@pytest.fixture
async def router(directory) -> AsyncIterator[RunningRouter]:
    async with running_router(directory, pad=MARKS) as running:
        yield running


def texts(lines: list[str]) -> list[str]:
    """The tokens of a stream that a client has cut into lines."""
    return [json.loads(line.removeprefix("data:"))["token"]["text"] for line in lines if line]


def expected(router: RunningRouter) -> list[str]:
    return [letter + MARKS for letter in router.text("Hi", 2)]


def test_no_line_break_of_unicode_is_left_out() -> None:
    breaks = [character for character in map(chr, range(sys.maxunicode + 1)) if len(f"a{character}b".splitlines()) > 1]
    assert set(breaks) <= set(MARKS)
    (line,) = event_data(json.dumps(MARKS, ensure_ascii=False)).decode().removesuffix("\n\n").splitlines()
    assert json.loads(line.removeprefix("data: ")) == MARKS


async def test_huggingface_hub(router: RunningRouter) -> None:
    client = InferenceClient(router.url)
    told = await asyncio.to_thread(lambda: list(client.text_generation("Hi", max_new_tokens=2, stream=True)))
    assert told == expected(router)
    async with AsyncInferenceClient(router.url) as asynchronous:
        stream = await asynchronous.text_generation("Hi", max_new_tokens=2, stream=True, details=True)
        events = [event async for event in stream]
    assert [event.token.text for event in events] == expected(router)
    assert events[-1].generated_text.endswith("".join(expected(router)))


async def test_httpx(router: RunningRouter) -> None:
    async with router.client.stream("POST", "/generate_stream", json=BODY) as response:
        assert texts([line async for line in response.aiter_lines()]) == expected(router)


@pytest.mark.parametrize("decode", [False, True])
async def test_requests(router: RunningRouter, decode: bool) -> None:
    def read() -> list[str]:
        with requests.post(f"{router.url}/generate_stream", json=BODY, stream=True) as response:
            response.encoding = "utf-8"
            lines = list(response.iter_lines(decode_unicode=decode))
        return lines if decode else [line.decode() for line in lines]

    assert texts(await asyncio.to_thread(read)) == expected(router)


async def test_line_feeds_alone_as_aiohttp_does(router: RunningRouter) -> None:
    answer = await router.client.post("/generate_stream", json=BODY)
    assert texts(answer.content.decode().split("\n")) == expected(router)


async def test_event_sources_rule(router: RunningRouter) -> None:
    """Our own client reads by the rule that browsers follow."""
    events = await asyncio.to_thread(lambda: list(Client(router.url).generate_stream("Hi", max_new_tokens=2)))
    assert [event.token.text for event in events] == expected(router)


@pytest.mark.parametrize("streamed", [False, True])
async def test_errors(router: RunningRouter, streamed: bool) -> None:
    """Before the stream begins an error that clients are told is a body of JSON, in the stream an event."""
    router.shard.failure_code = grpc.StatusCode.INVALID_ARGUMENT
    router.shard.failures["Decode" if streamed else "Prefill"] = ERROR
    async with router.client.stream("POST", "/generate_stream", json=BODY) as response:
        lines = [line async for line in response.aiter_lines() if line] if streamed else [await read_text(response)]
    assert json.loads(lines[-1].removeprefix("data: "))["error"].endswith(ERROR)


async def read_text(response: httpx.Response) -> str:
    return (await response.aread()).decode()
