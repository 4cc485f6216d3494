"""What a server refuses or fails at, as exceptions. Knows no HTTP library."""

from collections.abc import Mapping
from typing import Any


class TextGenerationError(Exception):
    """Base of all errors here; the text is the server's own."""


class ValidationError(TextGenerationError):
    """The request breaks a rule; found here before it is sent, or by the server."""


class GenerationError(TextGenerationError):
    """The model failed while it worked on the request."""


class OverloadedError(TextGenerationError):
    """The server has as many requests as it takes: try again later."""


class IncompleteGenerationError(TextGenerationError):
    """The answer ended before its last token."""


class BadRequestError(TextGenerationError):
    """Status 400 without an error type."""


class ShardNotReadyError(TextGenerationError):
    """Status 403 or 424 without an error type."""


class ShardTimeoutError(TextGenerationError):
    """Status 504: the request took longer than the server allows."""


class NotFoundError(TextGenerationError):
    """Status 404: no such path, or no model of that name."""


class RateLimitExceededError(TextGenerationError):
    """Status 429 without an error type."""


class UnknownError(TextGenerationError):
    """Anything else. Those below are told apart here only: the published client raises this one for them."""


class TemplateError(UnknownError):
    """The model has no chat template, or its template refuses the conversation."""


class ToolError(UnknownError):
    """Tools cannot be used as asked, or what the model made of them cannot."""


class UnhealthyError(UnknownError):
    """The server is up but cannot generate."""


class UnauthorizedError(UnknownError):
    """The server asks for a key, or for another one."""


_BY_TYPE: Mapping[str, type[TextGenerationError]] = {
    "generation": GenerationError,
    "healthcheck": UnhealthyError,
    "incomplete_generation": IncompleteGenerationError,
    "incomplete_generation_stream": IncompleteGenerationError,
    "model_not_found": NotFoundError,
    "overloaded": OverloadedError,
    "template_error": TemplateError,
    "timeout": ShardTimeoutError,
    "tool_error": ToolError,
    "unauthorized": UnauthorizedError,
    "validation": ValidationError,
}
_BY_STATUS: Mapping[object, type[TextGenerationError]] = {
    400: BadRequestError,
    401: UnauthorizedError,
    403: ShardNotReadyError,
    404: NotFoundError,
    424: ShardNotReadyError,
    429: RateLimitExceededError,
    504: ShardTimeoutError,
}


def parse_error(status_code: int, payload: Mapping[str, Any]) -> TextGenerationError:
    """The exception for an error object: by its type, else by the HTTP status.

    The object is `{"error": text, "error_type": type}`, or OpenAI's `{"error": {"message": text, "code": type}}`, in
    streams of text-generation-inference with a status in `http_status_code`.
    """
    told = payload.get("error", payload)
    kind, status = payload.get("error_type"), status_code
    if isinstance(told, Mapping):
        kind, status = told.get("code", kind), told.get("http_status_code", status_code)
        told = told.get("message", told)
    by_status = _BY_STATUS.get(status, UnknownError)
    return _BY_TYPE.get(str(kind), by_status)(str(told))
