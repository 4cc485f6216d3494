"""Accepts connections and hands them on in turn, so that all workers get as many, however few there are.

Knows neither what is said on them nor who takes them.
"""

import asyncio
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress

from text_generation_router.errors import StartError

_BACKLOG = 2048

_AT_ONCE = 64
"""Connections that are accepted between two turns of the loop."""

_PAUSE_S = 0.01
"""For takers that have more connections waiting than their sockets hold."""


class Doorman:
    """takers: where connections may be sent at present; a closed one is passed over. Raises StartError."""

    def __init__(self, listener: socket.socket, takers: Callable[[], Sequence[socket.socket]]) -> None:
        try:
            listener.listen(_BACKLOG)
        except OSError as error:
            raise StartError(f"cannot listen: {error}") from error
        listener.setblocking(False)
        self._listener = listener
        self._takers = takers
        self._turn = 0
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(listener, self._accept)

    def close(self) -> None:
        """Accept no more."""
        if self._listener.fileno() >= 0:
            self._loop.remove_reader(self._listener)
            self._listener.close()

    def _accept(self) -> None:
        """Hand on some of the connections that wait; the others have the loop call again."""
        for _ in range(_AT_ONCE):
            try:
                connection, _ = self._listener.accept()
            except OSError:  # there is none any more, or its client has gone
                return
            if not self._hand_on(connection):
                self._loop.remove_reader(self._listener)
                self._try_again(connection)
                return

    def _hand_on(self, connection: socket.socket) -> bool:
        """To whose turn it is, or the next that takes it. False if nobody does, for they are behind."""
        takers = self._takers()
        for _ in takers:
            self._turn = (self._turn + 1) % len(takers)
            with suppress(OSError):
                socket.send_fds(takers[self._turn], [b"c"], [connection.fileno()])
                connection.close()
                return True
        return False

    def _try_again(self, connection: socket.socket) -> None:
        """Accept no more before somebody has taken this one."""
        if self._listener.fileno() < 0:
            connection.close()
        elif self._hand_on(connection):
            self._loop.add_reader(self._listener, self._accept)
        else:
            self._loop.call_later(_PAUSE_S, self._try_again, connection)
