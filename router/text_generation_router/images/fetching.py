"""Fetches what a client's URL names, within bounds: where it may be, how long it takes, how large it is.

A client of HTTP of its own, as the address that was checked has to be the one that is connected to, for every redirect.
Knows nothing of what is in a file.
"""

import asyncio
import ssl
from dataclasses import dataclass, field
from functools import cached_property
from typing import Self
from urllib.parse import SplitResult, urljoin, urlsplit

import httptools

from text_generation_router.images.addresses import resolved
from text_generation_server.errors import BadImage

_REDIRECTS = 3
_LONGEST_HEAD = 2**16
_READ_BYTES = 2**16
_MOVED = (301, 302, 303, 307, 308)
_UNTOLD = ("", "application/octet-stream", "binary/octet-stream")
"""Content types of servers that do not know what they have."""


@dataclass(frozen=True, slots=True)
class FetchRules:
    """max_bytes: of all files of a request. timeout_s: for a file, redirects and all.

    private: whether any network may be reached.
    """

    max_bytes: int
    timeout_s: float
    private: bool = False


@dataclass(slots=True)
class Room:
    """What the files of one request may still take, in bytes, side by side as they come."""

    most: int
    taken: int = 0

    def take(self, count: int) -> None:
        """Raises BadImage if there is no room for so many more."""
        self.taken += count
        if self.taken > self.most:
            raise BadImage(f"it has too many bytes: the images at a request's URLs may have {self.most} in all")


class Fetcher:
    """Fetches files, by rules."""

    def __init__(self, rules: FetchRules) -> None:
        self._rules = rules

    def room(self) -> Room:
        """For the files of one request."""
        return Room(self._rules.max_bytes)

    async def fetch(self, url: str, room: Room) -> tuple[bytes, str]:
        """A file and its content type. Raises BadImage."""
        try:
            async with asyncio.timeout(self._rules.timeout_s):
                return await self._followed(url, room)
        except TimeoutError as error:
            raise BadImage(f"it did not come within {self._rules.timeout_s:g} s") from error
        except (OSError, httptools.HttpParserError, asyncio.IncompleteReadError) as error:
            raise BadImage("it could not be fetched") from error

    async def _followed(self, url: str, room: Room) -> tuple[bytes, str]:
        for _ in range(_REDIRECTS + 1):
            answer = await self._asked(_Place.of(url), room)
            if answer.status not in _MOVED:
                return answer.file()
            url = urljoin(url, answer.headers.get("location", ""))
        raise BadImage(f"it is redirected more than {_REDIRECTS} times")

    async def _asked(self, place: "_Place", room: Room) -> "_Answer":
        reader, writer = await self._connected(place)
        try:
            writer.write(place.request)
            answer = _Answer(room)
            while not answer.complete:
                data = await reader.read(_READ_BYTES)
                if not data:
                    answer.end()
                    break
                answer.feed(data)
            return answer
        finally:
            writer.transport.abort()

    async def _connected(self, place: "_Place") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """To the first address that answers."""
        tls, name = (self._tls, place.host) if place.encrypted else (None, None)
        problem: OSError | None = None
        for address in await resolved(place.host, place.port, self._rules.private):
            try:
                return await asyncio.open_connection(address, place.port, ssl=tls, server_hostname=name)
            except OSError as error:
                problem = error
        raise problem or OSError("no address")

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        return ssl.create_default_context()


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a URL leads."""

    host: str
    port: int
    encrypted: bool
    request: bytes

    @classmethod
    def of(cls, url: str) -> Self:
        """Raises BadImage for a URL that is not fetched."""
        try:
            parts = urlsplit(url)
            host, port = (parts.hostname or "").encode("idna").decode(), parts.port
            target = _target(parts).encode("ascii")
        except ValueError as error:  # ports that are no numbers, and what has no place in a URL
            raise BadImage("it is at a URL that is not valid") from error
        encrypted = parts.scheme == "https"
        if parts.scheme not in ("http", "https") or not host or parts.username is not None:
            raise BadImage("it is neither data:image/…;base64,… nor at an http or https URL without a user")
        name = f"[{host}]" if ":" in host else host
        shown = name if port is None else f"{name}:{port}"
        head = f"Host: {shown}\r\nUser-Agent: text-generation-router\r\nAccept: image/*\r\nConnection: close\r\n\r\n"
        request = b"GET " + target + b" HTTP/1.1\r\n" + head.encode()
        return cls(host, port or (443 if encrypted else 80), encrypted, request)


def _target(parts: SplitResult) -> str:
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if any(character <= " " or character == "\x7f" for character in target):
        raise ValueError("white space in a URL")
    return target


@dataclass(slots=True)
class _Answer:
    """An HTTP answer while it comes."""

    room: Room
    complete: bool = False
    headers: dict[str, str] = field(default_factory=dict)
    _body: bytearray = field(default_factory=bytearray)
    _headed: bool = False
    _head: int = 0
    _parser: httptools.HttpResponseParser = field(init=False)

    def __post_init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)

    @property
    def status(self) -> int:
        """0 before it is known."""
        return int(self._parser.get_status_code())

    def feed(self, data: bytes) -> None:
        """Read on. Raises BadImage once it is too large."""
        self._head += 0 if self._headed else len(data)
        before = len(self._body)
        self._parser.feed_data(data)
        told = self.headers.get("content-length", "") if self._headed else ""
        if told.isdecimal() and int(told) > self.room.most:
            raise BadImage(f"it has {told} bytes, expected at most {self.room.most}")
        if self._head > _LONGEST_HEAD + _READ_BYTES:
            raise BadImage("it comes with too long a head")
        self.room.take(len(self._body) - before)

    def end(self) -> None:
        """The server has hung up, which ends a body without a length. Raises BadImage for one with a length."""
        if not self._headed or "content-length" in self.headers or "transfer-encoding" in self.headers:
            raise BadImage("it ends too early")

    def file(self) -> tuple[bytes, str]:
        """The content and its type. Raises BadImage for an answer that is none."""
        kind = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        if self.status != 200:
            raise BadImage(f"it could not be fetched: the server there answers with status {self.status}")
        if "content-encoding" in self.headers or not (kind.startswith("image/") or kind in _UNTOLD):
            raise BadImage("it could not be fetched: what is there is no image")
        return bytes(self._body), kind

    # what the parser calls

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self._headed = self.status >= 200

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        self.complete = self._headed
        if not self.complete:  # it was only told that the answer will come
            self.headers.clear()
