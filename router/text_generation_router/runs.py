"""Requests run in the batcher of this process. Knows neither HTTP nor batches."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

from text_generation_router.adapters import Adapters
from text_generation_router.batcher import Batcher
from text_generation_router.entry import Push, Timeline
from text_generation_router.inbox import Inbox
from text_generation_router.traces import Traces
from text_generation_router.types import ValidRequest

Leave = Callable[[], None]


class LocalRuns:
    """See `Runs`."""

    def __init__(self, batcher: Batcher, adapters: Adapters, traces: Traces) -> None:
        self._batcher = batcher
        self._adapters = adapters
        self._traces = traces

    @contextmanager
    def run(self, request: ValidRequest, timeline: Timeline) -> Iterator[Inbox]:
        """See `Runs`."""
        inbox = Inbox()
        with self.running(request, timeline, inbox.push) as inbox.leave:
            yield inbox

    @contextmanager
    def running(
        self, request: ValidRequest, timeline: Timeline, push: Push, parent: Mapping[str, str] | None = None
    ) -> Iterator[Leave]:
        """The same with another place for the steps. parent: what carries the span that the request belongs to.

        What is given takes the request out before.
        """
        with self._traces.generation(request, parent) as trace, self._adapters.held(request.adapter_id) as adapter:
            entry = self._batcher.submit(replace(request, adapter_id=adapter), timeline, trace, push)
            try:
                yield lambda: self._batcher.cancel(entry)
            finally:
                self._batcher.cancel(entry)
