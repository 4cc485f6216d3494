"""uvicorn as this router runs it. Knows no routes."""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator

import uvicorn
from loguru import logger
from starlette.types import ASGIApp

from text_generation_router.errors import StartError
from text_generation_router.head_limit import LimitedHeadProtocol
from text_generation_server.reservations.ports import PortReservation


class HttpServer(uvicorn.Server):
    """uvicorn without its signal handlers: to stop means more here than to serve no more HTTP.

    tell: called with each socket from when connections are taken there.
    """

    def __init__(self, app: ASGIApp, tell: Callable[[socket.socket], None] | None = None) -> None:
        self._tell = tell
        self._opening: set[asyncio.Task[object]] = set()
        super().__init__(
            uvicorn.Config(
                app,
                http=LimitedHeadProtocol,
                log_config=None,
                access_log=False,
                lifespan="off",
                ws="none",
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=75,
            )
        )

    async def serve_at(self, place: PortReservation) -> None:
        """Serve at a reserved port until told to stop. Raises StartError if others have taken it all the same."""
        place.share()  # a socket that shares nothing cannot listen while connections of an earlier server linger
        await self.serve(sockets=[place.socket])

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """See uvicorn."""
        try:
            await super().startup(sockets)
        except OSError as error:
            raise StartError(f"cannot listen: {error}") from error
        if self._tell is not None:
            for listener in sockets or ():
                self._tell(listener)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def take(self, connection: socket.socket) -> None:
        """Serve a connection that somebody else has accepted. `serve` must run, without sockets."""
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as the loop does where it accepts itself
        loop = asyncio.get_running_loop()
        opening = loop.create_task(loop.connect_accepted_socket(self._protocol, connection))
        self._opening.add(opening)
        opening.add_done_callback(self._opening.discard)

    def _protocol(self) -> LimitedHeadProtocol:
        return LimitedHeadProtocol(self.config, self.server_state, self.lifespan.state)


def tell_address(listener: socket.socket) -> None:
    """Say that connections are taken."""
    logger.info("Connected; listening on {}:{}", *listener.getsockname()[:2])
