"""A span for every HTTP request that may cost something. Knows no routes."""

from collections.abc import Awaitable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from text_generation_server.tracing import Kind, Tracing

_FROM_CLIENTS = (b"traceparent", b"tracestate")


class TracedRequests:
    """Traces POST requests, within the client's trace if it names one (W3C Trace Context); others are but looks."""

    def __init__(self, app: ASGIApp, tracing: Tracing) -> None:
        self._app = app
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        given = {name.decode(): value.decode("latin-1") for name, value in scope["headers"] if name in _FROM_CLIENTS}
        span = self._tracing.start(f"POST {scope['path']}", Kind.SERVER, given)
        span.note_all({"http.request.method": "POST", "url.path": scope["path"], "request_id": scope["request_id"]})
        failure = None

        def answer(message: Message) -> Awaitable[None]:
            nonlocal failure
            if message["type"] == "http.response.start":
                status = message["status"]
                span.note_all({"http.response.status_code": status})
                failure = f"answered with {status}" if status >= 500 else None
            return send(message)

        try:
            with self._tracing.within(span):
                await self._app(scope, receive, answer)
        except BaseException as error:
            failure = type(error).__name__
            raise
        finally:
            if "endpoint" not in scope:
                span.rename("POST")  # any path may be asked for, and names are to be few
            span.end(failure)
