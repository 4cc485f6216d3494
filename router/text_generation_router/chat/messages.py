"""Messages of a conversation in the form that a template wants. Knows no template but by what it does with content.

Sources: transformers' `apply_chat_template`, version 5.24, for keys; vLLM's detection of content formats; OpenAI's API
for parts and tool calls.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any

from jinja2 import nodes

from text_generation_router.chat.pictures import SHOWN
from text_generation_router.errors import InvalidInput
from text_generation_server.errors import excerpt

Message = dict[str, Any]

_REASONING = ("reasoning_content", "thinking", "reasoning")
"""What a message's reasoning may be called; the first that is there counts."""


class ContentFormat(StrEnum):
    """What a template can do with a message's content: show a text, go through a list of parts, or both."""

    TEXT = "text"
    PARTS = "parts"
    BOTH = "both"


def content_format(template: nodes.Template) -> ContentFormat:
    """A template that has a loop over some `content` takes parts; if it also asks what is a string, texts too."""
    if not any(_is_content(loop.iter) for loop in template.find_all(nodes.For)):
        return ContentFormat.TEXT
    asks = any(test.name == "string" for test in template.find_all(nodes.Test))
    return ContentFormat.BOTH if asks else ContentFormat.PARTS


def prepared(
    messages: Iterable[Mapping[str, Any]], form: ContentFormat, objects: bool, image_mark: str = ""
) -> list[Message]:
    """New messages with everything where a template looks for it.

    Keys without a value are left out, reasoning has all its names, and arguments of tool calls are objects, or their
    JSON where `objects` is false. image_mark: the text that stands for an image where a template shows texts.
    Raises InvalidInput for a part of content that is no text.
    """
    return [_prepared(message, form, objects, image_mark) for message in messages]


def calls_tools(messages: Iterable[Mapping[str, Any]]) -> bool:
    """Whether there is a tool call in the conversation."""
    return any(message.get("tool_calls") for message in messages)


def ends_with_answer(messages: Sequence[Mapping[str, Any]]) -> bool:
    """Whether an answer has begun, which the model goes on with, as with text-generation-inference."""
    last = messages[-1] if messages else {}
    return last.get("role") == "assistant" and bool(last.get("content")) and not last.get("tool_calls")


def _prepared(message: Mapping[str, Any], form: ContentFormat, objects: bool, image_mark: str) -> Message:
    new = {key: value for key, value in message.items() if value is not None}
    reasoning = next((new[name] for name in _REASONING if name in new), None)
    if reasoning is not None:
        new = {"thinking": reasoning, **new, "reasoning_content": reasoning}
    if "content" in new:
        # Most templates that take parts want a tool's answer as a text; vLLM and SGLang join it too.
        joined = new.get("role") == "tool" and form is ContentFormat.BOTH
        new["content"] = _content(new["content"], ContentFormat.TEXT if joined else form, image_mark)
    if isinstance(new.get("tool_calls"), Sequence):
        new["tool_calls"] = [_tool_call(call, objects) for call in new["tool_calls"]]
    return new


def _content(content: Any, form: ContentFormat, image_mark: str) -> Any:
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if form is ContentFormat.PARTS else content
    if not isinstance(content, Sequence):
        return content
    texts = [image_mark if part == SHOWN else _text(part) for part in content]
    if form is ContentFormat.TEXT:
        return "".join(texts)  # as text-generation-inference joins them
    return [dict(part) if isinstance(part, Mapping) else part for part in content]


def _text(part: Any) -> str:
    """The text of a part."""
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind != "text" or not isinstance(part.get("text"), str):
        raise InvalidInput(
            f"`messages` has content with a part of type {excerpt(repr(kind))}, which is not taken: "
            'expected {"type": "text", "text": …}'
        )
    text: str = part["text"]
    return text


def _tool_call(call: Any, objects: bool) -> Any:
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or "arguments" not in function:
        return call
    convert = as_object if objects else _as_text
    return {**call, "function": {**function, "arguments": convert(function["arguments"])}}


def as_object(arguments: Any) -> Any:
    """What a text of JSON says if that is an object; other texts a model has written so, and they stay."""
    if not isinstance(arguments, str):
        return {} if arguments is None else arguments
    try:
        found = json.loads(arguments) if arguments.strip() else {}
    except (ValueError, RecursionError):
        return arguments
    return found if isinstance(found, dict) else arguments


def _as_text(arguments: Any) -> str:
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


def _is_content(node: nodes.Node | None) -> bool:
    """Whether an expression is something's `content`, filtered or cut perhaps."""
    match node:
        case nodes.Filter() | nodes.Test():
            return _is_content(node.node)
        case nodes.Getitem(arg=nodes.Slice()):
            return _is_content(node.node)
        case nodes.Getattr():
            return bool(node.attr == "content")
        case nodes.Getitem():
            return isinstance(node.arg, nodes.Const) and node.arg.value == "content"
    return False
