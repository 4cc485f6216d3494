"""The workers together: started, replaced when they die, and ended. See `Front`."""

import asyncio
import time
from collections.abc import Sequence

from loguru import logger

from text_generation_router.backend import Exposition
from text_generation_router.errors import StartError
from text_generation_router.handshake import Facts
from text_generation_router.http_server import tell_address
from text_generation_router.metrics import Metrics
from text_generation_router.parts import BatchSide, make_metrics
from text_generation_router.settings import Settings
from text_generation_router.workers.doorman import Doorman
from text_generation_router.workers.peer import Peer
from text_generation_router.workers.process import Worker
from text_generation_server.reservations.ports import PortReservation

_MOST_DEATHS, _WITHIN_S = 3, 60.0
"""More than so many workers that die in such a time are no accident."""


class WorkerPool:
    """See `Front`. keep_alive_s: see `Services`."""

    def __init__(self, settings: Settings, keys: Sequence[str], keep_alive_s: float) -> None:
        self.figures: Exposition = self
        self._settings = settings
        self._start_message = settings, keys, keep_alive_s
        self._workers: list[Worker] = []
        self._spawned: set[Worker] = set()  # those, and others that are not ready yet
        self._facts: Facts
        self._side: BatchSide
        self._gone: Metrics  # what workers counted that are no more
        self._deaths: list[float] = []
        self._stopping = asyncio.Event()
        self._doorman: Doorman | None = None

    async def load(self) -> None:
        """See `Front`: every worker reads the files."""
        starting = [asyncio.ensure_future(self._start()) for _ in range(self._settings.router_workers)]
        try:
            self._workers = list(await asyncio.gather(*starting))
        finally:
            for task in starting:
                task.cancel()

    async def begin(self, side: BatchSide, facts: Facts) -> None:
        """See `Front`."""
        self._side, self._facts, self._gone = side, facts, make_metrics(self._settings, facts)
        await asyncio.gather(*map(self._begin, self._workers))

    async def serve(self, place: PortReservation) -> None:
        """See `Front`. Raises StartError too if workers die again and again."""
        place.share()
        self._doorman = Doorman(place.socket, lambda: [worker.connections for worker in self._workers])
        tell_address(place.socket)
        keeping = [asyncio.ensure_future(self._keep(index)) for index in range(len(self._workers))]
        try:
            await asyncio.gather(*keeping)
        finally:
            self._doorman.close()
            for task in keeping:
                task.cancel()

    def stop(self, at_once: bool = False) -> None:
        """See `Front`."""
        self._stopping.set()
        if self._doorman is not None:
            self._doorman.close()
        for worker in self._workers:
            worker.stop(at_once)

    async def close(self) -> None:
        """See `Front`."""
        for worker in self._spawned:
            worker.hang_up()
        for worker in self._spawned:
            await worker.end()

    async def text(self) -> str:
        """The figures of all processes together. See `Exposition`."""
        states = await asyncio.gather(*(worker.peer.ask_state() for worker in self._workers))
        whole = make_metrics(self._settings, self._facts).registry
        for state in (self._side.metrics.registry.state(), self._gone.registry.state(), *states):
            if state is not None:
                whole.include(state)
        return whole.text()

    async def _start(self) -> Worker:
        """A worker that has read the model's files. Raises StartError."""
        worker = await Worker.spawned(Peer(self.text, self._tell_names))
        self._spawned.add(worker)
        await worker.asked(worker.peer.link.call, "start", *self._start_message)
        return worker

    async def _begin(self, worker: Worker) -> None:
        await worker.asked(worker.peer.begin, self._side, self._facts, self._side.backend.adapters.names)

    async def _keep(self, index: int) -> None:
        """Have a worker at a place until told to stop."""
        while True:
            worker = self._workers[index]
            await worker.peer.link.lost
            code = await worker.ended()
            worker.peer.drop()
            if (state := worker.peer.state) is not None:
                worker.peer.state = None
                self._gone.registry.include(state)
            if self._stopping.is_set():
                return
            self._note_death(code)
            worker.hang_up()
            self._spawned.discard(worker)
            starting, stopping = asyncio.ensure_future(self._successor()), asyncio.ensure_future(self._stopping.wait())
            try:
                await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
                if self._stopping.is_set():
                    return
                self._workers[index] = starting.result()
            finally:
                starting.cancel()
                stopping.cancel()

    async def _successor(self) -> Worker:
        worker = await self._start()
        await self._begin(worker)
        return worker

    def _note_death(self, code: int) -> None:
        now = time.monotonic()
        self._deaths = [*(death for death in self._deaths if now - death < _WITHIN_S), now]
        logger.error("A worker process ended with {}; its requests are lost", code)
        if len(self._deaths) > _MOST_DEATHS:
            raise StartError(f"{len(self._deaths)} worker processes have ended within {_WITHIN_S:g} s; giving up")

    async def _tell_names(self) -> None:
        """Return when all workers know which adapters there are."""
        names = self._side.backend.adapters.names
        calls = [worker.peer.link.call("names", names) for worker in self._workers]
        await asyncio.gather(*calls, return_exceptions=True)
