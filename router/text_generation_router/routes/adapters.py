"""Adapters loaded, listed, pinned and dropped over HTTP: kv.run's route, ours, and those that vLLM's users script."""

import json
from typing import Any

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from text_generation_router.errors import AdapterRefused
from text_generation_router.responses import read_json
from text_generation_router.routes.endpoint import TEXT, Endpoint
from text_generation_router.routes.services import Services
from text_generation_router.schemas import Body
from text_generation_server.errors import excerpt


class DownloadBody(Body):
    """Body of `/download_lora_adapter`. lora_id: directories or hub ids with semicolons, which are the names too."""

    lora_id: str
    hf_api_token: str | None = None


class LoadBody(Body):
    """Body of `/v1/load_lora_adapter`."""

    lora_name: str
    lora_path: str
    load_inplace: bool | None = None


class UnloadBody(Body):
    """Body of `/v1/unload_lora_adapter`."""

    lora_name: str


class AdapterRoutes:
    """The handlers, over what they change."""

    def __init__(self, services: Services) -> None:
        self._adapters = services.adapters
        self._payload_limit = services.payload_limit

    def routes(self) -> list[Endpoint]:
        """All routes of this kind."""
        law: dict[str, Any] = {"values": {"name": "owner/law"}, "answers": (), "fails": (404, 501)}
        loaded: dict[str, Any] = {"answers": (TEXT,), "fails": (404, 501, 507)}
        both = {"lora_name": "law", "lora_path": "/adapters/law"}
        return [
            Endpoint(
                *("POST", "/download_lora_adapter", self.download),
                id="download_lora_adapter", body=DownloadBody, example={"lora_id": "owner/law"},
                **{**loaded, "answers": ()},
            ),
            Endpoint("GET", "/lora_adapters", self.listed, id="lora_adapters", fails=(501,)),
            Endpoint("POST", "/lora_adapters/{name:path}/pin", self.pin, id="pin_lora_adapter", **law),
            Endpoint("POST", "/lora_adapters/{name:path}/unpin", self.unpin, id="unpin_lora_adapter", **law),
            Endpoint("DELETE", "/lora_adapters/{name:path}", self.delete, id="delete_lora_adapter", **law),
            Endpoint(
                *("POST", "/v1/load_lora_adapter", self.load),
                id="load_lora_adapter", body=LoadBody, example=both, **loaded,
            ),
            Endpoint(
                *("POST", "/v1/unload_lora_adapter", self.unload),
                id="unload_lora_adapter", body=UnloadBody, example={"lora_name": "law"}, **loaded,
            ),
        ]  # fmt: skip

    async def download(self, request: Request) -> Response:
        """Fetch and load; answers when the next request can name them."""
        body = await read_json(request, DownloadBody, self._payload_limit)
        names = [name.strip() for name in body.lora_id.split(";") if name.strip()]
        if not names:
            raise AdapterRefused(422, "`lora_id` is empty; name a directory or a hub id")
        for name in names:
            await self._adapters.load(name, name, body.hf_api_token)
        return Response()

    async def listed(self, _: Request) -> Response:
        """All that requests may name."""
        return Response(json.dumps({"adapters": await self._adapters.listed()}), media_type="application/json")

    async def delete(self, request: Request) -> Response:
        """Free a name."""
        await self._adapters.unload(request.path_params["name"])
        return Response()

    async def pin(self, request: Request) -> Response:
        """Keep in memory."""
        await self._adapters.pin(request.path_params["name"], True)
        return Response()

    async def unpin(self, request: Request) -> Response:
        """Keep no longer."""
        await self._adapters.pin(request.path_params["name"], False)
        return Response()

    async def load(self, request: Request) -> Response:
        """Load a local or a hub's adapter; a name that is there is replaced only if the body says so."""
        body = await read_json(request, LoadBody, self._payload_limit)
        name = body.lora_name
        if name in self._adapters and not body.load_inplace:
            raise AdapterRefused(
                400, f"The lora adapter {excerpt(name)!r} has already been loaded; `load_inplace` replaces it"
            )
        await self._adapters.load(name, body.lora_path)
        return PlainTextResponse(f"Success: LoRA adapter '{name}' added successfully.")

    async def unload(self, request: Request) -> Response:
        """Free a name."""
        body = await read_json(request, UnloadBody, self._payload_limit)
        await self._adapters.unload(body.lora_name)
        return PlainTextResponse(f"Success: LoRA adapter '{body.lora_name}' removed successfully.")
