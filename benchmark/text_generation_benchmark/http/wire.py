"""Reads one HTTP/1.1 answer from the pieces it comes in. Knows neither sockets nor what a body means.

Source: RFC 9112. A reader of our own: what a piece of a stream costs decides how many streams one core can follow.
"""

from collections.abc import Callable

_HEAD_LIMIT = 65536


class NotHttp(ValueError):
    """What came is not an answer of HTTP/1.1."""


class Response:
    """An answer, complete when `complete` says so. reusable: the connection may be used again then."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.complete = False
        self.reusable = False
        self._kept = b""
        self._left = 0
        self._decode: Callable[[bytes], bytes] = self._head

    def feed(self, data: bytes) -> bytes:
        """What the piece adds to the body. Raises NotHttp."""
        return self._decode(data)

    def hang_up(self) -> None:
        """Nothing more comes; that is the end of a body without a length."""
        self.complete = self.complete or self._decode == self._until_closed

    def _head(self, data: bytes) -> bytes:
        head, end, rest = (self._kept + data).partition(b"\r\n\r\n")
        if not end:
            self._kept = head
            if len(head) > _HEAD_LIMIT:
                raise NotHttp(f"an answer's head does not end after {_HEAD_LIMIT} bytes")
            return b""
        self._kept = b""
        first, *lines = head.decode("latin-1").split("\r\n")
        version, _, status = first.partition(" ")
        if not version.startswith("HTTP/1.") or not status[:3].isdecimal():
            raise NotHttp(f"an answer begins with {first[:80]!r}")
        self.status = int(status[:3])
        if self.status < 200:  # an interim answer, before the real one
            return self._head(rest)
        self.headers = {
            name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
        }
        self._decode = self._body()
        return self._decode(rest)

    def _body(self) -> Callable[[bytes], bytes]:
        self.reusable = self.headers.get("connection", "").lower() != "close"
        if "chunked" in self.headers.get("transfer-encoding", "").lower():
            return self._chunks
        if (length := self.headers.get("content-length")) is not None:
            if not length.isdecimal():
                raise NotHttp(f"content-length is {length!r}")
            self._left = int(length)
            return self._counted
        self.reusable = False
        return self._until_closed

    def _chunks(self, data: bytes) -> bytes:
        data = self._kept + data
        parts, at = [], 0
        while not self.complete:
            end = data.find(b"\r\n", at)
            if end < 0:
                break
            size = _chunk_size(data[at:end])
            if size == 0:  # trailers may follow, then an empty line
                self.complete = data.find(b"\r\n\r\n", end) >= 0
                break
            stop = end + 2 + size
            if len(data) < stop + 2:
                break
            parts.append(data[end + 2 : stop])
            at = stop + 2
        self._kept = data[at:]
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _counted(self, data: bytes) -> bytes:
        self._left -= len(data)
        self.complete = self._left <= 0
        return data

    def _until_closed(self, data: bytes) -> bytes:
        return data


def _chunk_size(line: bytes) -> int:
    try:
        return int(line.partition(b";")[0], 16)
    except ValueError as error:
        raise NotHttp(f"a chunk's size is {line[:40]!r}") from error
