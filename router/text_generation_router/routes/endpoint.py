"""A route with what its callers are told about it, from which the documents are made. Knows no route."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from pydantic import BaseModel
from starlette.routing import Route

JSON, EVENTS, TEXT, HTML = "application/json", "text/event-stream", "text/plain", "text/html"


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What is told about a route.

    id: its operation in the OpenAPI document. body: of its requests, None without. example: such a body. values: of the
    path's parameters, for example. answers: the content types that an answer may have, none if it has no content.
    schema: of an answer in JSON; events: of those of a stream; None where another API's maker describes it.
    fails: statuses beyond those that every route with a body may have.
    """

    id: str
    body: type[BaseModel] | None = None
    example: Any = None
    values: Mapping[str, str] = field(default_factory=dict)
    answers: tuple[str, ...] = (JSON,)
    schema: type[BaseModel] | None = None
    events: type[BaseModel] | None = None
    fails: tuple[int, ...] = ()


class Endpoint(Route):
    """A path with one method. What it does is the first line of its handler's docstring."""

    def __init__(self, method: str, path: str, handler: Callable[..., Any], **told: Any) -> None:
        super().__init__(path, handler, methods=[method])
        self.method = method
        self.told = Told(**told)
        self.summary = (handler.__doc__ or "").partition("\n")[0].strip()

    @property
    def example_path(self) -> str:
        """A path that leads here."""
        return self.path_format.format(**self.told.values)

    def curl(self, base: str) -> str:
        """The command that calls it at an address with its example."""
        url = base + self.example_path
        if self.told.body is None:
            return f"curl {url}" if self.method == "GET" else f"curl -X {self.method} {url}"
        return f"curl {url} -H 'content-type: application/json' -d '{json.dumps(self.told.example)}'"


class Api(Protocol):
    """Routes that belong together."""

    def routes(self) -> list[Endpoint]:
        """All of them."""
