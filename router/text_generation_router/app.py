"""The ASGI application: routes, errors, and who may call. New APIs are registered here. Knows no handler's inside."""

from collections.abc import Sequence

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from text_generation_router.errors import ApiError
from text_generation_router.keys import KeyGuard
from text_generation_router.request_id import RequestIds
from text_generation_router.responses import NATIVE_ERRORS, ErrorForm, json_error, unrouted
from text_generation_router.routes.native import NativeRoutes
from text_generation_router.routes.openai.chat import ChatRoutes
from text_generation_router.routes.openai.completions import CompletionRoutes
from text_generation_router.routes.openai.errors import OPENAI_ERRORS
from text_generation_router.routes.openai.models import ModelRoutes
from text_generation_router.routes.page import PageRoutes
from text_generation_router.routes.service import ServiceRoutes
from text_generation_router.routes.services import Services
from text_generation_router.routes.tokens import TokenRoutes
from text_generation_router.traced_requests import TracedRequests
from text_generation_server.tracing import Tracing


def make_app(
    services: Services, cors_allow_origin: Sequence[str] | None, keys: Sequence[str], tracing: Tracing | None = None
) -> ASGIApp:
    """The application. cors_allow_origin: None allows any. keys: of which POST routes ask for one, if there are any.

    tracing: of requests, if a collector is asked for.
    """
    origins = list(cors_allow_origin or ["*"])
    cors = Middleware(
        CORSMiddleware,
        allow_origins=origins,
        allow_methods=["GET", "POST"],
        allow_headers=["content-type", "authorization"],
        expose_headers=["x-request-id"],
    )
    guard = [Middleware(KeyGuard, keys=keys, refuse=_answer)] if keys else []

    async def answer_error(request: Request, error: Exception) -> Response:
        return _answer(error, request.url.path)

    apis = PageRoutes, NativeRoutes, TokenRoutes, ServiceRoutes, ModelRoutes, CompletionRoutes, ChatRoutes
    app: ASGIApp = Starlette(
        routes=[route for api in apis for route in api(services).routes()],
        middleware=[cors, *guard],
        exception_handlers=dict.fromkeys((ApiError, 404, 405, 500), answer_error),
    )
    return RequestIds(app if tracing is None else TracedRequests(app, tracing))


def _answer(error: Exception, path: str) -> Response:
    """The answer to a request that fails before a route has begun to answer, or reaches none."""
    return json_error(error if isinstance(error, ApiError) else unrouted(error), _form(path))


def _form(path: str) -> ErrorForm:
    """How the API at a path tells errors."""
    return OPENAI_ERRORS if path.startswith("/v1/") else NATIVE_ERRORS


def make_metrics_app(services: Services) -> Starlette:
    """An application that only has `/metrics`, for the port of its own."""
    return Starlette(routes=[Route("/metrics", ServiceRoutes(services).metrics, methods=["GET"])])
