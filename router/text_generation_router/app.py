"""The ASGI application: routes, errors, and who may call. New APIs are registered here. Knows no handler's inside."""

import secrets
from collections.abc import Iterator, Mapping, Sequence

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from text_generation_router.errors import ApiError, Unauthorized
from text_generation_router.responses import NATIVE_ERRORS, ErrorForm, json_error, unrouted
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
from text_generation_router.routes.service import ServiceRoutes
from text_generation_router.routes.services import Services
from text_generation_router.routes.tokens import TokenRoutes

_ANTHROPIC_HEADERS = ("x-api-key", "anthropic-version", "anthropic-beta", "anthropic-dangerous-direct-browser-access")
"""What its clients send from browsers too."""


def make_app(
    services: Services,
    cors_allow_origin: Sequence[str] | None,
    api_key: str | None,
    tgi_compat: bool = False,
    kserve: bool = False,
) -> Starlette:
    """The application. cors_allow_origin: None allows any. api_key: what POST routes ask for, if not None.

    tgi_compat: whether OpenAI's routes answer as text-generation-inference does. kserve: whether there are KServe's.
    """
    style = TGI if tgi_compat else OPENAI
    forms = _forms(style)
    cors = Middleware(
        CORSMiddleware,
        allow_origins=list(cors_allow_origin or ["*"]),
        allow_methods=["GET", "POST"],
        allow_headers=["content-type", "authorization", *_ANTHROPIC_HEADERS],
    )
    guard = [Middleware(KeyGuard, key=api_key, forms=forms)] if api_key is not None else []

    async def answer_error(request: Request, error: Exception) -> Response:
        told = error if isinstance(error, ApiError) else unrouted(error)
        return json_error(told, _form(request.url.path, forms))

    return Starlette(
        routes=[*PageRoutes(services).routes(), *endpoints(services, style, kserve)],
        middleware=[cors, *guard],
        exception_handlers=dict.fromkeys((ApiError, 404, 405, 500), answer_error),
    )


def endpoints(services: Services, style: Style, kserve: bool) -> list[Endpoint]:
    """All routes."""
    native, completions, chats = NativeRoutes(services), CompletionRoutes(services, style), ChatRoutes(services, style)
    apis: list[Api] = [
        native,
        TokenRoutes(services),
        ServiceRoutes(services),
        ModelRoutes(services),
        completions,
        chats,
        ResponseRoutes(services),
        MessageRoutes(services),
        CloudRoutes(services, native, chats, completions),
        *([KServeRoutes(services)] if kserve else []),
    ]
    found = [endpoint for api in apis for endpoint in api.routes()]
    return [*found, *DocumentRoutes(found, services.info["version"]).routes()]


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


def make_metrics_app(services: Services) -> Starlette:
    """An application that only has `/metrics`, for the port of its own."""
    return Starlette(routes=[Route("/metrics", ServiceRoutes(services).metrics, methods=["GET"])])


class KeyGuard:
    """Lets POST requests pass that bring the key. Browsers' preflight requests and GET routes need none."""

    def __init__(self, app: ASGIApp, key: str, forms: Forms) -> None:
        self._app = app
        self._forms = forms
        self._key = key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, or answer 401."""
        if scope["type"] == "http" and scope["method"] == "POST" and not self._knows_key(scope):
            await json_error(Unauthorized(), _form(scope["path"], self._forms))(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _knows_key(self, scope: Scope) -> bool:
        return any(secrets.compare_digest(key, self._key) for key in _keys(scope))


def _keys(scope: Scope) -> Iterator[bytes]:
    """The keys that a request brings: as OpenAI's clients do, or as Anthropic's."""
    for name, value in scope["headers"]:
        if name == b"x-api-key":
            yield value.strip()
        elif name == b"authorization":
            scheme, _, key = value.partition(b" ")
            if scheme.lower() == b"bearer":
                yield key.strip()
