"""Errors to statuses: the one place where exceptions of any call become what callers and the log see."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
from loguru import logger

from text_generation_server.errors import (
    GenerationError,
    InvalidRequest,
    ModelError,
    ModelNotFound,
    NotEnoughMemory,
    NotTheLeader,
    OutOfBlocks,
    StartError,
    UnknownAdapter,
    UnknownBatch,
)

CODES: dict[type[Exception], grpc.StatusCode] = {
    InvalidRequest: grpc.StatusCode.INVALID_ARGUMENT,
    ModelNotFound: grpc.StatusCode.NOT_FOUND,
    StartError: grpc.StatusCode.INVALID_ARGUMENT,
    UnknownAdapter: grpc.StatusCode.NOT_FOUND,
    UnknownBatch: grpc.StatusCode.NOT_FOUND,
    OutOfBlocks: grpc.StatusCode.RESOURCE_EXHAUSTED,
    NotEnoughMemory: grpc.StatusCode.RESOURCE_EXHAUSTED,
    NotTheLeader: grpc.StatusCode.FAILED_PRECONDITION,
}
"""Everything else is INTERNAL."""

MESSAGE_BYTES = 2000
"""Status messages travel in a header of 8 KiB, three bytes for each that is not plain ASCII."""


class ErrorInterceptor:
    """Gives callers the text of what a call raised; `on_fatal` is called for errors that end the process."""

    def __init__(self, on_fatal: Callable[[], None]) -> None:
        self._on_fatal = on_fatal

    def intercept_service(self, continuation: Callable[[Any], Any], details: Any) -> Any:
        """Wrap the handler of one call; unknown methods, and streams one way, as of health, are left as they are."""
        handler = continuation(details)
        if handler is None:
            return None
        method, coders = details.method.rpartition("/")[2], (handler.request_deserializer, handler.response_serializer)

        def answer(request: Any, context: Any) -> Any:
            with self._told(method, context):
                return handler.unary_unary(request, context)

        def stream(requests: Any, context: Any) -> Iterator[Any]:
            with self._told(method, context):
                yield from handler.stream_stream(requests, context)

        if handler.unary_unary is not None:
            return grpc.unary_unary_rpc_method_handler(answer, *coders)
        return handler if handler.stream_stream is None else grpc.stream_stream_rpc_method_handler(stream, *coders)

    @contextmanager
    def _told(self, method: str, context: Any) -> Iterator[None]:
        try:
            yield
        except grpc.RpcError:  # the caller is gone
            raise
        except Exception as error:
            self._report(method, error)
            context.abort(status_code(error), status_text(error))

    def _report(self, method: str, error: Exception) -> None:
        expected = isinstance(error, GenerationError | StartError) and not isinstance(error, ModelError)
        logger.opt(exception=None if expected else error).error("{}: {}", method, status_text(error))
        if isinstance(error, ModelError):
            self._on_fatal()


def status_code(error: Exception) -> grpc.StatusCode:
    """The status of an error's own class, or of the nearest one it derives from."""
    return next((CODES[kind] for kind in type(error).__mro__ if kind in CODES), grpc.StatusCode.INTERNAL)


def status_text(error: Exception) -> str:
    """The error's text, its type if it has none; cut to what a header can carry."""
    return (str(error) or type(error).__name__).encode()[:MESSAGE_BYTES].decode(errors="ignore")
