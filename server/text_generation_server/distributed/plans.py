"""Rank 0's commands to the other ranks, over a local socket: ordered, a few kilobytes each, nobody waits for an answer.

Knows nothing of what the commands mean. Not a collective: an idle engine may stay silent for days without a time-out.
"""

import os
import time
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import Any, Generic, TypeVar

from text_generation_server.errors import ModelError

C = TypeVar("C")

CONNECT_PATIENCE_S = 600.0
"""How long a follower waits for rank 0 to listen: ranks load at different speeds."""


def plan_socket(uds_path: str) -> str:
    """Where rank 0 of a shard group listens."""
    return f"{uds_path}-plans"


def accept_all(path: str, followers: int) -> list["Connection[Any, Any]"]:
    """A connection to each follower. The socket file exists only until all have connected."""
    # Left by a group that was killed while its ranks connected; a living group would hold the shard sockets.
    Path(path).unlink(missing_ok=True)
    before = os.umask(0o177)
    try:
        listener = Listener(path, family="AF_UNIX", backlog=followers)
    finally:
        os.umask(before)
    with listener:
        return [listener.accept() for _ in range(followers)]


class PlanSender(Generic[C]):
    """Rank 0's end."""

    def __init__(self, path: str, followers: int) -> None:
        self._connections = accept_all(path, followers)

    def send(self, command: C) -> None:
        """Send one command to every follower.

        Raises:
            ModelError: a follower has gone.
        """
        try:
            for connection in self._connections:
                connection.send(command)
        except OSError as error:
            raise ModelError(f"a follower rank has gone: {error}") from error

    def close(self) -> None:
        """Tell the followers that nothing more comes."""
        for connection in self._connections:
            connection.close()


class PlanReceiver(Generic[C]):
    """A follower's end."""

    def __init__(self, path: str) -> None:
        self._connection: Connection[object, C] = connect(path)

    def receive(self) -> C | None:
        """The next command, or None when rank 0 has closed."""
        try:
            command: C = self._connection.recv()
        except (EOFError, OSError):
            return None
        return command

    def close(self) -> None:
        """Stop listening; a `receive` in another thread returns None."""
        self._connection.close()


def connect(path: str) -> "Connection[Any, Any]":
    """A connection to rank 0, which may not listen yet."""
    deadline = time.monotonic() + CONNECT_PATIENCE_S
    while True:
        try:
            return Client(path, family="AF_UNIX")
        except (FileNotFoundError, ConnectionRefusedError) as error:
            if time.monotonic() > deadline:
                raise ModelError(f"rank 0 did not listen on {path} within {CONNECT_PATIENCE_S:.0f} s") from error
            time.sleep(0.05)
