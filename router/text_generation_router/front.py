"""What answers HTTP: this process, or workers. Knows neither shards nor signals."""

import asyncio
from collections.abc import Sequence
from typing import Protocol

from text_generation_router.app import make_app
from text_generation_router.backend import Exposition
from text_generation_router.handshake import Facts
from text_generation_router.http_server import HttpServer, tell_address
from text_generation_router.model_text import ModelText, load_model
from text_generation_router.parts import BatchSide, make_services
from text_generation_router.routes.services import Services
from text_generation_router.settings import Settings
from text_generation_server.reservations.ports import PortReservation
from text_generation_server.tracing import Tracing


class Front(Protocol):
    """Answers HTTP, from `load` and then `begin` to `close`. figures: from `begin` on."""

    figures: Exposition

    async def load(self) -> None:
        """Read the model's files. Raises StartError."""

    async def begin(self, side: BatchSide, facts: Facts) -> None:
        """Get ready to answer from what makes batches. Raises StartError."""

    async def serve(self, place: PortReservation) -> None:
        """Answer until told to stop, and then until all have their answers. Raises StartError."""

    def stop(self, at_once: bool = False) -> None:
        """Accept no more requests. at_once: answer none of them any more."""

    async def close(self) -> None:
        """Give back what is held."""


class LocalFront:
    """In this process. See `Front`."""

    figures: Exposition

    def __init__(self, settings: Settings, keys: Sequence[str], tracing: Tracing | None, keep_alive_s: float) -> None:
        self._settings = settings
        self._keys = keys
        self._tracing = tracing
        self._keep_alive_s = keep_alive_s
        self._model: ModelText
        self._services: Services | None = None
        self._server: HttpServer

    async def load(self) -> None:
        self._model = await asyncio.to_thread(load_model, self._settings)

    async def begin(self, side: BatchSide, facts: Facts) -> None:
        services = make_services(self._settings, facts, self._model, side.backend, side.metrics, self._keep_alive_s)
        self._services, self.figures = services, side.backend.figures
        self._server = http_server(services, self._settings, self._keys, self._tracing)

    async def serve(self, place: PortReservation) -> None:
        await self._server.serve_at(place)

    def stop(self, at_once: bool = False) -> None:
        self._server.should_exit = True
        self._server.force_exit = at_once

    async def close(self) -> None:
        if self._services is not None:
            self._services.validator.prompts.close()


def http_server(services: Services, settings: Settings, keys: Sequence[str], tracing: Tracing | None) -> HttpServer:
    """The server of all routes."""
    origins, compat, page = settings.cors_allow_origin, settings.tgi_compat, not settings.disable_playground
    return HttpServer(make_app(services, origins, keys, tracing, compat, settings.kserve, page), tell_address)
