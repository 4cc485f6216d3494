"""A collector of traces: what OTLP exporters send over gRPC, kept."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as pb
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as service


@dataclass(frozen=True)
class Collected:
    """A span. trace, id, parent: in hexadecimal, as `traceparent` has them. links: ids of spans."""

    service: str
    name: str
    kind: int
    trace: str
    id: str
    parent: str
    failed: str | None
    links: tuple[str, ...]
    facts: dict[str, Any]


@dataclass
class Collector(service.TraceServiceServicer):
    """The spans that have come, and where to send more."""

    endpoint: str = ""
    spans: list[Collected] = field(default_factory=list)

    def named(self, name: str) -> list[Collected]:
        """All spans of a name, in the order of their ends."""
        return [span for span in self.spans if span.name == name]

    def Export(self, request: Any, context: Any) -> Any:
        """Keep some."""
        for group in request.resource_spans:
            (about,) = [fact.value.string_value for fact in group.resource.attributes if fact.key == "service.name"]
            self.spans += [_collected(about, span) for scope in group.scope_spans for span in scope.spans]
        return pb.ExportTraceServiceResponse()


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector that listens."""
    collector, server = Collector(), grpc.server(ThreadPoolExecutor(2))
    service.add_TraceServiceServicer_to_server(collector, server)
    collector.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield collector
    finally:
        server.stop(None).wait()


def _collected(about: str, span: Any) -> Collected:
    return Collected(
        about,
        span.name,
        span.kind,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        span.status.message if span.status.code == 2 else None,
        tuple(link.span_id.hex() for link in span.links),
        {fact.key: getattr(fact.value, fact.value.WhichOneof("value")) for fact in span.attributes},
    )
