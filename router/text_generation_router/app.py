"""The ASGI application: routes, errors, and who may call. New APIs are registered here. Knows no handler's inside."""

import secrets
from collections.abc import Sequence

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from text_generation_router.errors import ApiError, Unauthorized
from text_generation_router.responses import NATIVE_ERRORS, ErrorForm, json_error, unrouted
from text_generation_router.routes.adapters import AdapterRoutes
from text_generation_router.routes.native import NativeRoutes
from text_generation_router.routes.openai.chat import ChatRoutes
from text_generation_router.routes.openai.completions import CompletionRoutes
from text_generation_router.routes.openai.errors import OPENAI_ERRORS
from text_generation_router.routes.openai.models import ModelRoutes
from text_generation_router.routes.service import ServiceRoutes
from text_generation_router.routes.services import Services
from text_generation_router.routes.tokens import TokenRoutes

_GUARDED = ("POST", "DELETE")
"""Methods of routes that do something."""


def make_app(services: Services, cors_allow_origin: Sequence[str] | None, api_key: str | None) -> Starlette:
    """The application. cors_allow_origin: None allows any. api_key: what routes ask for that do something, if any."""
    origins = list(cors_allow_origin or ["*"])
    cors = Middleware(
        CORSMiddleware,
        allow_origins=origins,
        allow_methods=["GET", "POST", "DELETE"],
        allow_headers=["content-type", "authorization"],
    )
    guard = [Middleware(KeyGuard, key=api_key)] if api_key is not None else []

    async def answer_error(request: Request, error: Exception) -> Response:
        told = error if isinstance(error, ApiError) else unrouted(error)
        return json_error(told, _form(request.url.path))

    apis = NativeRoutes, TokenRoutes, ServiceRoutes, AdapterRoutes, ModelRoutes, CompletionRoutes, ChatRoutes
    return Starlette(
        routes=[route for api in apis for route in api(services).routes()],
        middleware=[cors, *guard],
        exception_handlers=dict.fromkeys((ApiError, 404, 405, 500), answer_error),
    )


def _form(path: str) -> ErrorForm:
    """How the API at a path tells errors, also of requests that reach no route."""
    return OPENAI_ERRORS if path.startswith("/v1/") else NATIVE_ERRORS


def make_metrics_app(services: Services) -> Starlette:
    """An application that only has `/metrics`, for the port of its own."""
    return Starlette(routes=[Route("/metrics", ServiceRoutes(services).metrics, methods=["GET"])])


class KeyGuard:
    """Lets requests pass that bring the key. Browsers' preflight requests and GET routes need none."""

    def __init__(self, app: ASGIApp, key: str) -> None:
        self._app = app
        self._key = key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, or answer 401."""
        if scope["type"] == "http" and scope["method"] in _GUARDED and not self._knows_key(scope):
            await json_error(Unauthorized(), _form(scope["path"]))(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _knows_key(self, scope: Scope) -> bool:
        header = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        scheme, _, key = header.partition(b" ")
        return scheme.lower() == b"bearer" and secrets.compare_digest(key.strip(), self._key)
