"""Spans for an OTLP collector, and what carries them from a process to the next. Knows nothing of what is traced.

The only module that imports OpenTelemetry, and only when a collector is asked for.
"""

import re
import threading
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from enum import StrEnum
from typing import TYPE_CHECKING

from text_generation_server.errors import StartError

if TYPE_CHECKING:
    from opentelemetry.trace import Span as RecordedSpan

Value = str | bool | int | float

_END_S = 1.0
"""Within which the last spans leave, or are lost."""

_EXPORT_S = 5.0
"""Of one attempt to reach the collector, its repetitions included."""

_TO_INSTALL = (
    "--otlp-endpoint needs OpenTelemetry: install kvrun[otlp], or opentelemetry-sdk and "
    "opentelemetry-exporter-otlp-proto-grpc, or leave the option out"
)


class Kind(StrEnum):
    """What a span is of: work in a process, a call that it answers, one that it makes."""

    INTERNAL = "INTERNAL"
    SERVER = "SERVER"
    CLIENT = "CLIENT"


class Span:
    """One piece of work, from `Tracing.start` to `end`."""

    def __init__(self, recorded: "RecordedSpan") -> None:
        self.recorded = recorded

    def note(self, **facts: Value | None) -> None:
        """Add attributes; None is none."""
        self.recorded.set_attributes({name: value for name, value in facts.items() if value is not None})

    def note_all(self, facts: Mapping[str, Value]) -> None:
        """The same for names with dots."""
        self.recorded.set_attributes(facts)

    def rename(self, name: str) -> None:
        """Call it otherwise."""
        self.recorded.update_name(name)

    def link(self, other: "Span") -> None:
        """Tie it to a span of another trace."""
        self.recorded.add_link(other.recorded.get_span_context())

    def end(self, failure: str | None = None) -> None:
        """It is over; failure: what went wrong."""
        from opentelemetry.trace import StatusCode

        if failure is not None:
            self.recorded.set_status(StatusCode.ERROR, failure)
        self.recorded.end()


class Tracing:
    """Sends this process's spans to the collector at `endpoint`, `http://host:4317` or https, over gRPC.

    Spans are sent in batches by a thread of its own; what cannot be sent is dropped, with a line in the log.

    Raises:
        StartError: the endpoint is none, or OpenTelemetry is not installed.
    """

    def __init__(self, endpoint: str, service_name: str) -> None:
        if not re.fullmatch(r"https?://[^/]+/?", endpoint):
            raise StartError(f"--otlp-endpoint is {endpoint!r}, expected a collector such as http://localhost:4317")
        try:
            from opentelemetry import context, trace
            from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.sdk.trace.sampling import ALWAYS_ON
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
        except ImportError as error:
            raise StartError(f"{_TO_INSTALL} ({error})") from error
        secure = endpoint.startswith("https://")
        exporter = OTLPSpanExporter(endpoint, insecure=not secure, timeout=_EXPORT_S)
        resource = Resource.create({"service.name": service_name})
        self._provider = TracerProvider(ALWAYS_ON, resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("kvrun")
        self._api, self._none = trace, context.Context()
        self._propagator = TraceContextTextMapPropagator()

    def start(
        self,
        name: str,
        kind: Kind = Kind.INTERNAL,
        parent: Span | Mapping[str, str] | None = None,
        links: Iterable[Span] = (),
        **facts: Value,
    ) -> Span:
        """Begin a span. parent: a span here, or `traceparent` and `tracestate` of another process; None: no parent."""
        if isinstance(parent, Span):
            context = self._api.set_span_in_context(parent.recorded, self._none)
        else:
            context = self._propagator.extract(parent or {}, self._none)
        tied = [self._api.Link(span.recorded.get_span_context()) for span in links]
        return Span(self._tracer.start_span(name, context, self._api.SpanKind[kind], facts, tied))

    def within(self, span: Span) -> AbstractContextManager[object]:
        """While this is entered, `current` is the span, in tasks that are begun meanwhile too."""
        entered: AbstractContextManager[object] = self._api.use_span(
            span.recorded, record_exception=False, set_status_on_exception=False
        )
        return entered

    def current(self) -> Span | None:
        """The span that this task is within."""
        recorded = self._api.get_current_span()
        return Span(recorded) if recorded.is_recording() else None

    def carried(self, span: Span) -> tuple[tuple[str, str], ...]:
        """What tells another process of the span: headers, or metadata of a call."""
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier, self._api.set_span_in_context(span.recorded, self._none))
        return tuple(carrier.items())

    def close(self) -> None:
        """Send what is left; takes no longer than a second, whatever the collector does."""
        ending = threading.Thread(target=self._provider.shutdown, name="last-spans", daemon=True)
        ending.start()
        ending.join(_END_S)
