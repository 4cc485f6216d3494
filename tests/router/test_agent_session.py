"""A coding agent's session: a long system prompt, twenty tools, streams, and its calls and their results sent back."""

import json
from collections.abc import Sequence
from typing import Any

from openai import AsyncOpenAI

from mocks.chats import FAMILIES
from mocks.running_router import running_router

SYSTEM = (
    "You are an agent that works on the code in a directory, with tools. " + "Be careful, and say what you do. " * 400
)
STRING, WHOLE, FLAG = {"type": "string"}, {"type": "integer", "minimum": 0}, {"type": "boolean", "default": False}


def tool(name: str, required: Sequence[str] = (), **properties: Any) -> dict[str, Any]:
    described = {key: {"description": f"The {key} of {name}", **schema} for key, schema in properties.items()}
    parameters = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "type": "object",
        "properties": described,
        "required": list(required),
        "additionalProperties": False,
    }
    words = f"Does what {name} says.\n\n- Use <{name}> with care\n- \"Quoted\" 'text' & {{braces}}"
    return {"type": "function", "function": {"name": name, "description": words, "parameters": parameters}}


EDITS = {
    "type": "array",
    "items": {"type": "object", "properties": {"old": STRING, "new": STRING}, "required": ["old"]},
}
TODOS = {
    "type": "array",
    "items": {"anyOf": [STRING, {"type": "object", "properties": {"status": {"enum": ["a", "b"]}}}]},
}
TOOLS = [
    tool("read_file", ["path"], path=STRING, offset=WHOLE, limit={"type": ["integer", "null"]}),
    tool("write_file", ["path", "text"], path=STRING, text=STRING),
    tool("edit_file", ["path", "edits"], path=STRING, edits=EDITS),
    tool("run", ["command"], command=STRING, timeout_ms={"type": "number", "maximum": 600000}, background=FLAG),
    tool("todo", ["todos"], todos=TODOS),
    *(tool(name, ["query"], query=STRING, limit=WHOLE) for name in ("grep", "glob", "search", "fetch", "symbols")),
    *(tool(f"mcp__server-{number}__do", value=STRING) for number in range(10)),
]
CODE = 'def main() -> None:\n\tprint("</tool_call>", {"a": [1]})\n'


def written(name: str, **arguments: Any) -> str:
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


ANSWERS: list[tuple[str, list[tuple[str, Any]]]] = [
    ("I look around.\n" + written("grep", query="main", limit=3) + "\n" + written("read_file", path="a.py"),
     [("grep", {"query": "main", "limit": 3}), ("read_file", {"path": "a.py"})]),
    (written("write_file", path="b.py", text=CODE), [("write_file", {"path": "b.py", "text": CODE})]),
    ("<think>\nDoes it run?\n</think>\n\n" + written("run", command="python b.py", background=False),
     [("run", {"command": "python b.py", "background": False})]),
    ("It runs.", []),
]  # fmt: skip


def pieces(text: str) -> list[str]:
    """As tokens may cut it."""
    return [text[start : start + 5] for start in range(0, len(text), 5)] + ["<|im_end|>"]


async def answer(client: AsyncOpenAI, messages: list[dict[str, Any]]) -> dict[str, Any]:
    """The agent's way of reading a stream: deltas put together, as the message that it sends back."""
    text, calls, reason = "", dict[int, dict[str, Any]](), None
    stream = await client.chat.completions.create(
        model="any", messages=messages, tools=TOOLS, tool_choice="auto", parallel_tool_calls=True, temperature=0,
        max_tokens=1000, stream=True, stream_options={"include_usage": True}, extra_body={"prompt_cache_key": "s"},
    )  # fmt: skip
    async for chunk in stream:
        for choice in chunk.choices:
            text += choice.delta.content or ""
            reason = choice.finish_reason or reason
            for call in choice.delta.tool_calls or ():
                if call.id:
                    function = {"name": call.function.name, "arguments": ""}
                    calls[call.index] = {"id": call.id, "type": call.type, "function": function}
                calls[call.index]["function"]["arguments"] += call.function.arguments
    assert chunk.usage.completion_tokens and reason == ("tool_calls" if calls else "stop")
    return {"role": "assistant", "content": text or None, "tool_calls": list(calls.values()) or None}


async def test_a_session_of_an_agent(directory):
    options = {"max_batch_prefill_tokens": 65536}
    shard: dict[str, Any] = {"says": [], "special": ["<|im_end|>"], "num_slots": 131072}
    async with (
        running_router(directory, template=FAMILIES["qwen"], options=options, **shard) as router,
        AsyncOpenAI(base_url=f"{router.url}/v1", api_key="none", max_retries=0) as client,
    ):
        cached = {"type": "ephemeral"}
        messages: list[dict[str, Any]] = [
            {"role": "system", "content": [{"type": "text", "text": SYSTEM, "cache_control": cached}]},
            {"role": "user", "content": [{"type": "text", "text": "Write"}, {"type": "text", "text": " a program"}]},
        ]
        for text, calls in ANSWERS:
            shard["says"][:] = pieces(text)
            message = await answer(client, messages)
            functions = [call["function"] for call in message["tool_calls"] or ()]
            assert [(one["name"], json.loads(one["arguments"])) for one in functions] == calls
            results = [
                {"role": "tool", "tool_call_id": call["id"], "content": f"{call['function']['name']}: done\n"}
                for call in message["tool_calls"] or ()
            ]
            messages += [message, *results]
        *_, (_, last) = (call for call in router.shard.calls if call[0] == "Prefill")
        (request,) = last.batch.requests
        assert request.cache_len > len(SYSTEM) and request.inputs.count("<tool_call>") == 4
