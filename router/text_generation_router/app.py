"""The ASGI application: routes, errors, and who may call. New APIs are registered here. Knows no handler's inside."""

from collections.abc import Mapping, Sequence

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from text_generation_router.backend import Exposition
from text_generation_router.errors import ApiError, Unrouted
from text_generation_router.keys import KeyGuard
from text_generation_router.request_id import RequestIds
from text_generation_router.responses import NATIVE_ERRORS, ErrorForm, json_error, unrouted
from text_generation_router.routes.adapters import AdapterRoutes
from text_generation_router.routes.anthropic.errors import ANTHROPIC_ERRORS
from text_generation_router.routes.anthropic.messages import MessageRoutes
from text_generation_router.routes.cloud import CloudRoutes
from text_generation_router.routes.endpoint import Api, Endpoint
from text_generation_router.routes.kserve import KServeRoutes
from text_generation_router.routes.native import NativeRoutes
from text_generation_router.routes.openai.chat import ChatRoutes
from text_generation_router.routes.openai.completions import CompletionRoutes
from text_generation_router.routes.openai.errors import RESPONSES_ERRORS
from text_generation_router.routes.openai.models import ModelRoutes
from text_generation_router.routes.openai.responses.routes import ResponseRoutes
from text_generation_router.routes.openai.style import OPENAI, Style
from text_generation_router.routes.openai.tgi import TGI
from text_generation_router.routes.openapi import DocumentRoutes
from text_generation_router.routes.page import PageRoutes
from text_generation_router.routes.service import ServiceRoutes, figures_route
from text_generation_router.routes.services import Services
from text_generation_router.routes.tokens import TokenRoutes
from text_generation_router.traced_requests import TracedRequests
from text_generation_server.tracing import Tracing

_ANTHROPIC_HEADERS = ("x-api-key", "anthropic-version", "anthropic-beta", "anthropic-dangerous-direct-browser-access")
"""What its clients send from browsers too."""


def make_app(
    services: Services,
    cors_allow_origin: Sequence[str] | None,
    keys: Sequence[str],
    tracing: Tracing | None = None,
    tgi_compat: bool = False,
    kserve: bool = False,
    playground: bool = True,
) -> ASGIApp:
    """The application. cors_allow_origin: None allows any. keys: of which all but GET routes ask for one, if any.

    tracing: of requests, if a collector is asked for. tgi_compat: whether OpenAI's routes answer as
    text-generation-inference does. kserve: whether there are KServe's. playground: whether browsers get a page.
    """
    style = TGI if tgi_compat else OPENAI
    forms = _forms(style)
    routes = [*(PageRoutes().routes() if playground else ()), *endpoints(services, style, kserve)]

    def answer(error: Exception, path: str) -> Response:
        """To a request that fails before a route has begun to answer, or reaches none."""
        if isinstance(error, HTTPException) and error.status_code == 405:
            error = Unrouted(405, [("allow", _methods(path, routes))])
        return json_error(error if isinstance(error, ApiError) else unrouted(error), _form(path, forms))

    cors = Middleware(
        CORSMiddleware,
        allow_origins=list(cors_allow_origin or ["*"]),
        allow_methods=["GET", "POST", "DELETE"],
        allow_headers=["content-type", "authorization", *_ANTHROPIC_HEADERS],
        expose_headers=["x-request-id"],
    )
    guard = [Middleware(KeyGuard, keys=keys, refuse=answer)] if keys else []

    async def answer_error(request: Request, error: Exception) -> Response:
        return answer(error, request.url.path)

    app: ASGIApp = Starlette(
        routes=routes,
        middleware=[cors, *guard],
        exception_handlers=dict.fromkeys((ApiError, 404, 405, 500), answer_error),
    )
    return RequestIds(app if tracing is None else TracedRequests(app, tracing))


def endpoints(services: Services, style: Style, kserve: bool) -> list[Endpoint]:
    """All routes."""
    native, completions, chats = NativeRoutes(services), CompletionRoutes(services, style), ChatRoutes(services, style)
    apis: list[Api] = [
        native,
        TokenRoutes(services),
        ServiceRoutes(services),
        ModelRoutes(services),
        AdapterRoutes(services),
        completions,
        chats,
        ResponseRoutes(services),
        MessageRoutes(services),
        CloudRoutes(services, native, chats, completions),
        *([KServeRoutes(services)] if kserve else []),
    ]
    found = [endpoint for api in apis for endpoint in api.routes()]
    return [*found, *DocumentRoutes(found, services.info["version"]).routes()]


def _methods(path: str, routes: Sequence[Route]) -> str:
    """What can be done at a path; starlette tells of one of its routes."""
    return ", ".join(
        sorted({method for route in routes if route.path_regex.match(path) for method in route.methods or ()})
    )


Forms = Mapping[str, ErrorForm]
"""How errors are told, by how paths begin; the first that fits."""


def _forms(style: Style) -> Forms:
    return {
        "/v1/messages": ANTHROPIC_ERRORS,
        "/v1/responses": RESPONSES_ERRORS,
        "/v1/": style.errors,
        "/": style.native_errors,
    }


def _form(path: str, forms: Forms) -> ErrorForm:
    """How the API at a path tells errors, also of requests that reach no route."""
    return next((form for start, form in forms.items() if path.startswith(start)), NATIVE_ERRORS)


def make_metrics_app(figures: Exposition) -> Starlette:
    """An application that only has `/metrics`, for the port of its own."""
    return Starlette(routes=[Route("/metrics", figures_route(figures), methods=["GET"])])
