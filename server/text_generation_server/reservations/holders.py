"""Which process has what: for sentences, and for telling one's own from others. Linux; elsewhere nobody is known."""

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_CREDENTIALS = struct.Struct("3i")
_LISTENING = "0A"
_INTERPRETER = "python"


class Taken(Exception):
    """Another process has the place; the text says which process, as far as that is known."""

    def __init__(self, place: str, holder: int | None) -> None:
        super().__init__(f"{place} is taken by {describe(holder)}")


def describe(pid: int | None) -> str:
    """`process 12 (nginx)`. Never its arguments, which may hold keys."""
    if pid is None:
        return "another process"
    program = _program(pid)
    return f"process {pid} ({program})" if program else f"process {pid}"


def listener(peer: socket.socket) -> int | None:
    """The process that listens at the other end of a connected Unix socket."""
    try:
        pid: int = _CREDENTIALS.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))[0]
    except (AttributeError, OSError):
        return None
    return pid or None  # 0: it cannot be seen from this container


def listeners(port: int) -> frozenset[int]:
    """The processes that listen on a TCP port at any address, as far as this one may look."""
    wanted = _listening(port)
    if not wanted:
        return frozenset()
    return frozenset(pid for pid in _processes() if not wanted.isdisjoint(_open_files(pid)))


def listens(pid: int, port: int) -> bool:
    """Whether the process listens on a TCP port: a look at one process, not at all."""
    return not _listening(port).isdisjoint(_open_files(pid))


def belongs_to(pid: int, child: int) -> bool:
    """Whether a process is `child`, in its group, or was started by it or by what it started."""
    with suppress(OSError):
        if os.getpgid(pid) == child:
            return True
    return pid == child or child in _ancestors(pid)


def started_by(pid: int | None) -> bool:
    """Whether that process started this one, itself or through others."""
    return pid is not None and (pid == os.getppid() or pid in _ancestors(os.getpid()))


def here() -> str:
    """Where process ids mean what they mean here: containers number theirs apart, and may share folders."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _program(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")
    except OSError:
        return ""
    first, second, third = [*words, "", "", ""][:3]
    if Path(first).name.startswith(_INTERPRETER):
        first = third if second == "-m" else first if second.startswith("-") else second
    return Path(first).name


def _ancestors(pid: int) -> Iterator[int]:
    with suppress(OSError, ValueError, IndexError):  # one has ended meanwhile
        while pid > 1:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
            yield pid


def _listening(port: int) -> set[str]:
    """Its listening sockets, as open files name them."""
    return {f"socket:[{inode}]" for inode in _listening_inodes(port)}


def _listening_inodes(port: int) -> Iterator[str]:
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                _, address, _, state, *_, inode = line.split()[:10]
                if state == _LISTENING and int(address.rpartition(":")[2], 16) == port:
                    yield inode


def _processes() -> Iterator[int]:
    with suppress(OSError):
        yield from (int(name) for name in os.listdir("/proc") if name.isdigit())


def _open_files(pid: int) -> Iterator[str]:
    with suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with suppress(OSError):  # closed meanwhile
                yield os.readlink(f"/proc/{pid}/fd/{name}")
