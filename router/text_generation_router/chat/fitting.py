"""What a chat template has no place for, in another way: tools, calls, results, and developers. Knows no format.

Source: text-generation-inference's way of putting tools behind a message, and its built-in words for it.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from text_generation_router.chat.messages import as_object
from text_generation_router.chat.pictures import SHOWN
from text_generation_router.chat.template import ChatTemplate
from text_generation_router.chat.tools import Tool

Message = Mapping[str, Any]

PROMPT = (
    "These functions can be called. To call one, answer with nothing but a JSON object of the form "
    '{"name": name of the function, "arguments": object of its arguments}, with values and no variables. '
    "If none of them helps, answer in words.\n"
)
"""What a model is told behind the tools where the request has no words of its own for it."""


def fitted(
    messages: Sequence[Message], template: ChatTemplate, tools: Sequence[Tool] | None, prompt: str | None = None
) -> Sequence[Message]:
    """The conversation with everything where a template has a place for it. prompt: what is told of the tools."""
    if tools:
        messages = _announced(messages, None if template.shows_tools else tools, prompt)
    if not template.mentions("tool_calls"):
        messages = _as_text(messages)
    return messages if template.mentions("developer") else _from_system(messages)


def _announced(messages: Sequence[Message], tools: Iterable[Tool] | None, prompt: str | None) -> Sequence[Message]:
    """The conversation with tools behind the last message of the user. tools: None if the template shows them itself.

    prompt: what is told of them. Without both, the conversation as it is.
    """
    if tools is None and not prompt:
        return messages
    shown = "" if tools is None else f"\n---\n{json.dumps(list(tools), ensure_ascii=False, separators=(',', ':'))}"
    text = f"{shown}\n{prompt or PROMPT}" if shown else f"\n---\n{prompt}"
    places = [place for place, message in enumerate(messages) if message.get("role") == "user"]
    if not places:
        return messages
    place = places[-1]
    return [*messages[:place], _with_text(messages[place], text), *messages[place + 1 :]]


def _as_text(messages: Sequence[Message]) -> Sequence[Message]:
    """The conversation with calls as the text that they are, and what came of them as words of the user's."""
    told: list[Message] = []
    for message in messages:
        if message.get("role") in ("tool", "function"):
            content = message.get("content")
            if not told or told[-1].get("role") != "user":
                told.append({"role": "user", "content": _parts(content) if _shows(content) else _text(content)})
            elif _shows(content):
                told[-1] = {**told[-1], "content": [*_parts(told[-1].get("content")), *_parts("\n"), *_parts(content)]}
            else:
                told[-1] = _with_text(told[-1], "\n" + _text(content))
        elif message.get("tool_calls"):
            told.append(_without_calls(message))
        else:
            told.append(message)
    return told


def _from_system(messages: Sequence[Message]) -> Sequence[Message]:
    """The conversation with the developer's words, as OpenAI calls them now, as the system's."""
    return [{**message, "role": "system"} if message.get("role") == "developer" else message for message in messages]


def _without_calls(message: Message) -> Message:
    """An answer that was calls, as it may have been written."""
    calls = message["tool_calls"] if isinstance(message["tool_calls"], list) else []
    functions = [call.get("function") for call in calls if isinstance(call, Mapping)]
    named = [
        {"name": function.get("name"), "arguments": as_object(function.get("arguments"))}
        for function in functions
        if isinstance(function, Mapping)
    ]
    rest = {key: value for key, value in message.items() if key != "tool_calls"}
    return {**rest, "content": _text(message.get("content")) + json.dumps(named, ensure_ascii=False)}


def _with_text(message: Message, text: str) -> Message:
    content = message.get("content")
    if isinstance(content, list):
        return {**message, "content": [*content, {"type": "text", "text": text}]}
    return {**message, "content": _text(content) + text}


def _shows(content: Any) -> bool:
    """Whether there is an image."""
    return isinstance(content, list) and SHOWN in content


def _parts(content: Any) -> list[Any]:
    return content if isinstance(content, list) else [{"type": "text", "text": _text(content)}]


def _text(content: Any) -> str:
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, Mapping))
    return content if isinstance(content, str) else ""
