"""Which hosts URLs of clients may reach. Resolves names, and connects to nothing."""

import asyncio
import ipaddress
import socket

from text_generation_server.errors import BadImage

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_TRANSLATED = tuple(map(ipaddress.IPv6Network, ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32")))
"""Addresses of version 6 that lead to one of version 4, whichever: NAT64, 6to4 and Teredo (RFC 6052, 3056, 4380)."""


def is_public(address: Address) -> bool:
    """Whether an address is anybody's on the internet: none of this machine, its networks, or for special use."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if any(address in network for network in _TRANSLATED):
            return False
    return address.is_global and not address.is_multicast


async def resolved(host: str, port: int, private: bool) -> list[str]:
    """The addresses of a host, to be connected to as they are: another look-up may say something else.

    private: whether they may be of any network. Raises BadImage if one may not be reached, or there is none.
    """
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise BadImage("it is at a host that has no address") from error
    addresses = list(dict.fromkeys(str(place[4][0]) for place in found))
    if not private and not all(is_public(ipaddress.ip_address(address)) for address in addresses):
        raise BadImage("it is at an address of a private network, from which nothing is fetched")
    return addresses
