"""Server-sent events as bytes. Knows neither what they carry nor how they are sent."""

from collections.abc import Callable
from dataclasses import dataclass

_LINE_BREAKS = tuple((mark, f"\\u{ord(mark):04x}") for mark in "\x85\u2028\u2029")
"""What str.splitlines takes for a line's end and JSON leaves as it is, and how JSON may write it too."""

_TYPE = '{"type":"'


def event_data(content: str) -> bytes:
    """The server-sent event that carries a JSON text without line feeds.

    By the format only line feeds and carriage returns end lines, but many clients (httpx, so huggingface_hub) split at
    every line break of Unicode. In JSON those can only stand in strings, where an escape means the same.
    """
    if not content.isascii():
        for mark, escape in _LINE_BREAKS:
            content = content.replace(mark, escape)
    return f"data: {content}\n\n".encode()


def named_event(content: str) -> bytes:
    """The same with a name, which is the `type` that the JSON object must begin with."""
    name = content[len(_TYPE) : content.index('"', len(_TYPE))]
    return f"event: {name}\n".encode() + event_data(content)


@dataclass(frozen=True, slots=True)
class Framing:
    """How an API's events are written. event: the bytes of one. silence: what fills a long silence."""

    event: Callable[[str], bytes] = event_data
    silence: bytes = b":\n\n"


PLAIN = Framing()
NAMED = Framing(named_event)
