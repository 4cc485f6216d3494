"""The objects that responses are made of. Source: OpenAI's API reference, "The Response object". Knows no streams."""

import time
import uuid
from typing import Any

from text_generation_router.chat.events import Message
from text_generation_router.routes.asked import Usage
from text_generation_router.routes.openai.responses.schemas import ResponsesBody

Object = dict[str, Any]

IN_PROGRESS, COMPLETED, INCOMPLETE, FAILED = "in_progress", "completed", "incomplete", "failed"


def new_id(prefix: str) -> str:
    """An id that nothing else has."""
    return f"{prefix}_{uuid.uuid4().hex}"


def response(body: ResponsesBody, model: str) -> Object:
    """A response before there is anything of it: what was asked."""
    return {
        "id": new_id("resp"),
        "object": "response",
        "created_at": int(time.time()),
        "status": IN_PROGRESS,
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "model": model,
        "output": [],
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "previous_response_id": None,
        "reasoning": {"effort": body.reasoning.effort if body.reasoning else None, "summary": None},
        "store": False,
        "temperature": 1.0 if body.temperature is None else body.temperature,
        "text": {"format": (body.text and body.text.format) or {"type": "text"}},
        "tool_choice": body.tool_choice or "auto",
        "tools": body.tools or [],
        "top_logprobs": body.top_logprobs or 0,
        "top_p": 1.0 if body.top_p is None else body.top_p,
        "truncation": "disabled",
        "usage": None,
        "metadata": body.metadata or {},
    }


def usage(used: Usage) -> Object:
    """`usage`. Prompts that were cached, and reasoning, are counted with the rest."""
    return {
        "input_tokens": used.prompt_tokens,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": used.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": used.prompt_tokens + used.completion_tokens,
    }


def text_part(text: str, logprobs: list[Any]) -> Object:
    """A part of a message."""
    return {"type": "output_text", "annotations": [], "logprobs": logprobs, "text": text}


def reasoning_part(text: str) -> Object:
    """A part of reasoning."""
    return {"type": "reasoning_text", "text": text}


def message_item(id: str, status: str, content: list[Object]) -> Object:
    """What the model said."""
    return {"id": id, "type": "message", "status": status, "role": "assistant", "content": content}


def reasoning_item(id: str, status: str, content: list[Object]) -> Object:
    """What it thought."""
    return {"id": id, "type": "reasoning", "status": status, "summary": [], "content": content}


def call_item(id: str, status: str, call_id: str, name: str, arguments: str) -> Object:
    """Which function it wants to be called."""
    called = {"call_id": call_id, "name": name, "arguments": arguments}
    return {"id": id, "type": "function_call", "status": status, **called}


def output(message: Message, status: str, logprobs: list[Any]) -> list[Object]:
    """The items of a whole answer. status: of the last one."""
    items = []
    if message.reasoning:
        items.append(reasoning_item(new_id("rs"), COMPLETED, [reasoning_part(message.reasoning)]))
    if message.content or not message.calls:
        items.append(message_item(new_id("msg"), COMPLETED, [text_part(message.content, logprobs)]))
    items += [call_item(new_id("fc"), COMPLETED, call.id, call.name, call.arguments) for call in message.calls]
    items[-1]["status"] = status
    return items
