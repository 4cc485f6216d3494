"""Unix sockets of shards: their paths, and taking one over safely. Knows no grpc."""

import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from text_generation_server.errors import SocketInUse, StartError

LONGEST_PATH = 107
"""Bytes that the kernel keeps of a Unix socket's path."""


def socket_path(uds_path: Path, rank: int) -> Path:
    """Where a rank listens, as an absolute path."""
    return Path(f"{uds_path.absolute()}-{rank}")


def socket_url(path: Path) -> str:
    """The address as grpc and routers write it."""
    return f"unix://{path}"


def make_way(path: Path) -> None:
    """Remove a socket that a dead process has left at `path`.

    Raises:
        SocketInUse: a living process accepts connections there.
        StartError: there is something else, or a socket cannot be made there.
    """
    if len(os.fsencode(path)) > LONGEST_PATH:
        raise StartError(f"the socket path {path} is longer than {LONGEST_PATH} bytes; choose a shorter --uds-path")
    if not path.parent.is_dir():
        raise StartError(f"{path.parent} is no directory; create it or choose another --uds-path")
    if not path.exists():
        return
    if not stat.S_ISSOCK(path.stat().st_mode):
        raise StartError(f"{path} exists and is no socket; remove it or choose another --uds-path")
    if accepts_connections(path):
        raise SocketInUse(f"another server is using {path}; stop it or choose another --uds-path")
    path.unlink()


def accepts_connections(path: Path) -> bool:
    """Whether a process listens at `path`."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return False
    return True


@contextmanager
def private_files() -> Iterator[None]:
    """Files made inside are for their owner only; a socket's permissions are those it is made with."""
    before = os.umask(0o177)
    try:
        yield
    finally:
        os.umask(before)
