"""Unix sockets of shards: their paths, and having one alone. Knows no grpc."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from text_generation_server.errors import SocketInUse, StartError
from text_generation_server.reservations.holders import Taken
from text_generation_server.reservations.sockets import SocketReservation, Unusable, clear_stale, reserve_socket


def socket_path(uds_path: Path, rank: int) -> Path:
    """Where a rank listens, as an absolute path."""
    return Path(f"{uds_path.absolute()}-{rank}")


def socket_url(path: Path) -> str:
    """The address as grpc and routers write it."""
    return f"unix://{path}"


def reserve(path: Path) -> SocketReservation:
    """Take the path for this process, long before it listens there, and remove what a dead one has left.

    Raises:
        SocketInUse: a living process has it, other than the launcher that started this one.
        StartError: there is something else, or a socket cannot be made there.
    """
    with _explained():
        return reserve_socket(path)


def make_way(path: Path) -> None:
    """Remove a socket that a dead process has left at a path that is reserved. Raises as `reserve`."""
    with _explained():
        clear_stale(path)


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except Taken as error:
        raise SocketInUse(f"{error}; stop it or choose another --uds-path") from None
    except Unusable as error:
        raise StartError(f"{error}; choose another --uds-path") from None


@contextmanager
def private_files() -> Iterator[None]:
    """Files made inside are for their owner only; a socket's permissions are those it is made with."""
    before = os.umask(0o177)
    try:
        yield
    finally:
        os.umask(before)
