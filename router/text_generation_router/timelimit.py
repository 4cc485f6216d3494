"""The time that a request may take: by --request-timeout, or less as it says itself.

Knows neither batches nor how errors are told.
"""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

from text_generation_router.entry import Timeline
from text_generation_router.errors import TimedOut
from text_generation_router.inbox import Inbox
from text_generation_router.types import ValidRequest


class TimeLimit:
    """Ends requests that take too long. seconds: from a request's arrival on; None: it may take any time."""

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds

    @contextmanager
    def of(self, request: ValidRequest, timeline: Timeline, inbox: Inbox) -> Iterator[None]:
        """While this is entered, the request ends with TimedOut when its time is up."""
        seconds = min((limit for limit in (self._seconds, request.timeout) if limit is not None), default=None)
        if seconds is None:
            yield
            return
        left = timeline.started + seconds - time.monotonic()
        alarm = asyncio.get_running_loop().call_later(left, self._end, inbox, seconds)
        try:
            yield
        finally:
            alarm.cancel()

    @staticmethod
    def _end(inbox: Inbox, seconds: float) -> None:
        """The batch is left at once, even if a slow reader has much to read before the error."""
        inbox.leave()
        inbox.push(TimedOut(seconds))
