"""Chats with tools and with reasoning, by what is on the wire on both sides, and through the `openai` package."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI
from pydantic import BaseModel

from mocks.running_router import RunningRouter, running_router
from mocks.spoken import TOOLS
from text_generation_protocol.v3 import generate_pb2 as pb
from text_generation_router.chat.dialect import Dialect
from text_generation_router.chat.template import ChatTemplate
from text_generation_router.errors import InvalidInput
from text_generation_router.routes.openai.chat import ask_chat
from text_generation_router.routes.openai.render import Rendering
from text_generation_router.routes.openai.schemas import ChatBody
from text_generation_router.routes.openai.shapes import ChatShape

CHAT = "/v1/chat/completions"
TEMPLATE = (
    "{% if tools %}{{ tools | tojson }}<tool_call>{% endif %}{% for m in messages %}[{{ m.role }}]{{ m.content }}"
    "{% for call in m.tool_calls or [] %}({{ call.function.name }} {{ call.function.arguments | tojson }}){% endfor %}"
    "{{ m.tool_call_id }}{% endfor %}{% if add_generation_prompt %}[assistant]{% if think %}<think>\n{% endif %}"
    "{% else %}</think>{% endif %}"
)
WRITER = Rendering(ChatShape(), "m", "f", logprobs=False, usage=False)
ASKED = [{"role": "user", "content": "Rain?"}]
END = "<|im_end|>"
CALL = [
    *(
        "I ",
        "look.",
        "\n",
        "<tool_call>",
        "\n",
        '{"name":',
        ' "weather", "argu',
        'ments": {"ci',
        'ty": "Bern"',
        "}}",
        "\n",
    ),
    *("</tool_call>", '<tool_call>{"name": "now"}</tool_call>', END),
]
SPECIAL = ["<tool_call>", "</tool_call>", END]


class Weather(BaseModel):
    city: str


class Now(BaseModel):
    pass


@asynccontextmanager
async def serving(directory: Path, says: list[str], **wishes: Any) -> AsyncIterator[tuple[RunningRouter, AsyncOpenAI]]:
    wishes = {"template": TEMPLATE, "special": SPECIAL, **wishes}
    async with (
        running_router(directory, says=says, **wishes) as router,
        AsyncOpenAI(base_url=f"{router.url}/v1", api_key="none", max_retries=0) as client,
    ):
        yield router, client


def last_sent(router: RunningRouter) -> Any:
    """The newest request that the shard got."""
    return [request for name, call in router.shard.calls if name == "Prefill" for request in call.batch.requests][-1]


async def streamed(router: RunningRouter, **fields: Any) -> list[dict[str, Any]]:
    body = {"messages": ASKED, "stream": True, **fields}
    lines = (await router.client.post(CHAT, json=body)).text.split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    return [json.loads(line.removeprefix("data: "))["choices"][0] for line in lines[:-2]]


async def test_a_stream_tells_calls_as_openai_does(directory):
    async with serving(directory, CALL) as (router, _):
        choices = await streamed(router, tools=TOOLS)
        ids = [call["id"] for choice in choices for call in choice["delta"].get("tool_calls", []) if "id" in call]
        assert len(set(ids)) == 2 and all(id.startswith("call_") and len(id) > 20 for id in ids)

        def begun(index: int, name: str) -> dict[str, Any]:
            function = {"name": name, "arguments": ""}
            return {"tool_calls": [{"index": index, "id": ids[index], "type": "function", "function": function}]}

        def more(index: int, text: str) -> dict[str, Any]:
            return {"tool_calls": [{"index": index, "function": {"arguments": text}}]}

        assert [choice["delta"] for choice in choices] == [
            {"role": "assistant", "content": ""},
            *({"content": text} for text in ("I", " look.")),
            begun(0, "weather"),
            *(more(0, text) for text in ('{"ci', 'ty": "Bern"', "}")),
            begun(1, "now"),
            more(1, "{}"),
            {},
        ]
        assert [choice["finish_reason"] for choice in choices] == [None] * (len(choices) - 1) + ["tool_calls"]


async def test_the_openai_package_reads_calls_whole_and_streamed(directory):
    tools = [openai.pydantic_function_tool(Weather, name="weather"), openai.pydantic_function_tool(Now, name="now")]
    async with serving(directory, CALL) as (router, client):
        asked = {"model": "any", "messages": ASKED, "tools": tools}
        whole = (await client.chat.completions.parse(**asked)).choices[0]
        first, second = whole.message.tool_calls
        assert whole.message.content == "I look." and whole.finish_reason == "tool_calls"
        assert first.function.parsed_arguments == Weather(city="Bern") and second.function.name == "now"
        async with client.chat.completions.stream(**asked) as stream:
            events = [event.type async for event in stream]
            final = (await stream.get_final_completion()).choices[0]
        assert events.count("tool_calls.function.arguments.done") == 2
        assert final.message.content == "I look." and final.finish_reason == "tool_calls"
        assert [(call.function.name, call.function.arguments) for call in final.message.tool_calls] == [
            (call.function.name, call.function.arguments) for call in whole.message.tool_calls
        ]
        assert json.dumps(tools) in last_sent(router).inputs  # as the client sent them


async def test_only_calls_leave_no_text_and_may_be_one(directory):
    async with serving(directory, CALL[3:]) as (_, client):
        asked = {"model": "any", "messages": ASKED, "tools": TOOLS}
        message = (await client.chat.completions.create(**asked)).choices[0].message
        assert message.content is None and len(message.tool_calls) == 2
        message = (await client.chat.completions.create(**asked, parallel_tool_calls=False)).choices[0].message
        assert [call.function.name for call in message.tool_calls] == ["weather"]
        message = (await client.chat.completions.create(**asked, max_tokens=6)).choices[0]
        assert message.finish_reason == "length" and message.message.tool_calls is None
        assert message.message.content == "".join(CALL[3:9])


FORCED = '[{"name": "now", "arguments": {}}, {"name": "weather", "arguments": {"city": "Bern"}}]'


async def test_required_calls_are_forced(directory):
    async with serving(directory, [*FORCED, END]) as (router, client):
        asked = {"model": "any", "messages": ASKED, "tools": TOOLS, "tool_choice": "required"}
        choice = (await client.chat.completions.create(**asked)).choices[0]
        assert [call.function.name for call in choice.message.tool_calls] == ["now", "weather"]
        assert choice.message.content is None and choice.finish_reason == "tool_calls"
        sent = last_sent(router)
        grammar = json.loads(sent.parameters.grammar)
        assert sent.parameters.grammar_type == pb.GRAMMAR_TYPE_JSON and grammar["anyOf"][0]["type"] == "array"
        async with client.chat.completions.stream(**asked) as stream:
            final = (await stream.get_final_completion()).choices[0].message
        assert [call.function.arguments for call in final.tool_calls] == ["{}", '{"city": "Bern"}']


async def test_a_named_tool_is_forced(directory):
    says = ['{"name": "weather", "arguments": ', '{"city": "Bern"}', "}", END]
    async with serving(directory, says) as (router, _):
        for choice in ("weather", {"type": "function", "function": {"name": "weather"}}):
            fields = {"tools": TOOLS, "tool_choice": choice, "chat_template_kwargs": {"think": True}}
            told = await streamed(router, **fields)
            assert told[-1]["finish_reason"] == "tool_calls"
            sent = last_sent(router)
            assert json.loads(sent.parameters.grammar)["properties"]["name"] == {"const": "weather"}
            assert sent.inputs.endswith("[assistant]<think>\n\n</think>\n\n")  # no room to think


async def test_tools_that_must_not_be_called_are_not_shown(directory):
    async with serving(directory, CALL) as (router, client):
        for fields in ({"tools": TOOLS, "tool_choice": "none"}, {"tools": []}):
            answer = await client.chat.completions.create(model="any", messages=ASKED, **fields)
            assert answer.choices[0].message.tool_calls is None and answer.choices[0].finish_reason == "stop"
            assert last_sent(router).inputs == "[user]Rain?[assistant]"


async def test_calls_and_results_go_back_to_the_model(directory):
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Bern"}'}}
    history = [
        *ASKED,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "Sun"}]},
    ]
    async with serving(directory, ["No.", END]) as (router, client):
        await client.chat.completions.create(model="any", messages=history, tools=TOOLS)
        shown = f'{json.dumps(TOOLS)}<tool_call>[user]Rain?[assistant](weather {{"city": "Bern"}})[tool]Suncall_1'
        assert last_sent(router).inputs == shown + "[assistant]"


async def test_a_template_without_tools_is_told_of_them_in_words(directory):
    call = {"id": "1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Bern"}'}}
    history = [
        *ASKED,
        {"role": "assistant", "tool_calls": [call]},
        *({"role": "tool", "content": text} for text in "ab"),
    ]
    template = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
    says = ['```json\n{"name": "weather", "parameters": {"city": "Bern"}}\n```', END]
    async with serving(directory, says, template=template) as (router, client):
        answer = await client.chat.completions.create(
            model="any", messages=history, tools=TOOLS, extra_body={"tool_prompt": "Choose."}
        )
        assert answer.choices[0].message.tool_calls[0].function.arguments == '{"city": "Bern"}'
        shown = json.dumps(TOOLS, separators=(",", ":"))
        assert last_sent(router).inputs == (
            f'[user]Rain?\n---\n{shown}\nChoose.[assistant][{{"name": "weather", "arguments": {{"city": "Bern"}}}}]'
            "[user]a\nb"
        )


def test_developers_and_efforts_have_the_place_that_a_template_has_for_them():
    thinking = TEMPLATE + "{{ enable_thinking }}"
    named = TEMPLATE + "{% if developer %}{% endif %}{{ reasoning_effort }}"
    told = [{"role": "developer", "content": "Hi"}]
    for template, effort, shown in (
        (thinking, "none", "[system]Hi[assistant]False"),
        (thinking, "low", "[system]Hi[assistant]True"),
        (named, "low", "[developer]Hi[assistant]low"),
    ):
        chat = ChatTemplate({"default": template}, {})
        body = ChatBody(messages=told, reasoning_effort=effort)
        (request,) = ask_chat(body, chat, Dialect.of(template, None, None), WRITER).prompts
        assert request.inputs == shown
    with pytest.raises(InvalidInput, match="`reasoning_effort` means nothing"):
        body = ChatBody(messages=told, reasoning_effort="low")
        ask_chat(body, ChatTemplate({"default": TEMPLATE}, {}), Dialect.of(TEMPLATE, None, None), WRITER)


def _function(parameters: Any) -> list[dict[str, Any]]:
    return [{"type": "function", "function": {"name": "f", "parameters": parameters}}]


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"tools": TOOLS, "tool_choice": "rain"}, "Tool error: Tool with name rain not found", "tool_error"),
    (
        {"tools": TOOLS, "response_format": {"type": "json_object"}},
        "Tool error: Grammar and tools are mutually exclusive",
        "tool_error",
    ),
    ({"tool_choice": "required"}, "`tool_choice` asks for a call, but there are no `tools`", "validation"),
    ({"tools": TOOLS, "tool_choice": {"type": "any"}}, "`tool_choice` must be", "validation"),
    ({"tools": TOOLS, "tool_choice": {"type": 5, "function": {"name": "f"}}}, "`tool_choice` must be", "validation"),
    ({"tools": [{"type": "custom", "custom": {"name": "sql"}}]}, "`tools` must be of the form", "validation"),
    ({"tools": _function(1)}, "no JSON schema", "validation"),
    ({"tools": _function({"not": {}}), "tool_choice": "required"}, "grammar is not valid", "validation"),
]


STRANGE: list[dict[str, Any]] = [
    {"messages": [{"role": "assistant", "tool_calls": 5}, *ASKED]},
    {"messages": [{"role": "assistant", "tool_calls": [5, {"function": {}}]}, {"role": "tool", "content": 5}]},
    {"messages": [{"role": "user", "content": 5}], "tools": TOOLS},
    {"messages": [{"role": "user", "content": [5]}], "tools": TOOLS},
    {"messages": ASKED, "tools": [{"type": "function", "function": {"name": "f", "parameters": {"properties": 5}}}]},
]


@pytest.mark.parametrize("template", [TEMPLATE, "{% for m in messages %}{{ m.content }}{% endfor %}"])
async def test_whatever_is_sent_is_answered(directory, template):
    says = ["<function=f><parameter=a>1</parameter>", "</function>", END]
    async with serving(directory, says, template=template, options={"tool_call_parser": "qwen3_coder"}) as (router, _):
        for fields in STRANGE:
            assert (await router.client.post(CHAT, json=fields)).status_code in (200, 422), fields


async def test_what_cannot_be_called_is_refused(directory):
    async with serving(directory, CALL) as (router, client):
        for fields, reason, code in REFUSED:
            for stream in (False, True):
                with pytest.raises(openai.UnprocessableEntityError) as refused:
                    await client.chat.completions.create(model="any", messages=ASKED, stream=stream, **fields)
                assert reason in refused.value.message and refused.value.code == code
        assert "Prefill" not in router.shard.steps()


async def test_reasoning_is_told_apart_from_text_and_calls(directory):
    says = ["<think>", "\n", "Hm", ".\n", "</think>", "\n\n", "Yes", ".", *CALL[3:]]
    async with serving(directory, says) as (router, client):
        choices = await streamed(router, tools=TOOLS)
        deltas = [choice["delta"] for choice in choices]
        assert [delta["reasoning_content"] for delta in deltas if "reasoning_content" in delta] == ["Hm", "."]
        assert [delta["content"] for delta in deltas[1:] if "content" in delta] == ["Yes", "."]
        answer = (await client.chat.completions.create(model="any", messages=ASKED, tools=TOOLS)).choices[0]
        assert answer.message.reasoning_content == "Hm." and answer.message.content == "Yes."
        assert len(answer.message.tool_calls) == 2
        # The prompt may have begun it; without calls nothing else changes.
        fields = {"chat_template_kwargs": {"think": True}, "stop": "ye", "logprobs": True}
        says[:] = ["Hm", ".", "</think>", "Y", "ye", "s"]
        choices = await streamed(router, **fields)
        told = [{k: v for k, v in choice["delta"].items() if k != "role"} for choice in choices]
        assert told == [
            {"content": ""}, {"reasoning_content": "Hm"}, {"reasoning_content": "."}, {"content": ""}, {"content": "Y"},
            {"content": ""}, {},
        ]  # fmt: skip
        tokens = [token["token"] for choice in choices if choice["logprobs"] for token in choice["logprobs"]["content"]]
        assert tokens == says[:5] and choices[-1]["finish_reason"] == "stop"


async def test_formats_may_be_named(directory):
    options = {"tool_call_parser": "mistral", "reasoning_parser": "none"}
    says = ["<think>No.</think>", "[TOOL_CALLS]", "now", "[ARGS]", "{}", END]
    async with serving(directory, says, options=options, special=["[TOOL_CALLS]", "[ARGS]", END]) as (_, client):
        message = (await client.chat.completions.create(model="any", messages=ASKED, tools=TOOLS)).choices[0].message
        assert message.content == "<think>No.</think>" and message.tool_calls[0].function.name == "now"
        assert len(message.tool_calls[0].id) == 9
