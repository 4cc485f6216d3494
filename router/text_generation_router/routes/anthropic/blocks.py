"""Messages made of Anthropic's content blocks, as the messages of a chat. Knows no parameters and no template."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from text_generation_router.chat.pictures import image_part
from text_generation_router.errors import InvalidInput
from text_generation_server.errors import excerpt

Block = Mapping[str, Any]
Message = dict[str, Any]


def chat_messages(system: str | Sequence[Block] | None, messages: Sequence[Mapping[str, Any]]) -> list[Message]:
    """The conversation. Raises InvalidInput for a message or block that is none, or cannot be taken."""
    if not messages:
        raise InvalidInput("`messages` cannot be empty")
    opening = [{"role": "system", "content": _joined(_blocks(system, "system"), "system")}] if system else []
    return [*opening, *(made for message in messages for made in _chat_messages(message))]


def _chat_messages(message: Mapping[str, Any]) -> Iterator[Message]:
    role, blocks = message.get("role"), _blocks(message.get("content"), "messages")
    match role:
        case "assistant":
            yield _answer(blocks)
        case "user":
            results = [block for block in blocks if block["type"] == "tool_result"]
            yield from map(_tool_answer, results)
            if rest := [block for block in blocks if block["type"] != "tool_result"]:
                yield {"role": "user", "content": _content(rest)}
        case "system":
            yield {"role": "system", "content": _joined(blocks, "messages")}
        case _:
            raise InvalidInput(f"`messages` has a `role` {excerpt(repr(role))}, expected user or assistant")


def _answer(blocks: Sequence[Block]) -> Message:
    """An earlier answer, or the beginning of the one that is wanted."""
    message: Message = {"role": "assistant"}
    if thoughts := [block.get("thinking") or "" for block in blocks if block["type"] == "thinking"]:
        message["reasoning_content"] = "\n".join(map(str, thoughts))
    calls = [_call(block) for block in blocks if block["type"] == "tool_use"]
    hidden = ("thinking", "redacted_thinking", "tool_use")
    text = _joined([block for block in blocks if block["type"] not in hidden], "messages")
    if text or not calls:
        message["content"] = text
    if calls:
        message["tool_calls"] = calls
    return message


def _call(block: Block) -> Message:
    name, arguments = block.get("name"), block.get("input")
    if not isinstance(name, str) or not isinstance(arguments, dict):
        raise InvalidInput("`messages` has a tool_use without a `name` and an object `input`")
    function = {"name": name, "arguments": json.dumps(arguments, ensure_ascii=False)}
    return {"id": block.get("id"), "type": "function", "function": function}


def _tool_answer(block: Block) -> Message:
    content = _content(_blocks(block.get("content"), "messages"))
    return {"role": "tool", "tool_call_id": block.get("tool_use_id"), "content": content}


def _blocks(content: Any, field: str) -> list[Block]:
    """Content as blocks: a text is one. Raises InvalidInput."""
    if content is None or isinstance(content, str):
        return [{"type": "text", "text": content or ""}]
    if isinstance(content, list) and all(isinstance(b, dict) and isinstance(b.get("type"), str) for b in content):
        return content
    raise InvalidInput(f"`{field}` has content that is neither a text nor blocks with a `type`")


def _content(blocks: Sequence[Block]) -> str | list[Message]:
    """What a message has: texts are joined, and images stay apart."""
    if not any(block["type"] == "image" for block in blocks):
        return _joined(blocks, "messages")
    return [_image(block) if block["type"] == "image" else _text_part(block) for block in blocks]


def _text_part(block: Block) -> Message:
    return {"type": "text", "text": _text(block, "messages")}


def _image(block: Block) -> Message:
    source = block.get("source")
    match source:
        case {"type": "base64", "media_type": str(kind), "data": str(data)}:
            return image_part(f"data:{kind};base64,{data}")
        case {"type": "url", "url": str(url)}:
            return image_part(url)
    raise InvalidInput(
        "`messages` has an image without a `source` of type base64, with `media_type` and `data`, or of type url"
    )


def _joined(blocks: Iterable[Block], field: str) -> str:
    """The texts of blocks that are texts, a line each."""
    return "\n".join(_text(block, field) for block in blocks)


def _text(block: Block, field: str) -> str:
    if block["type"] == "text" and isinstance(text := block.get("text"), str):
        return text
    raise InvalidInput(
        f"`{field}` has a block of type {excerpt(block['type'])}, which is not taken: expected "
        "text, image, tool_use or tool_result"
    )
