"""A TCP port that is this process's from before it listens, and closed meanwhile. Knows not what it is for.

Two sockets with SO_REUSEADDR may be bound to one port as long as neither listens, and a server needs that option, for
the connections of one before it that linger. So a reservation is a bound socket that shares no more (every program
is refused then), beside a name in the kernel's abstract namespace, which tells who has the port, and still holds while
a child is let in. Both end with the process, however it ends; a network namespace has its own of both.
"""

import errno
import ipaddress
import socket
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Self

from text_generation_server.reservations.holders import Taken, listener, listeners, started_by

_PREFIX = "text-generation-port"

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class PortReservation:
    """A port and the socket that has it. Made by `reserve_port`."""

    def __init__(self, held: socket.socket, name: socket.socket | None) -> None:
        self.socket = held
        self._name = name
        self.port: int = held.getsockname()[1]

    def share(self) -> None:
        """From now on let a child bind the port too and listen, or the owner listen on `socket`."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)

    def close(self) -> None:
        """Give the port back."""
        self.socket.close()
        _close(self._name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def reserve_port(address: str, port: int) -> PortReservation:
    """Take a port of an IP address; port 0: a free one. What the parent has reserved and shares may be taken too.

    Raises Taken; OSError if the address is none of this host or the port not for this user.
    """
    while port == 0:
        with suppress(Taken):  # somebody was faster
            return reserve_port(address, _free_port(address))
    # The name first: a port that is being shared with a child lets anyone bind.
    name = _claim(ipaddress.ip_address(address), port)
    try:
        return PortReservation(_bind(address, port), name)
    except BaseException:
        _close(name)
        raise


def _free_port(address: str) -> int:
    """A socket with a port of the kernel's choice loses it when it stops listening, so it is not the one to hold."""
    with _socket(address) as probe:
        probe.bind((address, 0))
        port: int = probe.getsockname()[1]
        return port


def _socket(address: str) -> socket.socket:
    return socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)


def _bind(address: str, port: int) -> socket.socket:
    held = _socket(address)
    try:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind((address, port))
        if sys.platform == "linux":
            # The kernel remembers of a port that all its sockets share it, until one has listened.
            held.listen()
            held.shutdown(socket.SHUT_RDWR)
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    except OSError as error:
        held.close()
        if error.errno == errno.EADDRINUSE:
            raise Taken(f"port {port} on {address}", min(listeners(port), default=None)) from None
        raise
    return held


def _claim(address: _Address, port: int) -> socket.socket | None:
    """This process's name for the port; None where there are no such names, or its parent has one. Raises Taken."""
    if sys.platform != "linux":
        return None
    claim = socket.socket(socket.AF_UNIX)
    try:
        claim.bind(_name(address, port))
        claim.listen(socket.SOMAXCONN)
        others = [other for other in _named(port) if other != address and _overlap(address, other)]
    except OSError:
        others = [address]
    if not others:
        return claim
    claim.close()
    for other in others:
        holder = _holder(_name(other, port))
        if not started_by(holder):
            raise Taken(f"port {port} on {other}", holder)
    return None


def _name(address: _Address, port: int) -> str:
    return f"\0{_PREFIX}/{port}/{address}"


def _named(port: int) -> Iterator[_Address]:
    """The addresses at which someone has a name for the port."""
    with suppress(OSError):
        for line in Path("/proc/net/unix").read_text(errors="replace").splitlines():
            _, found, address = line.partition(f" @{_PREFIX}/{port}/")
            if found:
                with suppress(ValueError):  # somebody else's idea of a name
                    yield ipaddress.ip_address(address)


def _overlap(one: _Address, other: _Address) -> bool:
    """Whether a port at one address is, or may be, the same as at the other: `::` is every address, 0.0.0.0 of IPv4."""
    return one == other or any(
        wide.is_unspecified and (wide.version == 6 or narrow.version == 4)
        for wide, narrow in ((one, other), (other, one))
    )


def _holder(name: str) -> int | None:
    with socket.socket(socket.AF_UNIX) as caller:
        caller.setblocking(False)
        try:
            caller.connect(name)
        except OSError:
            return None
        return listener(caller)


def _close(held: socket.socket | None) -> None:
    if held is not None:
        held.close()
