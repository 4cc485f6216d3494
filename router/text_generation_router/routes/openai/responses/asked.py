"""What clients of the Responses API ask for, in the words of OpenAI's chats. Knows no answers."""

from typing import Any

from text_generation_router.errors import InvalidInput
from text_generation_router.routes.openai.asked import made_chat
from text_generation_router.routes.openai.responses.items import chat_messages
from text_generation_router.routes.openai.responses.schemas import ResponsesBody
from text_generation_router.routes.openai.schemas import ChatBody
from text_generation_server.errors import excerpt

_NAMED = ("name", "description", "parameters", "strict")
"""What a function has here, and in chats in an object of its own."""


def chat_body(body: ResponsesBody) -> ChatBody:
    """The chat that a body asks for. Raises InvalidInput for what is not taken, by name."""
    body.check_keys()
    fields: dict[str, Any] = {
        "model": body.model,
        "messages": chat_messages(body.instructions, body.input),
        "max_tokens": body.max_output_tokens,
        "temperature": body.temperature,
        "top_p": body.top_p,
        "logprobs": body.logprobs,
        "top_logprobs": body.top_logprobs if body.logprobs else None,
        "response_format": _format(body.text.format if body.text else None),
        "stream": body.stream,
    }
    if body.reasoning and body.reasoning.effort:
        fields["chat_template_kwargs"] = _thinking(body.reasoning.effort)
    if body.tools:
        fields |= _tools(body)
    return made_chat(fields, body)


def _thinking(effort: str) -> dict[str, Any]:
    """What tells templates how much to think. Agents always ask, of models that cannot choose too."""
    return {"reasoning_effort": effort, "enable_thinking": effort != "none"}


def _tools(body: ResponsesBody) -> dict[str, Any]:
    """The tools that may be called, and which must."""
    tools, choice = [_tool(tool) for tool in body.tools or ()], body.tool_choice
    if isinstance(choice, dict) and choice.get("type") == "allowed_tools":
        listed = choice.get("tools")
        names = [one.get("name") for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
        tools = [tool for tool in tools if tool["function"].get("name") in names]
        choice = choice.get("mode", "auto")
    elif isinstance(choice, dict):
        if choice.get("type") != "function":
            raise InvalidInput(f"`tool_choice` has a type {excerpt(repr(choice.get('type')))}, expected function")
        choice = {"type": "function", "function": {"name": choice.get("name")}}
    parallel = {} if body.parallel_tool_calls is None else {"parallel_tool_calls": body.parallel_tool_calls}
    return {"tools": tools, "tool_choice": choice or "auto", **parallel}


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    if tool.get("type") != "function":
        kind = excerpt(repr(tool.get("type")))
        raise InvalidInput(f"`tools` has one of type {kind}, which is not taken: only functions are, which clients run")
    return {"type": "function", "function": {name: tool[name] for name in _NAMED if tool.get(name) is not None}}


def _format(form: dict[str, Any] | None) -> dict[str, Any] | None:
    if form is None or form.get("type") != "json_schema":
        return form
    return {"type": "json_schema", "json_schema": {"name": form.get("name"), "schema": form.get("schema")}}
