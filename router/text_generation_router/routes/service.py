"""Everything about the server rather than a generation: health, info, metrics."""

import json

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from text_generation_router.routes.services import Services


class ServiceRoutes:
    """The handlers, over what they report on."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def routes(self) -> list[Route]:
        """All routes of this kind."""
        return [
            *(Route(path, self.health, methods=["GET"]) for path in ("/", "/health", "/ping")),
            Route("/info", self.info, methods=["GET"]),
            Route("/metrics", self.metrics, methods=["GET"]),
        ]

    async def health(self, _: Request) -> Response:
        """Ask the shards; after a failed generation, for a token."""
        await self._services.health.check()
        return Response()

    async def info(self, _: Request) -> Response:
        """What is served, and its limits."""
        return Response(json.dumps(self._services.info), media_type="application/json")

    async def metrics(self, _: Request) -> Response:
        """Prometheus' exposition."""
        return Response(self._services.metrics.registry.text(), media_type="text/plain; version=0.0.4")
