"""Everything about the server rather than a generation: health, info, metrics."""

import json
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response

from text_generation_router.backend import Exposition
from text_generation_router.routes.answer_schemas import Info
from text_generation_router.routes.endpoint import TEXT, Endpoint
from text_generation_router.routes.services import Services


class ServiceRoutes:
    """The handlers, over what they report on."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def routes(self) -> list[Endpoint]:
        """All routes of this kind."""
        checks = {"/": "root", "/health": "health", "/ping": "ping"}
        return [
            *(Endpoint("GET", path, self.health, id=id, answers=(), fails=(503,)) for path, id in checks.items()),
            Endpoint("GET", "/health/live", self.live, id="live", answers=()),
            Endpoint("GET", "/health/ready", self.ready, id="ready", answers=(), fails=(503,)),
            Endpoint("GET", "/info", self.info, id="get_model_info", schema=Info),
            Endpoint("GET", "/metrics", self.metrics, id="metrics", answers=(TEXT,)),
        ]

    async def health(self, _: Request) -> Response:
        """Whether the shards can generate; after a failed generation, they are asked for a token."""
        await self._services.health.check()
        return Response()

    async def live(self, _: Request) -> Response:
        """Whether the router runs, whatever its shards do."""
        return Response()

    async def ready(self, request: Request) -> Response:
        """Whether to send requests here, as `/health`; before warm-up and from the order to stop on, nobody listens."""
        return await self.health(request)

    async def info(self, _: Request) -> Response:
        """What is served, and its limits."""
        return Response(json.dumps(self._services.info), media_type="application/json")

    async def metrics(self, request: Request) -> Response:
        """Figures for Prometheus."""
        return await figures_route(self._services.figures)(request)


def figures_route(figures: Exposition) -> Callable[[Request], Awaitable[Response]]:
    """What answers with them."""

    async def answer(_: Request) -> Response:
        return Response(await figures.text(), media_type="text/plain; version=0.0.4")

    return answer
