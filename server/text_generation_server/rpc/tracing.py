"""A span for every call that reaches the engine, in the caller's trace. Knows nothing of what calls do."""

from collections.abc import Callable
from typing import Any

import grpc

from text_generation_server.tracing import Kind, Span, Tracing

UNTRACED = {"Health", "Info", "ServiceDiscovery"}
"""Calls by which routers only look."""

TIMINGS = ("forward_ns", "decode_ns", "concat_ns", "total_ns")
"""Fields of answers, in nanoseconds, that are attributes of spans too."""


class TraceInterceptor:
    """Traces calls under their full name, as OpenTelemetry's own interceptor for gRPC does; outside of all others."""

    def __init__(self, tracing: Tracing) -> None:
        self._tracing = tracing

    def intercept_service(self, continuation: Callable[[Any], Any], details: Any) -> Any:
        """Wrap the handler of one call; streams (reflection, health watch) and unknown methods are left as they are."""
        handler = continuation(details)
        service, _, method = details.method.lstrip("/").rpartition("/")
        if handler is None or handler.unary_unary is None or method in UNTRACED:
            return handler
        metadata = dict(details.invocation_metadata or ())
        facts = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method, "net.transport": "unix"}
        facts["rpc.user_agent"] = metadata.get("user-agent", "")

        def answer(request: Any, context: Any) -> Any:
            span = self._tracing.start(details.method, Kind.SERVER, metadata)
            span.note_all(facts)
            failure = None
            try:
                answered = handler.unary_unary(request, context)
                _note_timings(span, answered)
                return answered
            except BaseException:
                failure = (context.details() or b"").decode(errors="replace") or "failed"
                raise
            finally:
                code = context.code() or grpc.StatusCode.OK
                span.note_all({"rpc.grpc.status_code": code.value[0]})
                span.end(failure)

        return grpc.unary_unary_rpc_method_handler(answer, handler.request_deserializer, handler.response_serializer)


def _note_timings(span: Span, answered: Any) -> None:
    span.note_all({name: getattr(answered, name) for name in TIMINGS if hasattr(answered, name)})
