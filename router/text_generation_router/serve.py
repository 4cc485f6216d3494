"""The router from start to exit: port, handshake, and the end, asked for or not. Knows neither signals nor routes."""

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any

import uvicorn
from loguru import logger
from starlette.applications import Starlette

from text_generation_router.app import make_app, make_metrics_app
from text_generation_router.errors import ShardError, StartError
from text_generation_router.handshake import shake_hands
from text_generation_router.parts import make_services
from text_generation_router.routes.services import Services
from text_generation_router.settings import Settings, listen_address
from text_generation_router.tokenizer import Backend, find_model, load_backend

KEEP_ALIVE_S = 15.0
"""Silence after which a stream gets a comment."""

_LAST_ANSWERS_S = 1.0
"""How long clients are still answered after a shard was lost, so that they learn it."""


async def serve(settings: Settings, stop: asyncio.Event, keep_alive_s: float = KEEP_ALIVE_S) -> int:
    """Serve until `stop` is set, then finish what runs and return 0. Returns 1 when a shard is lost.

    Raises StartError. The port is taken at once, but opens only after warm-up.
    """
    with _bind(settings.hostname, settings.port) as listener:
        starting = asyncio.ensure_future(_start(settings, keep_alive_s))
        if not await _finishes_before(starting, stop):
            return 0
        services = starting.result()
        try:
            app = make_app(services, settings.cors_allow_origin, settings.api_key)
            async with _metrics_port(services, settings):
                return await _run(_Server(app, _tell_address), services, listener, stop)
        finally:
            services.tokenizer.close()
            await services.shards.close()


async def _start(settings: Settings, keep_alive_s: float) -> Services:
    """Warm the shards up, and load the tokenizer meanwhile."""
    loading = asyncio.ensure_future(asyncio.to_thread(_load_tokenizer, settings))
    try:
        ready = await shake_hands(settings)
    except BaseException:
        loading.cancel()
        raise
    try:
        backend, sha = await loading
    except BaseException:
        await ready.shards.close()
        raise
    return make_services(settings, ready, backend, sha, keep_alive_s)


def _load_tokenizer(settings: Settings) -> tuple[Backend, str | None]:
    directory, sha = find_model(settings.tokenizer_name, settings.revision)
    return load_backend(directory, settings.trust_remote_code), sha


async def _run(server: "_Server", services: Services, listener: socket.socket, stop: asyncio.Event) -> int:
    """Serve until stopped or a shard is lost; the result is the exit code."""
    serving = asyncio.ensure_future(server.serve(sockets=[listener]))
    stopping = asyncio.ensure_future(stop.wait())
    faults = [asyncio.ensure_future(services.batcher.run()), asyncio.ensure_future(services.shards.lost())]
    try:
        await asyncio.wait((serving, stopping, *faults), return_when=asyncio.FIRST_COMPLETED)
        server.should_exit = stopping.done()
        # From here on no request is accepted; those under way still need the shards.
        await asyncio.wait((serving, *faults), return_when=asyncio.FIRST_COMPLETED)
        lost = any(fault.done() for fault in faults)
        if lost:
            _log_faults(faults)
            services.batcher.give_up()
            await asyncio.sleep(_LAST_ANSWERS_S)
            server.should_exit = server.force_exit = True
            await serving
        return 1 if lost else 0
    finally:
        await _cancel([serving, stopping, *faults])


def _tell_address(listener: socket.socket) -> None:
    logger.info("Connected; listening on {}:{}", *listener.getsockname()[:2])


def _log_faults(faults: Iterable[asyncio.Future[None]]) -> None:
    for fault in faults:
        error = fault.exception() if fault.done() else None
        if error is None or isinstance(error, ShardError):
            continue
        logger.opt(exception=error).error("The batching task failed")
    logger.error("A shard is gone; stopping")


@contextlib.asynccontextmanager
async def _metrics_port(services: Services, settings: Settings) -> AsyncIterator[None]:
    """Serve /metrics on its own port too; that it is taken is no reason not to serve."""
    if settings.prometheus_port in (0, settings.port):
        yield
        return
    try:
        listener = _bind(settings.hostname, settings.prometheus_port)
    except StartError as error:
        logger.warning("Metrics are only on the main port: {}", error)
        yield
        return
    server = _Server(make_metrics_app(services))
    serving = asyncio.ensure_future(server.serve(sockets=[listener]))
    try:
        yield
    finally:
        server.should_exit = True
        await serving


async def _finishes_before(task: asyncio.Future[Services], stop: asyncio.Event) -> bool:
    """Wait for the task, but cancel it when told to stop."""
    stopping = asyncio.ensure_future(stop.wait())
    await asyncio.wait((task, stopping), return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        await _cancel([stopping])
        return True
    await _cancel([task])
    return False


async def _cancel(tasks: Iterable[asyncio.Future[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: to stop means more here than to serve no more HTTP.

    tell: called with each socket from when connections are taken there.
    """

    def __init__(self, app: Starlette, tell: Callable[[socket.socket], None] | None = None) -> None:
        self._tell = tell
        super().__init__(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                lifespan="off",
                ws="none",
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=75,
            )
        )

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """See uvicorn."""
        await super().startup(sockets)
        if self._tell is not None:
            for listener in sockets or ():
                self._tell(listener)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _bind(hostname: str, port: int) -> socket.socket:
    """A socket with the address, not yet listening. Raises StartError if the address cannot be had."""
    address = listen_address(hostname)
    if address is None:
        logger.warning("The host name {!r} is no IP address; listening on 0.0.0.0", hostname)
        address = "0.0.0.0"
    family = socket.AF_INET6 if ipaddress.ip_address(address).version == 6 else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((address, port))
    except OSError as error:
        listener.close()
        raise StartError(f"cannot listen on {address}:{port}: {error.strerror}; choose another --port") from error
    return listener
