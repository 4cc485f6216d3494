"""OpenAI's Responses API, by what is on the wire, and by what OpenAI's own client makes of it."""

import json
from typing import Any

import pytest
from openai import AsyncOpenAI, UnprocessableEntityError

from mocks.running_router import RunningRouter, running_router
from mocks.thinker import SCHEMA, SERVED
from text_generation_router.chat.events import Call, CallArguments, CallBegin, CallEnd, Content, Message, Reasoning
from text_generation_router.routes.asked import Choice, End, Step, Usage
from text_generation_router.routes.openai.responses.asked import chat_body
from text_generation_router.routes.openai.responses.items import chat_messages
from text_generation_router.routes.openai.responses.schemas import ResponsesBody
from text_generation_router.routes.openai.responses.writer import ResponseWriter
from text_generation_router.types import FinishReason

PATH = "/v1/responses"
BODY = {"instructions": "Be brief", "input": "Hi", "temperature": 0, "max_output_tokens": 4}
PROMPT = "[system]Be brief[user]Hi[assistant]"
IMAGE = [{"type": "input_image", "image_url": "data:image/png;base64,aaaa"}]

REFUSED = [
    ({"input": []}, "input"),
    ({"input": [{"role": "user", "content": IMAGE}]}, "input"),
    ({"input": [{"role": "poet", "content": "Hi"}]}, "input"),
    ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input"),
    ({"input": [{"type": "function_call", "name": "f"}]}, "input"),
    ({"previous_response_id": "resp_1"}, "previous_response_id"),
    ({"conversation": "conv_1"}, "conversation"),
    ({"background": True}, "background"),
    ({"truncation": "auto"}, "truncation"),
    ({"tools": [{"type": "web_search"}]}, "tools"),
    ({"tools": [{"type": "function", "name": "f"}], "tool_choice": {"type": "mcp"}}, "tool_choice"),
    ({"max_output_tokens": 0}, "max_output_tokens"),
    ({"text": {"format": {"type": "grammar"}}}, "text"),
]


async def streamed(router: RunningRouter, **fields: Any) -> list[Any]:
    """The events of a stream, whose names and numbers are right."""
    async with router.client.stream("POST", PATH, json={**BODY, "stream": True, **fields}) as response:
        assert response.status_code == 200 and response.headers["content-type"] == "text/event-stream"
        lines = [line async for line in response.aiter_lines() if line]
    events = [json.loads(line.removeprefix("data: ")) for line in lines[1::2]]
    assert [name.removeprefix("event: ") for name in lines[::2]] == [event["type"] for event in events]
    return numbered(events)


def numbered(events: list[Any]) -> list[Any]:
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    return events


async def test_a_response_is_a_message(directory):
    async with running_router(directory) as router:
        answer = await router.client.post(PATH, json={**BODY, "metadata": {"a": "b"}, "store": True, "user": "me"})
        told = answer.json()
        (item,) = told["output"]
        assert told["id"].startswith("resp_") and item.pop("id").startswith("msg_")
        part = {"type": "output_text", "annotations": [], "logprobs": [], "text": router.text(PROMPT, 4)}
        assert item == {"type": "message", "status": "incomplete", "role": "assistant", "content": [part]}
        assert told["status"] == "incomplete" and told["incomplete_details"] == {"reason": "max_output_tokens"}
        assert told["metadata"] == {"a": "b"} and told["store"] is False and told["instructions"] == "Be brief"
        assert (told["usage"]["input_tokens"], told["usage"]["output_tokens"]) == (36, 4)
        assert told["model"] == str(directory)


async def test_a_streams_events(directory):
    async with running_router(directory, eos_after=2) as router:
        events = await streamed(router)
        first, second = router.text(PROMPT, 2)
        assert [event["type"].removeprefix("response.") for event in events] == [
            "created",
            "in_progress",
            "output_item.added",
            "content_part.added",
            *["output_text.delta"] * 2,
            "output_text.done",
            "content_part.done",
            "output_item.done",
            "completed",
        ]
        assert [event["delta"] for event in events[4:6]] == [first, second] and events[6]["text"] == first + second
        assert events[0]["response"]["output"] == [] and events[0]["response"]["usage"] is None
        last = events[-1]["response"]
        assert last["output"] == [events[-2]["item"]] and last["output"][0]["id"] == events[4]["item_id"]
        assert last["usage"]["total_tokens"] == 38 and last["id"] == events[0]["response"]["id"]
        router.shard.failures["Decode"] = "broken"
        failed = (await streamed(router))[-1]
        assert failed["type"] == "response.failed" and failed["response"]["status"] == "failed"
        assert failed["response"]["error"]["code"] == "generation"


async def test_log_probabilities(directory):
    async with running_router(directory) as router:
        fields = {"include": ["message.output_text.logprobs"], "top_logprobs": 1}
        whole = (await router.client.post(PATH, json={**BODY, **fields})).json()["output"][0]["content"][0]
        assert [one["token"] for one in whole["logprobs"]] == list(whole["text"])
        assert [len(one["top_logprobs"]) for one in whole["logprobs"]] == [1] * 4
        events = await streamed(router, **fields)
        told = [event["logprobs"] for event in events if event["type"] == "response.output_text.delta"]
        assert [one for logprobs in told for one in logprobs] == whole["logprobs"]
        assert events[-1]["response"]["output"][0]["content"][0] == whole


async def test_openais_client(directory):
    async with (
        running_router(directory, eos_after=4) as router,
        AsyncOpenAI(base_url=f"{router.url}/v1", api_key="none", max_retries=0) as client,
    ):
        text, fields = router.text(PROMPT, 4), {**BODY, "max_output_tokens": 9, "model": "any"}
        whole = await client.responses.create(**fields)
        assert whole.output_text == text and whole.status == "completed" and whole.model == "any"
        async with client.responses.stream(**fields) as stream:
            pieces = [event.delta async for event in stream if event.type == "response.output_text.delta"]
            final = await stream.get_final_response()
        assert pieces == list(text) and final.output_text == text and final.usage == whole.usage
        turns = [{"role": "user", "content": "Hi"}, *whole.output, {"role": "user", "content": "And?"}]
        again = await client.responses.create(**{**fields, "input": turns})
        assert again.output_text == router.text(f"[system]Be brief[user]Hi[assistant]{text}[user]And?[assistant]", 4)
        with pytest.raises(UnprocessableEntityError) as refused:
            await client.responses.create(**fields, previous_response_id=whole.id)
        assert refused.value.param == "previous_response_id"


async def test_what_cannot_act_is_refused_by_name(directory):
    async with running_router(directory) as router:
        for fields, param in REFUSED:
            answer = await router.client.post(PATH, json={**BODY, **fields})
            assert answer.status_code == 422, (fields, answer.text)
            assert answer.json()["error"]["param"].split(".")[0] == param, answer.text
        assert "Prefill" not in router.shard.steps()


def test_items_are_messages_of_a_chat():
    call = {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "add", "arguments": '{"a":1}'}
    items = [
        {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "Politely"}]},
        {"role": "user", "content": [{"type": "input_text", "text": "A"}, {"type": "input_text", "text": "dd"}]},
        {"type": "reasoning", "summary": [], "encrypted_content": "x"},
        {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "Well"}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I add"}]},
        call,
        {**call, "call_id": "c2"},
        {"type": "function_call_output", "call_id": "c1", "output": "2"},
        {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "3"}]},
    ]
    function = {"name": "add", "arguments": '{"a":1}'}
    calls = [{"id": id, "type": "function", "function": function} for id in ("c1", "c2")]
    assert chat_messages("Be brief", items) == [
        {"role": "system", "content": "Be brief\n\nPolitely"},
        {"role": "user", "content": "Add"},
        {"role": "assistant", "reasoning_content": "Well", "content": "I add", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "c1", "content": "2"},
        {"role": "tool", "tool_call_id": "c2", "content": "3"},
    ]


def test_forms_of_answers():
    form = {"type": "json_schema", "name": "n", "strict": True, "schema": {"properties": {}}}
    made = chat_body(ResponsesBody.model_validate({**BODY, "text": {"format": form, "verbosity": "low"}}))
    assert made.response_format.json_schema.json_schema == {"properties": {}}


TOLD = [
    Reasoning("We"),
    Reasoning("ll"),
    Content("I add"),
    CallBegin(0, "c1", "add"),
    CallArguments(0, '{"a":'),
    CallArguments(0, "1}"),
    CallEnd(0),
]


def test_reasoning_text_and_calls_are_items_of_their_own():
    usage = Usage(1, 2)
    ended = End(FinishReason.EOS_TOKEN, "", usage)
    writer = ResponseWriter(ResponsesBody.model_validate(BODY), "m")
    events = [*writer.begin(1), *(one for event in TOLD for one in writer.step(0, Step([event], [], [], 0, None)))]
    events += [*writer.step(0, Step([], [], [], 0, ended)), *writer.end(usage)]
    told = numbered(list(map(json.loads, events)))
    assert [(event["type"].removeprefix("response."), event.get("output_index")) for event in told[2:-1]] == [
        ("output_item.added", 0),
        ("content_part.added", 0),
        *[("reasoning_text.delta", 0)] * 2,
        ("reasoning_text.done", 0),
        ("content_part.done", 0),
        ("output_item.done", 0),
        ("output_item.added", 1),
        ("content_part.added", 1),
        ("output_text.delta", 1),
        ("output_text.done", 1),
        ("content_part.done", 1),
        ("output_item.done", 1),
        ("output_item.added", 2),
        *[("function_call_arguments.delta", 2)] * 2,
        ("function_call_arguments.done", 2),
        ("output_item.done", 2),
    ]
    message = Message("I add", "Well", [Call("c1", "add", '{"a":1}')])
    whole = json.loads(writer.whole([Choice(message, [], [], ended)], usage))
    for item in (*whole["output"], *told[-1]["response"]["output"]):
        assert item.pop("id").split("_")[0] in ("rs", "msg", "fc") and item["status"] == "completed"
    assert told[-1]["response"] == whole
    assert told[-2]["item"]["call_id"] == "c1" and told[-3]["arguments"] == '{"a":1}'


async def test_a_conversation_with_a_tool(directory):
    async with (
        running_router(directory, **SERVED) as router,
        AsyncOpenAI(base_url=f"{router.url}/v1", api_key="none", max_retries=0) as client,
    ):
        tool = {"type": "function", "name": "weather", "description": "Looks", "parameters": SCHEMA, "strict": True}
        ignored = {"store": False, "prompt_cache_key": "k", "text": {"verbosity": "low"}, "parallel_tool_calls": True}
        ignored |= {"reasoning": {"effort": "low", "summary": "auto"}, "include": ["reasoning.encrypted_content"]}
        asked = {"model": "any", "input": "Rain?", "tools": [tool], **ignored}  # as coding agents do
        whole = await client.responses.create(**asked)
        thought, said, call = whole.output
        assert thought.content[0].text == "Hm." and said.content[0].text == whole.output_text == "I look."
        assert (call.type, call.name, json.loads(call.arguments)) == ("function_call", "weather", {"city": "Bern"})
        async with client.responses.stream(**asked) as stream:
            pieces = [event.delta async for event in stream if event.type == "response.function_call_arguments.delta"]
            final = await stream.get_final_response()
        assert "".join(pieces) == call.arguments == final.output[2].arguments and final.output_text == "I look."
        result = {"type": "function_call_output", "call_id": call.call_id, "output": "Sun"}
        turns = [{"role": "user", "content": "Rain?"}, *whole.output, result]
        await client.responses.create(**{**asked, "input": turns})
        function = {name: tool[name] for name in ("name", "description", "parameters", "strict")}
        shown = json.dumps([{"type": "function", "function": function}])
        assert router.sent()[-1].inputs == (
            f'{shown}[user]Rain?[assistant]Hm.I look.(weather {{"city": "Bern"}})[tool]Sun{call.call_id}[assistant]'
        )
