"""Images in the messages of a chat, as clients of OpenAI send them. Knows no template and fetches nothing."""

from collections.abc import Mapping, Sequence
from typing import Any

from text_generation_router.errors import InvalidInput
from text_generation_server.errors import excerpt

Message = Mapping[str, Any]

SHOWN = {"type": "image"}
"""How templates see an image: transformers' way, which they are written for."""


def image_part(url: str) -> dict[str, Any]:
    """An image as OpenAI's clients send it."""
    return {"type": "image_url", "image_url": {"url": url}}


def without_images(messages: Sequence[Message], taken: bool) -> tuple[list[Message], list[str]]:
    """The conversation as templates are shown it, and the URLs of its images in order.

    taken: whether the model takes images. Raises InvalidInput if not, and for an image without a URL.
    """
    urls: list[str] = []
    return [_shown(message, urls, taken) for message in messages], urls


def _shown(message: Message, urls: list[str], taken: bool) -> Message:
    content = message.get("content")
    if not isinstance(content, list) or not any(map(_is_image, content)):
        return message
    return {**message, "content": [_taken(part, urls, taken) if _is_image(part) else part for part in content]}


def _is_image(part: Any) -> bool:
    return isinstance(part, Mapping) and part.get("type") in ("image_url", "image")


def _taken(part: Message, urls: list[str], taken: bool) -> Message:
    kind = part["type"]
    if not taken:
        raise InvalidInput(
            f"`messages` has content with a part of type {kind}, which is not taken: this model takes text only"
        )
    given = part.get(kind)
    url = given.get("url") if isinstance(given, Mapping) else given
    if kind != "image_url" or not isinstance(url, str):
        raise InvalidInput(
            f"`messages` has an image {excerpt(repr(dict(part)))}, expected "
            '{"type": "image_url", "image_url": {"url": …}}'
        )
    urls.append(url)
    return SHOWN
