"""When a request is sent once more, and after how long. Knows no sockets, and does not wait itself."""

import random
from collections.abc import Mapping

import httpx

_REFUSED = (429, 503)
"""Nothing was begun: the server had no room, or could not serve."""

FIRST_S = 0.5
"""The longest first pause; each one after may be twice as long."""

_LONGEST_S = 30.0


class Attempts:
    """The attempts of one request. retries: how many may follow the first."""

    def __init__(self, retries: int) -> None:
        self._left = retries
        self._pause_s = FIRST_S

    def after_status(self, status: int, headers: Mapping[str, str]) -> float | None:
        """Seconds to wait before the next attempt, None if this answer is to be taken. The server may say how many."""
        return self._next(headers.get("retry-after", "")) if status in _REFUSED else None

    def after_error(self, error: httpx.TransportError) -> float | None:
        """The same after a connection that was never made. One that broke may have reached the server."""
        return self._next("") if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout) else None

    def _next(self, asked: str) -> float | None:
        if self._left == 0:
            return None
        self._left -= 1
        # Clients that were refused together should not come back together.
        pause_s = self._pause_s * random.uniform(0.5, 1)
        self._pause_s *= 2
        return min(float(asked) if asked.isdigit() else pause_s, _LONGEST_S)
