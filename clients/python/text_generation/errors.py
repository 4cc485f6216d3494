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
    """Status 504."""


class NotFoundError(TextGenerationError):
    """Status 404."""


class RateLimitExceededError(TextGenerationError):
    """Status 429 without an error type."""


class UnknownError(TextGenerationError):
    """Anything else."""


_BY_TYPE: Mapping[object, type[TextGenerationError]] = {
    "generation": GenerationError,
    "incomplete_generation": IncompleteGenerationError,
    "incomplete_generation_stream": IncompleteGenerationError,
    "overloaded": OverloadedError,
    "validation": ValidationError,
}
_BY_STATUS: Mapping[int, type[TextGenerationError]] = {
    400: BadRequestError,
    403: ShardNotReadyError,
    404: NotFoundError,
    424: ShardNotReadyError,
    429: RateLimitExceededError,
    504: ShardTimeoutError,
}


def parse_error(status_code: int, payload: Mapping[str, Any]) -> TextGenerationError:
    """The exception for an error object `{"error": text, "error_type": type}`: by its type, else by the HTTP status."""
    by_status = _BY_STATUS.get(status_code, UnknownError)
    return _BY_TYPE.get(payload.get("error_type"), by_status)(str(payload.get("error", payload)))
