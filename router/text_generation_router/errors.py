"""What can go wrong, with the status, type and text that a client gets. Knows no web framework."""

from collections.abc import Iterable, Mapping
from typing import Any


class StartError(Exception):
    """The router cannot start as asked; the text says what to change."""


class InvalidSettings(StartError):
    """An option or environment variable has a value that cannot be used."""


class ShardError(Exception):
    """A call to the shards failed; `lost` says that a shard cannot be reached any more.

    told: what clients may read of it; the whole text may have paths and the like.
    """

    def __init__(self, message: str, lost: bool = False, told: str | None = None) -> None:
        super().__init__(message)
        self.lost = lost
        self.told = message if told is None else told


class ApiError(Exception):
    """An error that a client is told about.

    status: of the HTTP answer. error_type: the wire name clients map to their exceptions. failure: the label under
    which `tgi_request_failure` counts a request that ends so. headers: to be sent along. field: of the body, with a dot
    before each inner one, where one is to blame and known.
    """

    status = 500
    error_type = "internal"
    failure = "internal"
    headers: tuple[tuple[str, str], ...] = ()
    field: str | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as it is: what makes most errors takes something else than their text."""
        return _made_again, (type(self), self.args, self.__dict__)

    def in_stream(self) -> "ApiError":
        """The error as a stream that has begun reports it."""
        return self


class InvalidBody(ApiError):
    """The request body could not be read as the JSON that was expected."""

    error_type = "validation"
    failure = "validation"

    def __init__(self, status: int, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.field = field


class InvalidInput(ApiError):
    """The request breaks a rule, whose text begins with the field in backquotes where one is to blame."""

    status = 422
    error_type = "validation"
    failure = "validation"

    def __init__(self, rule: str) -> None:
        super().__init__(f"Input validation error: {rule}")


class TemplateFailed(ApiError):
    """The messages of a chat cannot be made a prompt."""

    status = 422
    error_type = "template_error"
    failure = "template"

    def __init__(self, cause: str) -> None:
        super().__init__(f"Template error: {cause}")


class ToolFailed(ApiError):
    """The tools of a chat cannot be called as it asks."""

    status = 422
    error_type = "tool_error"
    failure = "validation"

    def __init__(self, cause: str, field: str) -> None:
        super().__init__(f"Tool error: {cause}")
        self.field = field


class NoSuchModel(ApiError):
    """A model was asked about that is not served."""

    status = 404
    error_type = "model_not_found"
    failure = "validation"

    def __init__(self, name: str) -> None:
        super().__init__(f"The model `{name}` is not served here; /v1/models lists what is")
        self.field = "model"


class AdapterRefused(ApiError):
    """An adapter could not be loaded, dropped or pinned, for the reason given."""

    error_type = "adapter"
    failure = "validation"

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Unrouted(ApiError):
    """No route takes the request."""

    def __init__(self, status: int, headers: Iterable[tuple[str, str]]) -> None:
        text, self.error_type = _UNROUTED.get(status, ("Internal server error", ApiError.error_type))
        super().__init__(text)
        self.status = status
        self.headers = tuple(headers)


_UNROUTED = {
    404: ("No such route", "not_found"),
    405: ("The route does not take this method", "method_not_allowed"),
}


class Overloaded(ApiError):
    """As many requests as allowed are being served."""

    status = 429
    error_type = "overloaded"
    failure = "overloaded"
    headers = (("retry-after", "1"),)

    def __init__(self) -> None:
        super().__init__("Model is overloaded")


class GenerationFailed(ApiError):
    """A shard call failed while the request was in the batch."""

    status = 424
    error_type = "generation"
    failure = "generation"

    def __init__(self, cause: str) -> None:
        super().__init__(f"Request failed during generation: {cause}")


class IncompleteGeneration(ApiError):
    """The shard dropped the request before its last token."""

    status = 500
    error_type = "incomplete_generation"
    failure = "incomplete"

    def __init__(self, message: str = "Incomplete generation") -> None:
        super().__init__(message)

    def in_stream(self) -> ApiError:
        """The same under the name it has there."""
        return IncompleteGenerationStream("Incomplete generation stream")


class IncompleteGenerationStream(IncompleteGeneration):
    """The same in a stream."""

    error_type = "incomplete_generation_stream"


class TimedOut(ApiError):
    """The request took longer than any may; it is over, whatever it had come to."""

    status = 504
    error_type = "timeout"
    failure = "timeout"

    def __init__(self, limit_s: float) -> None:
        super().__init__(f"Request ended unfinished after {limit_s:g} s, which is all that it may take")


class ClientGone(ApiError):
    """The client hung up before its answer was complete; nobody reads this."""

    status = 499
    error_type = "dropped"
    failure = "dropped"

    def __init__(self) -> None:
        super().__init__("The client has gone")


class Unhealthy(ApiError):
    """The shards cannot generate, for the reason given if there is more to say."""

    status = 503
    error_type = "healthcheck"

    def __init__(self, reason: str = "") -> None:
        super().__init__(f"unhealthy: {reason}" if reason else "unhealthy")


class Unauthorized(ApiError):
    """The route is guarded, and the request has no or another key."""

    status = 401
    error_type = "unauthorized"
    headers = (("www-authenticate", "Bearer"),)

    def __init__(self) -> None:
        super().__init__("This route needs the header `Authorization: Bearer <key>` with the key of --api-key")


def _made_again(kind: type[ApiError], args: tuple[Any, ...], known: Mapping[str, Any]) -> ApiError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(known)
    return error
