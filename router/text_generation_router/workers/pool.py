"""The workers: started, given connections in turn, replaced when they die, and ended. See `Front`.

Connections are accepted here and handed on, so that each worker gets as many as the others, however few there are.
"""

import asyncio
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Sequence

from loguru import logger

from text_generation_router.backend import Exposition
from text_generation_router.errors import StartError
from text_generation_router.handshake import Facts
from text_generation_router.http_server import tell_address
from text_generation_router.metrics import Metrics
from text_generation_router.parts import BatchSide, make_metrics
from text_generation_router.settings import Settings
from text_generation_router.workers.link import Link, LinkLost
from text_generation_router.workers.peer import Peer
from text_generation_server.reservations.ports import PortReservation

_BACKLOG = 2048
_MOST_DEATHS, _WITHIN_S = 3, 60.0
"""More than so many workers that die in such a time are no accident."""
_END_S = 2.0
"""Within which a worker must end that is told to end at once."""


class _Worker:
    """One process, and how it is reached. connections: where it gets them."""

    def __init__(self, peer: Peer, process: "subprocess.Popen[bytes]", connections: socket.socket) -> None:
        self.peer = peer
        self.process = process
        self.connections = connections

    async def ended(self) -> int:
        """Its exit code, once it has one."""
        return await asyncio.to_thread(self.process.wait)

    def close(self) -> None:
        """Hang up, so that it ends."""
        self.peer.link.close()
        self.connections.close()


class WorkerPool:
    """See `Front`. keep_alive_s: see `Services`."""

    def __init__(self, settings: Settings, keys: Sequence[str], keep_alive_s: float) -> None:
        self.figures: Exposition = self
        self._settings = settings
        self._start_message = settings, keys, keep_alive_s
        self._workers: list[_Worker] = []
        self._started: set[_Worker] = set()  # those among them that are ready, and others that hold something still
        self._facts: Facts
        self._side: BatchSide
        self._gone: Metrics  # what workers counted that are no more
        self._deaths: list[float] = []
        self._stopping = asyncio.Event()
        self._listener: socket.socket | None = None
        self._next = 0

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
        try:
            place.socket.listen(_BACKLOG)
        except OSError as error:
            raise StartError(f"cannot listen: {error}") from error
        self._listener = place.socket
        self._listener.setblocking(False)
        asyncio.get_running_loop().add_reader(self._listener, self._accept)
        tell_address(self._listener)
        keeping = [asyncio.ensure_future(self._keep(place)) for place in range(len(self._workers))]
        try:
            await asyncio.gather(*keeping)
        finally:
            self._listen_no_more()
            for task in keeping:
                task.cancel()

    def stop(self, at_once: bool = False) -> None:
        """See `Front`."""
        self._stopping.set()
        self._listen_no_more()
        for worker in self._workers:
            worker.peer.link.note("stop", at_once)
            if at_once:
                asyncio.get_running_loop().call_later(_END_S, worker.process.kill)

    async def close(self) -> None:
        """See `Front`."""
        for worker in self._started:
            worker.close()
        for worker in self._started:
            try:
                await asyncio.wait_for(worker.ended(), _END_S)
            except TimeoutError:
                worker.process.kill()
                await worker.ended()

    async def text(self) -> str:
        """The figures of all processes together. See `Exposition`."""
        states = await asyncio.gather(*(worker.peer.ask_state() for worker in self._workers))
        whole = make_metrics(self._settings, self._facts).registry
        for state in (self._side.metrics.registry.state(), self._gone.registry.state(), *states):
            if state is not None:
                whole.include(state)
        return whole.text()

    # -- workers

    async def _start(self) -> _Worker:
        """A worker that has read the model's files. Raises StartError."""
        ours, theirs = socket.socketpair()
        giving, given = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        fds = theirs.fileno(), given.fileno()
        command = [sys.executable, "-m", "text_generation_router.workers", *map(str, fds)]
        with theirs, given:
            # Not through the loop, which forks: gRPC's handlers of that want its threads to be idle.
            process = subprocess.Popen(command, pass_fds=fds, stdin=subprocess.DEVNULL)
        giving.setblocking(False)
        peer = Peer(self.text, self._tell_names)
        peer.link = await Link.over(ours, peer)
        worker = _Worker(peer, process, giving)
        self._started.add(worker)
        await self._ask(worker, peer.link.call("start", *self._start_message))
        return worker

    async def _begin(self, worker: _Worker) -> None:
        await self._ask(worker, worker.peer.begin(self._side, self._facts, self._side.backend.adapters.names))

    async def _ask(self, worker: _Worker, asking: Awaitable[None]) -> None:
        """Wait for what a worker is to do at its start."""
        try:
            await asking
        except LinkLost as error:
            raise StartError(f"a worker process ended at its start, with {await worker.ended()}") from error

    async def _keep(self, place: int) -> None:
        """Have a worker at a place until told to stop."""
        while True:
            worker = self._workers[place]
            await worker.peer.link.lost
            code = await worker.ended()
            worker.peer.drop()
            if worker.peer.state is not None:
                self._gone.registry.include(worker.peer.state)
                worker.peer.state = None
            if self._stopping.is_set():
                return
            self._note_death(code)
            worker.close()
            self._started.discard(worker)
            starting, stopping = asyncio.ensure_future(self._successor()), asyncio.ensure_future(self._stopping.wait())
            try:
                await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
                if self._stopping.is_set():
                    return
                self._workers[place] = starting.result()
            finally:
                starting.cancel()
                stopping.cancel()

    async def _successor(self) -> _Worker:
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

    # -- connections

    def _accept(self) -> None:
        """Hand on the connections that wait."""
        assert self._listener is not None
        for _ in range(_BACKLOG):
            try:
                connection, _ = self._listener.accept()
            except OSError:  # there is none any more, or its client has gone
                return
            with connection:
                self._hand_on(connection)

    def _hand_on(self, connection: socket.socket) -> None:
        """To the worker whose turn it is, or the next that lives; none: the client is hung up on."""
        for _ in self._workers:
            self._next = (self._next + 1) % len(self._workers)
            try:
                socket.send_fds(self._workers[self._next].connections, [b"c"], [connection.fileno()])
                return
            except OSError:
                continue

    def _listen_no_more(self) -> None:
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            self._listener = None
