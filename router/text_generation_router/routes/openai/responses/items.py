"""Input items as the messages of a chat. Knows no parameters and no template."""

from collections.abc import Mapping, Sequence
from typing import Any

from text_generation_router.chat.pictures import image_part
from text_generation_router.errors import InvalidInput
from text_generation_server.errors import excerpt

Message = dict[str, Any]

_TEXTS = ("input_text", "output_text", "text", "refusal")
_THOUGHTS = ("reasoning_text", "summary_text")
"""Parts that are texts."""


def chat_messages(instructions: str | None, given: str | Sequence[Mapping[str, Any]]) -> list[Message]:
    """The conversation. Raises InvalidInput for an item that is none, or cannot be taken."""
    conversation = _Conversation()
    if instructions:
        conversation.speak("system", instructions)
    for item in [{"role": "user", "content": given}] if isinstance(given, str) else given:
        conversation.add(item)
    if not any(message["role"] != "system" for message in conversation.messages):
        raise InvalidInput("`input` cannot be empty")
    return conversation.messages


class _Conversation:
    """Messages so far. What a model thought, said and called before anybody answered is one of them."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    def add(self, item: Mapping[str, Any]) -> None:
        match item.get("type", "message"):
            case "message":
                self._message(item)
            case "reasoning":
                self._reasoning(item)
            case "function_call":
                self._call(item)
            case "function_call_output":
                content = _content(item.get("output"))
                self.messages.append({"role": "tool", "tool_call_id": item.get("call_id"), "content": content})
            case kind:
                raise InvalidInput(
                    f"`input` has an item of type {excerpt(repr(kind))}, which is not taken: expected message, "
                    "reasoning, function_call or function_call_output"
                )

    def speak(self, role: str, text: str) -> None:
        """A message of text; what systems say in a row is one."""
        last = self.messages[-1] if self.messages else None
        if role == "system" and last is not None and last["role"] == "system":
            last["content"] += f"\n\n{text}"
        else:
            self.messages.append({"role": role, "content": text})

    def _message(self, item: Mapping[str, Any]) -> None:
        role, content = item.get("role"), item.get("content")
        if role == "user":
            self.messages.append({"role": "user", "content": _content(content)})
            return
        text = _text(content)
        match role:
            case "assistant":
                answer = self._answer()
                if "content" in answer or "tool_calls" in answer:
                    self.messages.append(answer := {"role": "assistant"})
                answer["content"] = text
            case "system" | "developer":
                self.speak("system", text)
            case _:
                raise InvalidInput(
                    f"`input` has a `role` {excerpt(repr(role))}, expected user, assistant, system or developer"
                )

    def _reasoning(self, item: Mapping[str, Any]) -> None:
        """One that is encrypted is empty here."""
        if text := _text(item.get("content") or item.get("summary") or "", _THOUGHTS):
            self.messages.append({"role": "assistant", "reasoning_content": text})

    def _call(self, item: Mapping[str, Any]) -> None:
        name, arguments = item.get("name"), item.get("arguments")
        if not isinstance(name, str) or not isinstance(arguments, str):
            raise InvalidInput("`input` has a function_call without the texts `name` and `arguments`")
        call = {"id": item.get("call_id"), "type": "function", "function": {"name": name, "arguments": arguments}}
        self._answer().setdefault("tool_calls", []).append(call)

    def _answer(self) -> Message:
        """The model's last message, or a new one if somebody has spoken since."""
        if not self.messages or self.messages[-1]["role"] != "assistant":
            self.messages.append({"role": "assistant"})
        return self.messages[-1]


def _content(content: Any) -> str | list[Message]:
    """What a message has: texts are joined, and images stay apart."""
    if not isinstance(content, list) or not any(map(_is_image, content)):
        return _text(content)
    return [_image(part) if _is_image(part) else {"type": "text", "text": _part(part, _TEXTS)} for part in content]


def _is_image(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") == "input_image"


def _image(part: Mapping[str, Any]) -> Message:
    url = part.get("image_url")
    if not isinstance(url, str):
        raise InvalidInput("`input` has an input_image without an `image_url`; files of an account are not kept here")
    return image_part(url)


def _text(content: Any, kinds: Sequence[str] = _TEXTS) -> str:
    """A text, or the texts of parts. Raises InvalidInput for other parts."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise InvalidInput("`input` has an item whose content is neither a text nor a list of parts")
    return "".join(_part(part, kinds) for part in content)


def _part(part: Any, kinds: Sequence[str]) -> str:
    given: Mapping[str, Any] = part if isinstance(part, dict) else {}
    kind = given.get("type")
    text = given.get("refusal" if kind == "refusal" else "text") if kind in kinds else None
    if not isinstance(text, str):
        raise InvalidInput(
            f"`input` has content with a part of type {excerpt(repr(kind))}, which is not taken: expected {kinds[0]}"
        )
    return text
