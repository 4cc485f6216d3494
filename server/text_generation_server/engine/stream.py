"""The one compute stream of a rank: work enqueued first runs first. Knows nothing of what it runs.

All device work of an engine goes through one stream; that order is what makes it safe to reuse a row or a slot while an
older step that still touches it is in flight.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class ThreadStream:
    """A stream for devices whose operators run in the calling thread: one worker thread plays the device's queue."""

    def __init__(self) -> None:
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="compute")

    def enqueue(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run `work` after everything enqueued before it; the future holds its result or its exception."""
        return self._worker.submit(work, *args, **kwargs)

    def close(self) -> None:
        """Drop what has not started and wait for what has."""
        self._worker.shutdown(wait=True, cancel_futures=True)
