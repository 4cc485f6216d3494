"""The playground: a page at `/` for browsers, made of the files in `page/`. Knows nothing of what the page asks for."""

from hashlib import sha256
from pathlib import Path

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Scope

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

    def __init__(self) -> None:
        paths = [path for path in sorted(_FILES.rglob("*.*")) if path.suffix in _TYPES]
        self._files = {
            path.relative_to(_FILES).as_posix(): _File(path.read_bytes(), _TYPES[path.suffix]) for path in paths
        }

    def routes(self) -> list[Route]:
        """All routes of the page. `/` is left to others where no page is wanted."""
        return [
            _ForBrowsers("/", self.index, methods=["GET"]),
            Route("/playground/{name:path}", self.file, methods=["GET"]),
        ]

    async def index(self, request: Request) -> Response:
        """The page itself."""
        return self._answer(request, "index.html")

    async def file(self, request: Request) -> Response:
        """One of its parts."""
        return self._answer(request, request.path_params["name"])

    def _answer(self, request: Request, name: str) -> Response:
        file = self._files.get(name)
        if file is None:
            raise HTTPException(404)
        headers = {**_HEADERS, "etag": file.tag}
        if file.tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(file.content, headers=headers, media_type=file.media_type)


class _File:
    """What is sent of one, and its tag, by which a browser that has it asks whether it still is the same."""

    def __init__(self, content: bytes, media_type: str) -> None:
        self.content = content
        self.media_type = media_type
        self.tag = f'"{sha256(content).hexdigest()[:32]}"'


class _ForBrowsers(Route):
    """A route for those who say that they read HTML: curl and the clients of the API take anything, and say so."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """See starlette."""
        if scope["type"] != "http" or "text/html" not in Headers(scope=scope).get("accept", ""):
            return Match.NONE, {}
        return super().matches(scope)
