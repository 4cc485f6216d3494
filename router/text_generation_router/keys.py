"""The keys that let requests in: where they are read, and how they are asked for. Knows no routes."""

import hashlib
import secrets
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from text_generation_router.errors import InvalidSettings, Unauthorized


def read_keys(given: str | None, path: str | None) -> tuple[str, ...]:
    """The keys of --api-key, with commas between, and those of --api-key-file, one a line; none without the options.

    Raises InvalidSettings for what would let everybody in, or nobody.
    """
    keys = [] if given is None else [key.strip() for key in given.split(",")]
    if path is not None:
        try:
            lines = Path(path).read_text().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidSettings(f"--api-key-file {path} cannot be read: {error}") from error
        listed = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
        if not listed:
            raise InvalidSettings(f"--api-key-file {path} has no key; write one a line")
        keys += listed
    if "" in keys:
        raise InvalidSettings("--api-key has an empty key; leave the option out to ask for none")
    return tuple(keys)


_FREE = ("GET", "HEAD", "OPTIONS")
"""Methods that change and compute nothing: browsers' preflight requests, and what tells of the server."""


class KeyGuard:
    """Lets requests pass that bring a key, or need none by their method.

    refuse: the answer to others, by the path that they asked for.
    """

    def __init__(self, app: ASGIApp, keys: Sequence[str], refuse: Callable[[Unauthorized, str], Response]) -> None:
        self._app = app
        self._digests = [_digest(key.encode()) for key in keys]
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, or answer 401."""
        if scope["type"] == "http" and scope["method"] not in _FREE and not self._knows_key(scope):
            await self._refuse(Unauthorized(), scope["path"])(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _knows_key(self, scope: Scope) -> bool:
        """Takes as long whatever is wrong with a key, its length and which of the keys it resembles included."""
        brought = [_digest(key) for key in _keys(scope)]
        matches = [secrets.compare_digest(one, digest) for one in brought for digest in self._digests]
        return any(matches)


def _keys(scope: Scope) -> Iterator[bytes]:
    """The keys that a request brings: as OpenAI's clients do, or as Anthropic's."""
    for name, value in scope["headers"]:
        if name == b"x-api-key":
            yield value.strip()
        elif name == b"authorization":
            scheme, _, key = value.partition(b" ")
            if scheme.lower() == b"bearer":
                yield key.strip()


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
