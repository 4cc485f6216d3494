"""Lets a model go on with the conversation's last message, whose end templates would write. Knows no template.

The last message goes into the template with a mark behind it, and what the template writes from there on is cut off:
transformers' way (`continue_final_message`), and so are its errors; checked against version 5.24.
"""

from typing import Any

from text_generation_router.chat.messages import Message

_MARK = "CONTINUE_FINAL_MESSAGE_TAG "
"""Ends in a space that templates which trim texts take away, which tells that they do."""


def mark_end(messages: list[Message]) -> str:
    """Put the mark behind the last message's text, which is returned without it. Raises ValueError if it has none."""
    if not messages:
        raise ValueError("there is no message to continue")
    last = messages[-1]
    content = last.get("content")
    if isinstance(content, str):
        last["content"] = content + _MARK
        return content
    part = next(reversed(_texts(content)), None)
    if part is None:
        raise ValueError("the last message has no text to continue")
    text: str = part["text"]
    part["text"] = text + _MARK
    return text


def cut_at_mark(rendered: str, text: str) -> str:
    """The prompt up to the end of `text`, the last message's. Raises ValueError if the template does not show it."""
    end = rendered.rfind(_MARK.rstrip())
    if end < 0 or text.strip() not in rendered:
        raise ValueError("the template does not show the last message as it is, so that it cannot be continued")
    kept = rendered[:end]
    return kept if rendered.startswith(_MARK, end) else kept.rstrip()


def _texts(content: Any) -> list[dict[str, Any]]:
    return [part for part in content if "text" in part] if isinstance(content, list) else []
