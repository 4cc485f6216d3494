"""The router from start to exit: port, handshake, and the end, asked for or not. Knows neither signals nor routes."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any

from loguru import logger

from text_generation_router.app import make_metrics_app
from text_generation_router.backend import Exposition
from text_generation_router.errors import ShardError, StartError
from text_generation_router.event_loop import spare_collector
from text_generation_router.front import Front, LocalFront
from text_generation_router.handshake import shake_hands
from text_generation_router.http_server import HttpServer
from text_generation_router.keys import read_keys
from text_generation_router.parts import BatchSide, make_batch_side
from text_generation_router.settings import Settings, listen_address
from text_generation_router.traces import NO_TRACES, RecordedTraces, Traces, tracing_of
from text_generation_router.workers.pool import WorkerPool
from text_generation_server.reservations.holders import Taken
from text_generation_server.reservations.ports import PortReservation, reserve_port
from text_generation_server.tracing import Tracing

KEEP_ALIVE_S = 15.0
"""Silence after which a stream gets a comment."""

_IDLE_END_S = 0.5
"""Within which the HTTP server ends if no request runs: it looks ten times a second whether it should."""

_LAST_ANSWERS_S = 1.0
"""How long clients are still answered after a shard was lost or their time was up, so that they learn it."""


async def serve(settings: Settings, stop: asyncio.Event, keep_alive_s: float = KEEP_ALIVE_S) -> int:
    """Serve until `stop` is set, then finish what runs, in the time it gets, and return 0; 1 when a shard is lost.

    Raises StartError. The port is taken at once, but opens only after warm-up.
    """
    keys = read_keys(settings.api_key, settings.api_key_file)
    with _reserve(settings.hostname, settings.port) as place, _tracing(settings) as tracing:
        traces = NO_TRACES if tracing is None else RecordedTraces(tracing)
        front: Front
        if settings.router_workers == 1:
            front = LocalFront(settings, keys, tracing, keep_alive_s)
        else:
            front = WorkerPool(settings, keys, keep_alive_s)
        try:
            starting = asyncio.ensure_future(_start(settings, front, traces))
            if not await _finishes_before(starting, stop):
                return 0
            side = starting.result()
            spare_collector()
            try:
                async with _metrics_port(front.figures, settings):
                    return await _run(front, side, place, stop, settings.graceful_termination_timeout)
            finally:
                await side.shards.close()
        finally:
            await front.close()


@contextlib.contextmanager
def _tracing(settings: Settings) -> Iterator[Tracing | None]:
    """What sends spans, if a collector is asked for. Raises StartError."""
    tracing = tracing_of(settings.otlp_endpoint, settings.otlp_service_name)
    with contextlib.nullcontext() if tracing is None else contextlib.closing(tracing):
        yield tracing


async def _start(settings: Settings, front: Front, traces: Traces) -> BatchSide:
    """Warm the shards up, and read the model's files meanwhile."""
    loading = asyncio.ensure_future(front.load())
    try:
        ready = await shake_hands(settings)
    except BaseException:
        loading.cancel()
        raise
    try:
        await loading
        side = make_batch_side(settings, ready, traces)
        await front.begin(side, ready.facts)
    except BaseException:
        await ready.shards.close()
        raise
    return side


async def _run(front: Front, side: BatchSide, place: PortReservation, stop: asyncio.Event, grace_s: float) -> int:
    """Serve until stopped or a shard is lost; the result is the exit code. Raises StartError if it cannot listen."""
    serving = asyncio.ensure_future(front.serve(place))
    stopping = asyncio.ensure_future(stop.wait())
    faults = [asyncio.ensure_future(side.batcher.run()), asyncio.ensure_future(side.shards.lost())]
    try:
        await asyncio.wait((serving, stopping, *faults), return_when=asyncio.FIRST_COMPLETED)
        if stopping.done():
            front.stop()
        # From here on no request is accepted; those under way still need the shards.
        await asyncio.wait((serving, *faults), timeout=grace_s + _IDLE_END_S, return_when=asyncio.FIRST_COMPLETED)
        lost = any(fault.done() for fault in faults)
        if lost:
            _log_faults(faults)
            side.batcher.give_up()
        elif not serving.done():
            logger.warning("Requests still run {} s after the order to stop; ending them", grace_s)
            side.batcher.give_up("the server stops")
            faults[0].cancel()  # it would go on with what it has given up
        if not serving.done():
            await asyncio.wait((serving,), timeout=_LAST_ANSWERS_S)
            front.stop(at_once=True)
            await serving
        if serving.done():
            serving.result()
        return 1 if lost else 0
    finally:
        await _cancel([serving, stopping, *faults])


def _log_faults(faults: Iterable[asyncio.Future[None]]) -> None:
    for fault in faults:
        error = fault.exception() if fault.done() else None
        if error is None or isinstance(error, ShardError):
            continue
        logger.opt(exception=error).error("The batching task failed")
    logger.error("A shard is gone; stopping")


@contextlib.asynccontextmanager
async def _metrics_port(figures: Exposition, settings: Settings) -> AsyncIterator[None]:
    """Serve /metrics on its own port too; that it is taken is no reason not to serve."""
    if settings.prometheus_port in (0, settings.port):
        yield
        return
    try:
        place = _reserve(settings.hostname, settings.prometheus_port)
    except StartError as error:
        _warn_of_metrics(error)
        yield
        return
    server = HttpServer(make_metrics_app(figures))
    with place:
        serving = asyncio.ensure_future(_serve_metrics(server, place))
        try:
            yield
        finally:
            server.should_exit = True
            await serving


async def _serve_metrics(server: HttpServer, place: PortReservation) -> None:
    try:
        await server.serve_at(place)
    except StartError as error:
        _warn_of_metrics(error)


def _warn_of_metrics(error: StartError) -> None:
    logger.warning("Metrics are only on the main port: {}", error)


async def _finishes_before(task: asyncio.Future[Any], stop: asyncio.Event) -> bool:
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


def _reserve(hostname: str, port: int) -> PortReservation:
    """An address that is ours, but not open yet. Raises StartError if it cannot be had."""
    address = listen_address(hostname)
    if address is None:
        logger.warning("The host name {!r} is no IP address; listening on 0.0.0.0", hostname)
        address = "0.0.0.0"
    try:
        return reserve_port(address, port)
    except (OSError, Taken) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise StartError(f"cannot listen on {address}:{port}: {reason}; choose another port") from error
