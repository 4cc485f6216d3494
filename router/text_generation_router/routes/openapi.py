"""The OpenAPI document of the routes, and a page that shows it. Knows no route but by what is told about it."""

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.requests import Request
from starlette.responses import Response

from text_generation_router.routes.answer_schemas import ErrorBody
from text_generation_router.routes.endpoint import EVENTS, HTML, JSON, Endpoint, Told

_TAG = "Text Generation Inference"
_REFERENCE = "#/components/schemas/{model}"
_FAILURES = {
    "400": "The body is no JSON",
    "401": "The key is missing or wrong",
    "413": "The body is too long",
    "415": "The body does not say that it is JSON",
    "422": "Input validation error",
    "424": "Generation error",
    "429": "Model is overloaded",
    "500": "Incomplete generation",
    "504": "The request took longer than any may",
}
_OTHER_FAILURES = {
    404: "There is none of that name",
    501: "The shards cannot do that",
    503: "The shards cannot generate",
    507: "There is no room",
}

_STYLE = (
    ":root{color-scheme:light dark}body{font:16px/1.5 system-ui;margin:2rem auto;max-width:60rem;padding:0 1rem}"
    "code,pre{font:14px/1.4 ui-monospace,monospace}pre{overflow:auto;padding:.5rem;border:1px solid #8888}"
    "summary{cursor:pointer;padding:.25rem 0}"
)


class DocumentRoutes:
    """The handlers, over the routes of the others."""

    def __init__(self, endpoints: Sequence[Endpoint], version: str) -> None:
        self._told = document([*endpoints, *self.routes()], version)

    def routes(self) -> list[Endpoint]:
        """All routes of this kind."""
        pages = {"/docs": "docs", "/docs/": "docs_folder"}
        return [
            Endpoint("GET", "/api-doc/openapi.json", self.openapi, id="openapi"),
            *(Endpoint("GET", path, self.page, id=id, answers=(HTML,)) for path, id in pages.items()),
        ]

    async def openapi(self, _: Request) -> Response:
        """The OpenAPI document of this server."""
        return Response(json.dumps(self._told, ensure_ascii=False), media_type=JSON)

    async def page(self, _: Request) -> Response:
        """The OpenAPI document as a page."""
        return Response(_page(self._told), media_type=HTML)


def document(endpoints: Iterable[Endpoint], version: str) -> dict[str, Any]:
    """The OpenAPI document."""
    listed = list(endpoints)
    models: set[type[BaseModel]] = {ErrorBody}
    for told in (endpoint.told for endpoint in listed):
        models |= {model for model in (told.body, told.schema, told.events) if model is not None}
    named = sorted(models, key=lambda model: model.__name__)
    _, schemas = models_json_schema([(model, "validation") for model in named], ref_template=_REFERENCE)
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in listed:
        paths.setdefault(endpoint.path_format, {})[endpoint.method.lower()] = _operation(endpoint)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": _TAG,
            "description": "Text generation, in the shapes of several APIs",
            "license": {"name": "Apache 2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
            "version": version,
        },
        "tags": [{"name": _TAG}],
        "paths": paths,
        "components": {
            "schemas": schemas["$defs"],
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(endpoint: Endpoint) -> dict[str, Any]:
    told = endpoint.told
    operation: dict[str, Any] = {
        "tags": [_TAG],
        "operationId": told.id,
        "summary": endpoint.summary,
        "responses": {"200": _answer(told)},
    }
    if endpoint.param_convertors:
        operation["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in endpoint.param_convertors
        ]
    if told.body is not None:
        content = {JSON: {"schema": _schema(told.body), "example": told.example}}
        operation["requestBody"] = {"required": True, "content": content}
        operation["security"] = [{}, {"key": []}]
    told_of = _FAILURES if told.body is not None else {}
    error = {"content": {JSON: {"schema": _schema(ErrorBody)}}}
    for status, text in {**told_of, **{str(status): _OTHER_FAILURES[status] for status in told.fails}}.items():
        operation["responses"][status] = {"description": text, **error}
    return operation


def _answer(told: Told) -> dict[str, Any]:
    schemas = {JSON: _schema(told.schema), EVENTS: _schema(told.events)}
    content = {kind: {"schema": schemas.get(kind, {"type": "string"})} for kind in told.answers}
    described = "A stream of events" if told.answers == (EVENTS,) else "The answer"
    return {"description": described, **({"content": content} if content else {})}


def _schema(model: type[BaseModel] | None) -> dict[str, Any]:
    """Where a model is described; anything for none."""
    return {} if model is None else {"$ref": _REFERENCE.format(model=model.__name__)}


def _page(told: Mapping[str, Any]) -> str:
    operations = [(path, method, one) for path, methods in told["paths"].items() for method, one in methods.items()]
    rows = "".join(_row(path, method, one, told["components"]["schemas"]) for path, method, one in operations)
    head = f"<meta charset=utf-8><meta name=viewport content='width=device-width'><style>{_STYLE}</style>"
    intro = f"<p>Version {escape(told['info']['version'])}. <a href=/api-doc/openapi.json>The OpenAPI document</a></p>"
    return f"<!doctype html><html lang=en><title>{_TAG}</title>{head}<h1>{_TAG}</h1>{intro}{rows}</html>"


def _row(path: str, method: str, operation: Mapping[str, Any], schemas: Mapping[str, Any]) -> str:
    name, body = f"<code>{method.upper()} {escape(path)}</code>", operation.get("requestBody")
    if body is None:
        return f"<details open><summary>{name}</summary><p>{escape(operation['summary'])}</p></details>"
    (content,) = body["content"].values()
    schema = schemas[content["schema"]["$ref"].rpartition("/")[2]]
    shown = "".join(f"<pre>{escape(json.dumps(one, indent=2))}</pre>" for one in (content["example"], schema))
    return f"<details><summary>{name} – {escape(operation['summary'])}</summary>{shown}</details>"
