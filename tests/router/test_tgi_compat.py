"""`--tgi-compat`: the bytes of text-generation-inference 3.3.7 where OpenAI's differ."""

import json
import re
from typing import Any

import pytest

from mocks.running_router import RunningRouter, running_router
from text_generation_router.chat.events import CallArguments, CallBegin, CallEnd
from text_generation_router.routes.asked import End, Step, Usage
from text_generation_router.routes.openai.schemas import ChatBody
from text_generation_router.routes.openai.tgi import TgiChat
from text_generation_router.types import FinishReason

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
MESSAGES = [{"role": "user", "content": "Hi"}]
PROMPT = "[user]Hi[assistant]"


@pytest.fixture
async def router(directory):
    options = {"tgi_compat": True, "served_model_name": "m"}
    async with running_router(directory, options=options) as running:
        yield running


async def sent(router: RunningRouter, path: str, **fields: Any) -> str:
    """An answer's text, with what differs from run to run replaced."""
    kind = {"messages": MESSAGES} if path == CHAT else {"prompt": "Hello"}
    answer = await router.client.post(path, json={**kind, "temperature": 0, **fields})
    text = re.sub(r'"created":\d+', '"created":1', answer.text)
    return re.sub(r'"system_fingerprint":"[^"]*"', '"system_fingerprint":"f"', text)


def logprob(letter: str) -> str:
    return str(-(ord(letter) - 96) / 10)


async def test_whole_answers(router):
    text, usage = router.text(PROMPT, 4), '"usage":{"prompt_tokens":20,"completion_tokens":4,"total_tokens":24}'
    assert await sent(router, CHAT, stop=[text[2:4]]) == (
        '{"object":"chat.completion","id":"","created":1,"model":"m","system_fingerprint":"f","choices":[{"index":0,'
        f'"message":{{"role":"assistant","content":"{text}"}},"logprobs":null,"finish_reason":"stop_sequence"}}],{usage}}}'
    )
    text, usage = router.text("Hello", 100), '"usage":{"prompt_tokens":6,"completion_tokens":100,"total_tokens":106}'
    assert await sent(router, COMPLETIONS, model="other") == (
        '{"object":"text_completion","id":"","created":1,"model":"m","system_fingerprint":"f","choices":[{"index":0,'
        f'"text":"{text}","logprobs":null,"finish_reason":"length"}}],{usage}}}'
    )
    assert len(json.loads(await sent(router, CHAT))["choices"][0]["message"]["content"]) == 100


async def test_streams(router):
    text = router.text(PROMPT, 2)
    chunk = (
        'data: {{"object":"chat.completion.chunk","id":"","created":1,"model":"m","system_fingerprint":"f",'
        '"choices":[{{"index":0,"delta":{{"role":"assistant","content":"{}"}},"logprobs":{{"content":[{{"token":"{}",'
        '"logprob":{},"top_logprobs":[]}}]}},"finish_reason":{}}}],"usage":null}}\n\n'
    )
    expected = "".join(
        chunk.format(letter, letter, logprob(letter), reason)
        for letter, reason in zip(text, ("null", '"length"'), strict=True)
    )
    assert await sent(router, CHAT, stream=True, max_tokens=2, logprobs=True) == f"{expected}data: [DONE]\n\n"
    first, second = router.text("Hello", 2)
    head = 'data: {"object":"text_completion","id":"","created":1,'
    facts = '"model":"m","system_fingerprint":"f"'
    choice = '"choices":[{{"index":0,"text":"{}","logprobs":null,"finish_reason":"{}"}}]'
    usage = '"usage":{"prompt_tokens":6,"completion_tokens":2,"total_tokens":8}'
    assert await sent(router, COMPLETIONS, stream=True, max_tokens=2) == (
        f"{head}{choice.format(first, '')},{facts}}}\n\n"
        f"{head}{facts},{choice.format(second, 'length')},{usage}}}\n\ndata: [DONE]\n\n"
    )


async def test_errors(router):
    bad = await router.client.post(CHAT, content=b"{", headers={"content-type": "application/json"})
    assert bad.status_code == 400 and bad.headers["content-type"].startswith("text/plain")
    assert bad.text.startswith("Failed to parse the request body as JSON: ")
    assert (await router.client.post("/generate", json={})).text.startswith("Failed to deserialize the JSON body")
    unknown = await router.client.get("/v1/nothing")
    assert unknown.status_code == 404 and unknown.content == b""
    error = json.loads(await sent(router, CHAT, max_tokens=0))
    assert list(error) == ["error", "error_type"] and error["error_type"] == "validation"
    router.shard.failures["Decode"] = "broken"
    *_, error, done = (await sent(router, CHAT, stream=True)).strip().split("\n\n")
    assert done == "data: [DONE]"
    assert json.loads(error.removeprefix("data: "))["error"] == {
        "message": "Request failed during generation: Server error",
        "http_status_code": 424,
    }


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_penalties(router, path):
    await sent(router, path, max_tokens=1, presence_penalty=-0.5, frequency_penalty=1.5)
    (asked,) = (request.parameters for request in router.sent())
    assert (asked.repetition_penalty, asked.frequency_penalty) == (1.5, 1.5)
    assert (asked.presence_penalty, asked.count_penalty) == (0, 0)
    assert "`repetition_penalty` must be strictly positive" in await sent(router, path, presence_penalty=-2)


def test_calls_have_the_id_0():
    writer = TgiChat(ChatBody(messages=MESSAGES), {"model_id": "m", "version": "1"})
    told = [CallBegin(0, "call_1", "add"), CallArguments(0, "{}"), CallEnd(0)]
    end = End(FinishReason.EOS_TOKEN, "", Usage(1, 2))
    chunks = [json.loads(text)["choices"][0] for text in writer.step(0, Step(told, [], [], 0, end))]
    assert [chunk["delta"]["tool_calls"][0] for chunk in chunks] == [
        {"index": 0, "id": "0", "type": "function", "function": {"name": "add", "arguments": ""}},
        {"index": 0, "id": "0", "type": "function", "function": {"name": None, "arguments": "{}"}},
    ]
    assert [chunk["finish_reason"] for chunk in chunks] == [None, "stop"]
