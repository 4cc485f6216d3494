"""How long the head of a request may be: its line and headers. Knows nothing of what is in it.

uvicorn reads with httptools, which has no limit and copies a long header again with every packet.
"""

from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

LONGEST_HEAD = 64 * 1024
"""Bytes of a head that is not complete when they have come; what comes in one packet may be somewhat more."""

_REFUSAL = b'{"error":"The headers are too long","error_type":"validation"}'
_ANSWER = b"\r\n".join(
    (
        b"HTTP/1.1 431 Request Header Fields Too Large",
        b"content-type: application/json",
        b"content-length: %d" % len(_REFUSAL),
        b"connection: close",
        b"",
        _REFUSAL,
    )
)


class LimitedHeadProtocol(HttpToolsProtocol):
    """uvicorn's protocol for one connection, which hangs up on heads that do not end."""

    def __init__(self, *args: Any, **known: Any) -> None:
        super().__init__(*args, **known)
        self._head_bytes: int | None = None

    def on_message_begin(self) -> None:
        """See uvicorn."""
        super().on_message_begin()
        self._head_bytes = 0

    def on_headers_complete(self) -> None:
        """See uvicorn."""
        self._head_bytes = None
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        """See uvicorn."""
        super().data_received(data)
        if self._head_bytes is None:
            return
        self._head_bytes += len(data)
        if self._head_bytes > LONGEST_HEAD and not self.transport.is_closing():
            self.transport.write(_ANSWER)
            self.transport.close()
