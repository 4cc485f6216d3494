"""`/v1/models`: what is served, as OpenAI lists models. Knows no generations."""

import json
import time
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from text_generation_router.errors import NoSuchModel
from text_generation_router.routes.services import Services


class ModelRoutes:
    """The handlers, over what they list."""

    def __init__(self, services: Services) -> None:
        name = services.info["model_id"]
        self._model: dict[str, Any] = {"id": name, "object": "model", "created": int(time.time()), "owned_by": name}

    def routes(self) -> list[Route]:
        """All routes of this kind."""
        return [
            Route("/v1/models", self.models, methods=["GET"]),
            Route("/v1/models/{name:path}", self.model, methods=["GET"]),
        ]

    async def models(self, _: Request) -> Response:
        """All of them: one."""
        return _answer({"object": "list", "data": [self._model]})

    async def model(self, request: Request) -> Response:
        """The one of a name."""
        name = request.path_params["name"]
        if name != self._model["id"]:
            raise NoSuchModel(name)
        return _answer(self._model)


def _answer(content: dict[str, Any]) -> Response:
    return Response(json.dumps(content), media_type="application/json")
