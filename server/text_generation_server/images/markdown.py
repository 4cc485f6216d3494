"""Images in a text as markdown, as text-generation-inference takes them: `![](data:image/png;base64,…)`, or with a URL.

Reads data URLs, and fetches nothing. Knows neither models nor what images look like.
"""

import base64
import re

from text_generation_server.errors import BadImage, excerpt

_OPENS, _CLOSES = "![](", ")"
_DATA = re.compile(r"data:(?P<type>[^,;]*)[^,]*;base64,", re.IGNORECASE)


def split(text: str) -> tuple[list[str], list[str]]:
    """The texts around images, and the images' URLs, which are one fewer."""
    texts, urls = [""], list[str]()
    rest = 0
    while (start := text.find(_OPENS, rest)) >= 0 and (end := text.find(_CLOSES, start)) >= 0:
        texts[-1] = text[rest:start]
        urls.append(text[start + len(_OPENS) : end])
        texts.append("")
        rest = end + 1
    texts[-1] = text[rest:]
    return texts, urls


def is_data(url: str) -> bool:
    """Whether a URL has its content in itself."""
    return url[:5].lower() == "data:"


def read_data(url: str) -> tuple[bytes, str]:
    """The content of a data URL, and of which type it says that it is. Raises BadImage."""
    head = _DATA.match(url)
    if head is None:
        raise BadImage(f"it is at {excerpt(url[:80])!r}, expected data:image/…;base64,…")
    try:
        return base64.b64decode(url[head.end() :], validate=True), head["type"]
    except ValueError as error:  # characters beyond ASCII too
        raise BadImage("its base64 is damaged") from error
