"""The playground: a page at `/` for browsers, made of the files in `page/`. Knows nothing of what the page asks for."""

from pathlib import Path

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Scope

from text_generation_router.routes.services import Services

_FILES = Path(__file__).parents[1] / "page"
_TYPES = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
_HEADERS = {
    # Only what this server sends, and nothing inline: what a model says can never run.
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "cache-control": "no-cache",
    "referrer-policy": "no-referrer",
    "vary": "accept",
    "x-content-type-options": "nosniff",
}


class PageRoutes:
    """The handlers, over the files, which are read once."""

    def __init__(self, _: Services) -> None:
        self._files = {
            path.relative_to(_FILES).as_posix(): (path.read_bytes(), _TYPES[path.suffix])
            for path in sorted(_FILES.rglob("*.*"))
            if path.suffix in _TYPES
        }

    def routes(self) -> list[Route]:
        """All routes of the page. `/` is left to others where no page is wanted."""
        return [
            _ForBrowsers("/", self.index, methods=["GET"]),
            Route("/playground/{name:path}", self.file, methods=["GET"]),
        ]

    async def index(self, _: Request) -> Response:
        """The page itself."""
        return self._answer("index.html")

    async def file(self, request: Request) -> Response:
        """One of its parts."""
        return self._answer(request.path_params["name"])

    def _answer(self, name: str) -> Response:
        if name not in self._files:
            raise HTTPException(404)
        content, media_type = self._files[name]
        return Response(content, headers=_HEADERS, media_type=media_type)


class _ForBrowsers(Route):
    """A route for those who say that they read HTML: curl and the clients of the API take anything, and say so."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """See starlette."""
        if scope["type"] != "http" or "text/html" not in Headers(scope=scope).get("accept", ""):
            return Match.NONE, {}
        return super().matches(scope)
