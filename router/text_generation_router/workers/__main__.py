"""A worker process: answers HTTP, and asks the process that has started it for everything else."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Sequence
from typing import Any

from text_generation_router.errors import ApiError
from text_generation_router.event_loop import new_event_loop, spare_collector
from text_generation_router.front import http_server
from text_generation_router.handshake import Facts
from text_generation_router.http_server import HttpServer
from text_generation_router.log import set_up_logging
from text_generation_router.metrics import Metrics
from text_generation_router.model_text import ModelText, load_model
from text_generation_router.parts import make_metrics, make_services
from text_generation_router.settings import Settings
from text_generation_router.traces import tracing_of
from text_generation_router.types import Generation
from text_generation_router.workers.link import Link
from text_generation_router.workers.remote import RemoteAdapters, RemoteRuns, remote_backend
from text_generation_server.tracing import Tracing


class Worker:
    """This process. Its methods `on_…` are what the other says."""

    link: Link

    def __init__(self, connections: socket.socket) -> None:
        self.ended = asyncio.Event()
        self._connections = connections
        self._settings: Settings
        self._keys: Sequence[str]
        self._keep_alive_s: float
        self._model: ModelText
        self._tracing: Tracing | None
        self._metrics: Metrics
        self._runs: RemoteRuns
        self._adapters: RemoteAdapters
        self._server: HttpServer

    async def on_start(self, settings: Settings, keys: Sequence[str], keep_alive_s: float) -> None:
        """Read the model's files. Raises StartError."""
        set_up_logging(settings.log_level, settings.json_output)
        self._settings, self._keys, self._keep_alive_s = settings, keys, keep_alive_s
        self._tracing = tracing_of(settings.otlp_endpoint, settings.otlp_service_name)
        self._model = await asyncio.to_thread(load_model, settings)

    def on_begin(self, facts: Facts, names: Sequence[str]) -> None:
        """Answer requests."""
        self._metrics = make_metrics(self._settings, facts)
        self._runs, self._adapters = RemoteRuns(self.link, self._tracing), RemoteAdapters(self.link, names)
        backend = remote_backend(self.link, self._runs, self._adapters)
        services = make_services(self._settings, facts, self._model, backend, self._metrics, self._keep_alive_s)
        self._server = http_server(services, self._settings, self._keys, self._tracing)
        loop = asyncio.get_running_loop()
        spare_collector()
        loop.add_reader(self._connections, self._take)
        self._serving = loop.create_task(self._serve())

    def on_step(self, key: int, batched: float, event: Generation | ApiError) -> None:
        """A request has got something."""
        self._runs.step(key, batched, event)

    def on_names(self, names: Sequence[str]) -> None:
        """So clients may call adapters from now on."""
        self._adapters.names = names

    def on_state(self) -> list[Any]:
        """What was counted here."""
        return self._metrics.registry.state()

    def on_stop(self, at_once: bool) -> None:
        """Answer what has been asked, and end."""
        self._take()  # what was accepted before
        self._server.should_exit = True
        self._server.force_exit = at_once

    def _take(self) -> None:
        """Serve the connections that have come."""
        while True:
            try:
                _, fds, _, _ = socket.recv_fds(self._connections, 1, 1)
            except BlockingIOError:
                return
            if not fds:  # nobody sends any more
                asyncio.get_running_loop().remove_reader(self._connections)
                return
            self._server.take(socket.socket(fileno=fds[0]))

    async def _serve(self) -> None:
        try:
            await self._server.serve(sockets=[])
        finally:
            self.ended.set()

    def close(self) -> None:
        """Send what is left of traces."""
        if self._tracing is not None:
            self._tracing.close()


async def work(link: socket.socket, connections: socket.socket) -> None:
    """Answer until told to end. Ends at once if the other process has."""
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, lambda: None)  # the other process says when
    connections.setblocking(False)
    worker = Worker(connections)
    worker.link = await Link.over(link, worker)
    ended = asyncio.ensure_future(worker.ended.wait())
    await asyncio.wait((ended, worker.link.lost), return_when=asyncio.FIRST_COMPLETED)
    if not ended.done():
        os._exit(1)  # nobody is left to ask, and threads may be busy
    worker.close()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(work(*(socket.socket(fileno=int(fd)) for fd in sys.argv[1:])))
