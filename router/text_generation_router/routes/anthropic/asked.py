"""What clients of Anthropic's API ask for, in the words of OpenAI's chats. Knows no answers."""

from typing import Any

from text_generation_router.errors import InvalidInput
from text_generation_router.routes.anthropic.blocks import chat_messages
from text_generation_router.routes.anthropic.schemas import CountBody, MessagesBody
from text_generation_router.routes.openai.asked import made_chat
from text_generation_router.routes.openai.schemas import ChatBody
from text_generation_server.errors import excerpt

_CHOICES = {"auto": "auto", "any": "required", "none": "none"}


def chat_body(body: CountBody) -> ChatBody:
    """The chat that a body asks for. Raises InvalidInput for what is not taken, by name."""
    body.check_keys()
    fields: dict[str, Any] = {
        "model": body.model,
        "messages": chat_messages(body.system, body.messages),
        "chat_template_kwargs": _thinking(body.thinking),
        "response_format": _format(body.output_config),
    }
    if body.tools:
        fields["tools"] = [_tool(tool) for tool in body.tools]
        fields |= _tool_choice(body.tool_choice or {"type": "auto"})
    if not isinstance(body, MessagesBody):
        return made_chat(fields)
    fields |= {
        "max_tokens": body.max_tokens,
        "stop": body.stop_sequences,
        "stream": body.stream,
        "temperature": body.temperature,
        "top_p": body.top_p,
        "top_k": body.top_k,
    }
    return made_chat(fields, body)


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    kind, name = tool.get("type"), tool.get("name")
    if kind not in (None, "custom"):
        raise InvalidInput(
            f"`tools` has one of type {excerpt(str(kind))}, which would run here; only custom ones do not"
        )
    function = {"name": name, "description": tool.get("description"), "parameters": tool.get("input_schema")}
    return {"type": "function", "function": {key: value for key, value in function.items() if value is not None}}


def _tool_choice(choice: dict[str, Any]) -> dict[str, Any]:
    kind = choice.get("type")
    parallel = {"parallel_tool_calls": False} if choice.get("disable_parallel_tool_use") else {}
    if kind == "tool":
        return {"tool_choice": {"type": "function", "function": {"name": choice.get("name")}}, **parallel}
    if kind not in _CHOICES:
        raise InvalidInput(f"`tool_choice` has a type {excerpt(repr(kind))}, expected auto, any, tool or none")
    return {"tool_choice": _CHOICES[kind], **parallel}


def _thinking(wish: dict[str, Any] | None) -> dict[str, Any]:
    """As in this API, a model that is not asked to think does not, if its template lets it choose."""
    thinks = (wish or {}).get("type", "disabled") != "disabled"
    return {"enable_thinking": thinks, "thinking": thinks}


def _format(config: dict[str, Any] | None) -> dict[str, Any] | None:
    form = (config or {}).get("format")
    if form is None:
        return None
    if not isinstance(form, dict) or form.get("type") != "json_schema":
        raise InvalidInput("`output_config` has a `format` that is no json_schema")
    return {"type": "json_schema", "json_schema": {"schema": form.get("schema")}}
