"""`/v1/models`: what is served, as OpenAI lists models. Knows no generations."""

import json
import time
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from text_generation_router.errors import NoSuchModel
from text_generation_router.routes.endpoint import Endpoint
from text_generation_router.routes.services import Services


class ModelRoutes:
    """The handlers, over what they list."""

    def __init__(self, services: Services) -> None:
        self._base, self._adapters, self._created = services.info["model_id"], services.adapters, int(time.time())

    def routes(self) -> list[Endpoint]:
        """All routes of this kind."""
        return [
            Endpoint("GET", "/v1/models", self.models, id="openai_get_model_info"),
            Endpoint(
                "GET",
                "/v1/models/{name:path}",
                self.model,
                id="openai_get_model",
                fails=(404,),
                values={"name": "smollm2"},
            ),
        ]

    async def models(self, _: Request) -> Response:
        """The model, and each adapter of it."""
        return _answer({"object": "list", "data": list(self._models().values())})

    async def model(self, request: Request) -> Response:
        """The model, or the adapter, of a name."""
        name, models = request.path_params["name"], self._models()
        if name not in models:
            raise NoSuchModel(name)
        return _answer(models[name])

    def _models(self) -> dict[str, dict[str, Any]]:
        base = self._base
        model: dict[str, Any] = {"id": base, "object": "model", "created": self._created, "owned_by": base}
        adapters = [model | {"id": name, "root": name, "parent": base} for name in self._adapters.names]
        return {each["id"]: each for each in (model, *adapters)}


def _answer(content: dict[str, Any]) -> Response:
    return Response(json.dumps(content), media_type="application/json")
