"""A server, and what every request to it carries. Knows no arguments and no answers, and sends nothing."""

import ssl
from dataclasses import dataclass
from typing import Any

import httpx
from pydantic import BaseModel

NATIVE, CHAT, COMPLETION = "", "/v1/chat/completions", "/v1/completions"
"""The paths below a server's base URL; the native API is posted to the URL itself."""


@dataclass
class Endpoint:
    """What clients are made from.

    base_url: where the native API is, and under which OpenAI's has its paths. timeout: seconds to wait for a
    connection, and for the next bytes. retries: how often a request is sent again that found no connection, or was
    answered with 429 or 503; after half a second, twice as long each time, or as long as the server says.
    """

    base_url: str
    headers: dict[str, str] | None = None
    cookies: dict[str, str] | None = None
    timeout: float = 10
    retries: int = 2

    def __post_init__(self) -> None:
        # Reading the certificates takes longer than a request, so once for all calls, and not for plain HTTP.
        self._verify: ssl.SSLContext | bool = self.base_url.startswith("https") and httpx.create_ssl_context()

    def _connection(self) -> dict[str, Any]:
        """Arguments of both kinds of httpx client."""
        return {
            "headers": self.headers,
            "cookies": self.cookies,
            "timeout": self.timeout,
            "verify": self._verify,
            "follow_redirects": True,
        }

    def _message(self, path: str, request: BaseModel) -> dict[str, Any]:
        """Arguments of their requests."""
        url = self.base_url.rstrip("/") + path if path else self.base_url
        return {"method": "POST", "url": url, "json": request.model_dump(mode="json", exclude_none=True)}
