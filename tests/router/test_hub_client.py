"""The client that people have: huggingface_hub's, unmodified."""

import asyncio
import json

import pytest
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError, OverloadedError, ValidationError

from mocks.running_router import running_router
from mocks.thinker import SCHEMA, SERVED


@pytest.fixture
async def router(directory):
    async with running_router(directory, options={"max_concurrent_requests": 1}) as running:
        yield running


async def test_text_and_details(router):
    client = InferenceClient(router.url)
    text = await asyncio.to_thread(client.text_generation, "Hello", max_new_tokens=4, return_full_text=False)
    assert text == router.text("Hello", 4)
    answer = await asyncio.to_thread(
        client.text_generation, "Hello", max_new_tokens=4, details=True, decoder_input_details=True
    )
    assert answer.details.finish_reason == "length" and len(answer.details.tokens) == 4
    assert [token.text for token in answer.details.prefill] == ["<s>", *"Hello"]


async def test_streams(router):
    client = InferenceClient(router.url)

    def read(details: bool):
        return list(client.text_generation("Hello", max_new_tokens=4, stream=True, details=details))

    assert "".join(await asyncio.to_thread(read, False)) == router.text("Hello", 4)
    last = (await asyncio.to_thread(read, True))[-1]
    assert last.generated_text.endswith(router.text("Hello", 4)) and last.details.generated_tokens == 4


async def test_errors_become_its_exceptions(router):
    client = InferenceClient(router.url)
    with pytest.raises(ValidationError, match="temperature"):
        await asyncio.to_thread(client.text_generation, "Hello", temperature=-1.0)
    router.shard.running.clear()
    running = asyncio.ensure_future(router.generate("running", max_new_tokens=1))
    while await router.metric("tgi_request_count") < 2:
        await asyncio.sleep(0.01)
    with pytest.raises(OverloadedError):
        await asyncio.to_thread(client.text_generation, "Hello")
    router.shard.running.set()
    await running


async def test_info_and_health(router):
    client = InferenceClient(router.url, provider="hf-inference")
    info = await asyncio.to_thread(client.get_endpoint_info)
    assert info["router"] == "text-generation-router"
    assert await asyncio.to_thread(client.health_check)


async def test_chats(router):
    client = InferenceClient(router.url)
    messages, expected = [{"role": "user", "content": "Hi"}], router.text("[user]Hi[assistant]", 4)
    answer = await asyncio.to_thread(client.chat_completion, messages, max_tokens=4)
    assert answer.choices[0].message.content == expected and answer.usage.total_tokens == 24
    chunks = await asyncio.to_thread(lambda: list(client.chat_completion(messages, max_tokens=4, stream=True)))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == expected
    with pytest.raises(HfHubHTTPError, match="presence_penalty"):
        await asyncio.to_thread(client.chat_completion, messages, presence_penalty=3.0)


async def test_tools_forms_and_usage(directory):
    function = {"name": "weather", "description": "Looks", "parameters": SCHEMA}
    asked = {"messages": [{"role": "user", "content": "Rain?"}], "max_tokens": 99}
    async with running_router(directory, **SERVED) as router:
        client = InferenceClient(router.url)
        tools = [{"type": "function", "function": function}]
        answer = await asyncio.to_thread(client.chat_completion, **asked, tools=tools)
        (call,) = answer.choices[0].message.tool_calls
        assert (call.function.name, json.loads(call.function.arguments)) == ("weather", {"city": "Bern"})
        answer = await asyncio.to_thread(client.chat_completion, **asked, tools=tools, tool_choice="none")
        assert answer.choices[0].message.tool_calls is None
        named = {"function": {"name": "weather"}}
        await asyncio.to_thread(client.chat_completion, **asked, tools=tools, tool_choice=named)
        assert '"weather"' in router.sent()[-1].parameters.grammar
        form = {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}
        await asyncio.to_thread(client.chat_completion, **asked, response_format=form)
        assert json.loads(router.sent()[-1].parameters.grammar) == SCHEMA
        wishes = {**asked, "stream": True, "stream_options": {"include_usage": True}}
        chunks = await asyncio.to_thread(lambda: list(client.chat_completion(**wishes)))
        assert [chunk.usage is None for chunk in chunks] == [True] * (len(chunks) - 1) + [False]
