"""Reads request bodies, and turns errors into answers. Knows no route."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from text_generation_router.errors import ApiError, ClientGone, InvalidBody, Unrouted
from text_generation_server.errors import excerpt

B = TypeVar("B", bound=BaseModel)

QUOTED = re.compile(r"`(\w+)`")
"""A field that an error's text names."""


async def read_json(request: Request, kind: type[B], limit: int) -> B:
    """The body as `kind`. Raises InvalidBody with 415, 413, 400 or 422, ClientGone if the body does not end."""
    body = await read_body(request, limit)
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        raise invalid_body(error) from error


async def read_body(request: Request, limit: int) -> bytes:
    """The body, which says that it is JSON. Raises InvalidBody with 415 or 413, ClientGone."""
    content_type = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if content_type != "application/json" and not (
        content_type.startswith("application/") and content_type.endswith("+json")
    ):
        raise InvalidBody(415, "Expected request with `Content-Type: application/json`")
    try:
        return await _read(request, limit)
    except ClientDisconnect as error:
        raise ClientGone from error


def error_body(error: ApiError) -> str:
    """The object that clients of the native API read errors from."""
    body = {"error": str(error), "error_type": error.error_type}
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class ErrorForm:
    """How an API tells errors. body: the JSON of one. last_words: what it is in a stream, which ends so.

    plain: what is sent instead of JSON, None where nothing is.
    """

    body: Callable[[ApiError], str]
    last_words: Callable[[ApiError], Sequence[str]]
    plain: Callable[[ApiError], str | None] = lambda _: None


NATIVE_ERRORS = ErrorForm(error_body, lambda error: (error_body(error),))


def renamed(message: str, names: Mapping[str, str]) -> str:
    """An error's text with the fields that it names in backquotes called as an API calls them."""
    return QUOTED.sub(lambda found: f"`{names.get(found[1], found[1])}`", message)


def json_error(error: ApiError, form: ErrorForm = NATIVE_ERRORS) -> Response:
    """The answer that reports an error."""
    text, headers = form.plain(error), dict(error.headers)
    if text is not None:
        return Response(text, error.status, headers, media_type="text/plain" if text else None)
    return Response(form.body(error), error.status, headers, media_type="application/json")


def unrouted(error: Exception) -> Unrouted:
    """The error of a request that no route took, or whose route failed: no such path, or another method there."""
    if isinstance(error, HTTPException):
        return Unrouted(error.status_code, (error.headers or {}).items())
    return Unrouted(500, ())


async def _read(request: Request, limit: int) -> bytes:
    chunks, length = [], 0
    async for chunk in request.stream():
        length += len(chunk)
        if length > limit:
            raise InvalidBody(413, f"Failed to buffer the request body: it is longer than {limit} bytes")
        chunks.append(chunk)
    return b"".join(chunks)


def invalid_body(error: ValidationError) -> InvalidBody:
    """What is wrong with a body: the first thing that is."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    if first["type"] == "json_invalid":
        return InvalidBody(400, f"Failed to parse the request body as JSON: {first['msg']}")
    path, problem = ".".join(map(str, first["loc"])), excerpt(first["msg"])  # which quotes an unknown `type` of grammar
    return InvalidBody(
        422, f"Failed to deserialize the JSON body into the target type: {path + ': ' if path else ''}{problem}", path
    )
