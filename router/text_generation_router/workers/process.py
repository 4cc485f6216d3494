"""A worker's process as the one has it that starts it. Knows nothing of requests."""

import asyncio
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from typing import Any, Self

from text_generation_router.errors import StartError
from text_generation_router.workers.link import Link, LinkLost
from text_generation_router.workers.peer import Peer

END_S = 2.0
"""Within which a worker must end that is told to end at once."""


class Worker:
    """A process, and how it is reached. connections: where it gets them."""

    def __init__(self, peer: Peer, process: "subprocess.Popen[bytes]", connections: socket.socket) -> None:
        self.peer = peer
        self.connections = connections
        self._process = process

    @classmethod
    async def spawned(cls, peer: Peer) -> Self:
        """A new one, which is `peer`."""
        ours, theirs = socket.socketpair()
        giving, given = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        fds = theirs.fileno(), given.fileno()
        command = [sys.executable, "-m", "text_generation_router.workers", *map(str, fds)]
        with theirs, given:
            # Not through the loop, which forks: gRPC's handlers of that want its threads to be idle.
            # In a group of its own: who is at a terminal interrupts this process, which then ends its workers.
            process = subprocess.Popen(command, pass_fds=fds, stdin=subprocess.DEVNULL, process_group=0)
        giving.setblocking(False)
        peer.link = await Link.over(ours, peer)
        return cls(peer, process, giving)

    async def asked(self, question: Callable[..., Awaitable[Any]], *arguments: Any) -> None:
        """Wait for what it is to do at its start. Raises StartError."""
        try:
            await question(*arguments)
        except LinkLost as error:
            raise StartError(f"a worker process ended at its start, with {await self.ended()}") from error

    async def ended(self) -> int:
        """Its exit code, once it has one."""
        return await asyncio.to_thread(self._process.wait)

    def stop(self, at_once: bool) -> None:
        """Have it end when it has answered what it was asked, or at once."""
        self.peer.link.note("stop", at_once)
        if at_once:
            asyncio.get_running_loop().call_later(END_S, self._process.kill)

    def hang_up(self) -> None:
        """Have it end as it is."""
        self.peer.link.close()
        self.connections.close()

    async def end(self) -> None:
        """Return when it has ended after that, or was killed."""
        try:
            await asyncio.wait_for(self.ended(), END_S)
        except TimeoutError:
            self._process.kill()
            await self.ended()
