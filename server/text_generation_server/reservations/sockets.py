"""The path of a Unix socket that is one server's from before it listens until it has ended. Knows not what is served.

A lock beside the path says who has it, since a socket says so only once somebody listens: `{path}.lock`, which the
kernel frees when the process ends, however it ends. Only who holds the lock removes a socket that was left at the path.
"""

import fcntl
import os
import socket
import stat
from contextlib import suppress
from pathlib import Path
from typing import Self

from text_generation_server.reservations.holders import Taken, here, listener, started_by

LONGEST_PATH = 103
"""Bytes of a rank's path. The kernel keeps 107, and between ranks there is one that is four longer."""

_PATIENCE_S = 5.0


class Unusable(Exception):
    """No socket can be made at the path; the text says why."""


class SocketReservation:
    """A path and the lock on it; without one, the parent has it. Made by `reserve_socket`."""

    def __init__(self, path: Path, lock: int | None) -> None:
        self.path = path
        self._lock = lock

    def close(self) -> None:
        """Give the path back, and remove what a server that was killed has left there."""
        if self._lock is None:
            return
        with suppress(Taken, Unusable):
            clear_stale(self.path)
        _lock_path(self.path).unlink(missing_ok=True)
        os.close(self._lock)
        self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def reserve_socket(path: Path) -> SocketReservation:
    """Take a path for this process, or for what its parent has reserved, and remove a dead server's socket there.

    Raises Taken, or Unusable.
    """
    _check_place(path)
    try:
        lock, holder = _acquire(_lock_path(path))
    except OSError as error:
        raise Unusable(f"{path} cannot be reserved: {_lock_path(path)}: {error.strerror}") from None
    if lock is None and not started_by(holder):
        raise Taken(str(path), holder)
    reservation = SocketReservation(path, lock)
    try:
        clear_stale(path)
    except BaseException:
        reservation.close()
        raise
    return reservation


def clear_stale(path: Path) -> None:
    """Remove a socket that nobody answers; for who has the path reserved. Raises Taken, or Unusable."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise Unusable(f"{path} exists and is no socket")
    with socket.socket(socket.AF_UNIX) as caller:
        caller.settimeout(_PATIENCE_S)
        try:
            caller.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            _remove(path)
        except OSError as error:  # somebody who is too busy to answer is alive
            raise Unusable(f"the socket {path} cannot be asked whether a server lives there: {error}") from None
        else:
            raise Taken(str(path), listener(caller))


def _check_place(path: Path) -> None:
    if len(os.fsencode(path)) > LONGEST_PATH:
        raise Unusable(f"the socket path {path} is longer than {LONGEST_PATH} bytes")
    if not path.parent.is_dir():
        raise Unusable(f"{path.parent} is no directory")


def _lock_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.lock")


def _acquire(path: Path) -> tuple[int | None, int | None]:
    """The lock, or None and the process that has it."""
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(lock), path.stat()):
                    os.truncate(lock, 0)
                    os.write(lock, f"{os.getpid()} {here()}".encode())
                    return lock, None
            os.close(lock)  # its holder removed it between our two steps
        except BlockingIOError:
            pid, _, where = os.pread(lock, 100, 0).decode(errors="replace").partition(" ")
            os.close(lock)
            return None, int(pid) if pid.isdecimal() and where == here() else None
        except BaseException:
            os.close(lock)
            raise


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise Unusable(f"the old socket {path} cannot be removed: {error.strerror}") from None
