"""Anthropic's routes, by what is on the wire, and by what its own client makes of it."""

import json
from typing import Any

import httpx
import pytest
from anthropic import AsyncAnthropic, AuthenticationError, RateLimitError, UnprocessableEntityError

from mocks.running_router import running_router
from mocks.thinker import SCHEMA, SERVED
from text_generation_router.chat.events import CallArguments, CallBegin, CallEnd, Content, Reasoning
from text_generation_router.routes.anthropic.asked import chat_body
from text_generation_router.routes.anthropic.schemas import MessagesBody
from text_generation_router.routes.anthropic.writer import MessageWriter
from text_generation_router.routes.asked import End, Step, Usage
from text_generation_router.types import FinishReason

PATH = "/v1/messages"
CACHED = {"type": "ephemeral"}
BODY = {
    "model": "any",
    "max_tokens": 4,
    "temperature": 0,
    "system": [{"type": "text", "text": "Be brief", "cache_control": CACHED}],
    "messages": [{"role": "user", "content": "Hi"}],
}
PROMPT = "[system]Be brief[user]Hi[assistant]"


async def events(response: httpx.Response) -> list[tuple[str, Any]]:
    """The names and contents of a stream's events."""
    lines = [line async for line in response.aiter_lines() if line]
    names, contents = lines[::2], [json.loads(line.removeprefix("data: ")) for line in lines[1::2]]
    found = [(name.removeprefix("event: "), content) for name, content in zip(names, contents, strict=True)]
    assert all(name == content["type"] for name, content in found)
    return found


async def test_a_message_is_a_block_of_text(directory):
    async with running_router(directory) as router:
        answer = await router.client.post(PATH, json=BODY, headers={"anthropic-version": "2023-06-01"})
        told = answer.json()
        assert told.pop("id").startswith("msg_")
        usage = {"input_tokens": 36, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 4}
        assert told == {
            "type": "message",
            "role": "assistant",
            "model": "any",
            "content": [{"type": "text", "text": router.text(PROMPT, 4)}],
            "stop_reason": "max_tokens",
            "stop_sequence": None,
            "usage": usage,
        }
        assert answer.headers["x-generated-tokens"] == "4"
        counted = {name: value for name, value in BODY.items() if name != "max_tokens"}
        assert (await router.client.post(f"{PATH}/count_tokens", json=counted)).json() == {"input_tokens": 36}


async def test_a_streams_events(directory):
    async with running_router(directory, eos_after=2) as router:
        async with router.client.stream("POST", PATH, json={**BODY, "stream": True}) as response:
            assert response.status_code == 200 and response.headers["content-type"] == "text/event-stream"
            found = await events(response)
        first, second = router.text(PROMPT, 2)
        assert [name for name, _ in found] == [
            "message_start",
            "ping",
            "content_block_start",
            *["content_block_delta"] * 2,
            "content_block_stop",
            "message_delta",
            "message_stop",
        ]
        assert found[0][1]["message"]["usage"]["input_tokens"] == 36 and found[0][1]["message"]["content"] == []
        assert [content["delta"] for name, content in found if name == "content_block_delta"] == [
            {"type": "text_delta", "text": first},
            {"type": "text_delta", "text": second},
        ]
        assert found[-2][1]["delta"] == {"stop_reason": "end_turn", "stop_sequence": None}
        assert found[-2][1]["usage"]["output_tokens"] == 2


@pytest.fixture
async def guarded(directory):
    """A router that serves one at a time who knows the key."""
    async with running_router(directory, options={"api_key": "k", "max_concurrent_requests": 1}) as router:
        yield router


@pytest.fixture
async def client(guarded):
    async with AsyncAnthropic(base_url=guarded.url, api_key="k", max_retries=0) as opened:
        yield opened


async def test_anthropics_client(guarded, client):
    text = guarded.text(PROMPT, 4)
    fields = {name: value for name, value in BODY.items() if name != "temperature"}
    fields["extra_body"] = {"temperature": 0}  # which this API's latest models do not know
    stop = text[2:]
    whole = await client.messages.create(**{**fields, "max_tokens": 9, "stop_sequences": [stop]})
    assert whole.content[0].text == text[:2] and whole.stop_reason == "stop_sequence"
    assert whole.stop_sequence == stop and whole.usage.output_tokens == 4
    async with client.messages.stream(**fields) as stream:
        assert "".join([piece async for piece in stream.text_stream]) == text
        assert (await stream.get_final_message()).usage.input_tokens == 36
    assert (await client.messages.count_tokens(model="any", messages=BODY["messages"])).input_tokens == 20
    with pytest.raises(AuthenticationError):
        await client.with_options(api_key="other").messages.create(**fields)
    with pytest.raises(UnprocessableEntityError) as refused:
        await client.messages.create(**{**fields, "max_tokens": 0})
    error = refused.value.body["error"]
    assert error["type"] == "invalid_request_error" and "`max_tokens` must be" in error["message"]
    async with client.messages.stream(**{**fields, "max_tokens": 900}) as stream:
        await anext(aiter(stream))
        with pytest.raises(RateLimitError):
            await client.messages.create(**fields)


async def test_errors_have_anthropics_shape_in_streams_too(directory):
    async with running_router(directory) as router:
        router.shard.failures["Decode"] = "broken"
        async with router.client.stream("POST", PATH, json={**BODY, "stream": True}) as response:
            name, last = (await events(response))[-1]
        assert name == "error" and last["error"]["type"] == "api_error"
        missing = (await router.client.post(f"{PATH}/nothing", json={})).json()
        assert missing["type"] == "error" and missing["error"]["type"] == "not_found_error"


async def test_a_silent_stream_gets_pings(directory):
    async with running_router(directory, keep_alive_s=0.05) as router:
        router.shard.running.clear()
        async with router.client.stream("POST", PATH, json={**BODY, "stream": True}) as response:
            assert await anext(response.aiter_raw()) == b'event: ping\ndata: {"type":"ping"}\n\n'
            router.shard.running.set()


IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aaaa"}}


REFUSED = [
    ({"messages": [{"role": "user", "content": [IMAGE]}]}, "type image"),
    ({"messages": [{"role": "user", "content": [{"type": "tool_result", "content": [IMAGE]}]}]}, "type image"),
    ({"messages": [{"role": "poet", "content": "Hi"}]}, "`role` 'poet'"),
    ({"messages": [{"role": "user", "content": 1}]}, "`messages`"),
    ({"messages": [{"role": "assistant", "content": [{"type": "tool_use", "name": "f"}]}]}, "tool_use"),
    ({"messages": []}, "`messages`"),
    ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "web_search_20250305"),
    ({"tools": [{"name": "f", "input_schema": {}}], "tool_choice": {"type": "all"}}, "`tool_choice`"),
    ({"mcp_servers": [{"url": "http://example"}]}, "`mcp_servers`"),
    ({"container": "c"}, "`container`"),
    ({"output_config": {"format": {"type": "xml"}}}, "`output_config`"),
    ({"stop_sequences": ["a"] * 5}, "`stop_sequences`"),
    ({"max_tokens": None}, "max_tokens"),
]


async def test_what_cannot_act_is_refused_by_name(directory):
    async with running_router(directory) as router:
        for fields, named in REFUSED:
            answer = await router.client.post(PATH, json={**BODY, **fields})
            assert answer.status_code == 422, (fields, answer.text)
            error = answer.json()["error"]
            assert error["type"] == "invalid_request_error" and named in error["message"]
        assert "Prefill" not in router.shard.steps()


def test_blocks_are_messages_of_a_chat():
    call = {"type": "tool_use", "id": "t1", "name": "add", "input": {"a": "ü"}}
    result = {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "2"}], "is_error": False}
    messages = [
        {"role": "user", "content": "Add"},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Well", "signature": ""},
                {"type": "redacted_thinking", "data": "x"},
                {"type": "text", "text": "I add"},
                call,
            ],
        },
        {"role": "user", "content": [result, {"type": "text", "text": "More"}, {"type": "text", "text": "please"}]},
    ]
    given = {**BODY, "messages": messages, "thinking": {"type": "enabled", "budget_tokens": 9}}
    made = chat_body(MessagesBody.model_validate(given))
    function = {"name": "add", "arguments": '{"a": "ü"}'}
    assert made.messages == [
        {"role": "system", "content": "Be brief"},
        {"role": "user", "content": "Add"},
        {
            "role": "assistant",
            "reasoning_content": "Well",
            "content": "I add",
            "tool_calls": [{"id": "t1", "type": "function", "function": function}],
        },
        {"role": "tool", "tool_call_id": "t1", "content": "2"},
        {"role": "user", "content": "More\nplease"},
    ]
    assert made.chat_template_kwargs == {"enable_thinking": True, "thinking": True}


def test_reasoning_text_and_calls_are_blocks_of_their_own():
    writer = MessageWriter("m")
    told = [Reasoning("W"), Reasoning("ell"), Content("I"), CallBegin(0, "t1", "add"), CallArguments(0, '{"a":')]
    told += [CallArguments(0, "1}"), CallEnd(0), CallBegin(1, "t2", "sub"), CallEnd(1)]
    written = [text for event in told for text in writer.step(0, Step([event], [], [], 0, None))]
    written += [
        *writer.step(0, Step([], [], [], 0, End(FinishReason.EOS_TOKEN, "", Usage(1, 2)))),
        *writer.end(Usage(1, 2)),
    ]
    events = list(map(json.loads, written))
    assert [(event["type"].removeprefix("content_block_"), event.get("index")) for event in events] == [
        ("start", 0), ("delta", 0), ("delta", 0), ("delta", 0), ("stop", 0),
        ("start", 1), ("delta", 1), ("stop", 1),
        ("start", 2), ("delta", 2), ("delta", 2), ("stop", 2),
        ("start", 3), ("stop", 3),
        ("message_delta", None), ("message_stop", None),
    ]  # fmt: skip
    assert events[3]["delta"] == {"type": "signature_delta", "signature": ""}
    assert events[8]["content_block"] == {"type": "tool_use", "id": "t1", "name": "add", "input": {}}
    assert events[9]["delta"] == {"type": "input_json_delta", "partial_json": '{"a":'}
    assert events[-2]["delta"]["stop_reason"] == "tool_use"


async def test_a_conversation_with_a_tool(directory):
    async with (
        running_router(directory, **SERVED) as router,
        AsyncAnthropic(base_url=router.url, api_key="none", max_retries=0) as client,
    ):
        messages = [{"role": "user", "content": "Rain?"}]
        ignored = {"metadata": {"user_id": "u"}, "context_management": {"edits": []}, "thinking": {"type": "adaptive"}}
        asked = {"model": "any", "max_tokens": 99, "extra_body": ignored, "extra_query": {"beta": "true"}}
        asked["extra_headers"] = {"anthropic-beta": "some-2026"}  # as coding agents do
        tools = [{"name": "weather", "description": "Looks", "input_schema": SCHEMA, "cache_control": CACHED}]
        whole = await client.messages.create(**asked, messages=messages, tools=tools)
        thought, text, call = whole.content
        assert (thought.thinking, text.text, call.name, call.input) == ("Hm.", "I look.", "weather", {"city": "Bern"})
        assert whole.stop_reason == "tool_use" and call.type == "tool_use"
        async with client.messages.stream(**asked, messages=messages, tools=tools) as stream:
            pieces = [event.partial_json async for event in stream if event.type == "input_json"]
            final = await stream.get_final_message()
        assert "".join(pieces) == '{"city": "Bern"}' and final.stop_reason == "tool_use"
        assert [block.to_dict() | {"id": ""} for block in final.content] == [
            block.to_dict() | {"id": ""} for block in whole.content
        ]
        result = {"type": "tool_result", "tool_use_id": call.id, "content": "Sun"}
        answer = {"role": "assistant", "content": whole.content}
        turns = [*messages, answer, {"role": "user", "content": [result]}]
        await client.messages.create(**asked, messages=turns, tools=tools)
        function = {"name": "weather", "description": "Looks", "parameters": SCHEMA}
        shown = json.dumps([{"type": "function", "function": function}])
        assert router.sent()[-1].inputs == (
            f'{shown}[user]Rain?[assistant]Hm.I look.(weather {{"city": "Bern"}})[tool]Sun{call.id}[assistant]'
        )
