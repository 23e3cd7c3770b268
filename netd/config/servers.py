"""DNS servers as users write them: an address, with a port or without, and the domains they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address

from netd.core.errors import InvalidParameter


def split_port(server: str) -> tuple[IPv4Address | IPv6Address, int]:
    """`1.2.3.4`, `1.2.3.4:5353`, `::1` or `[::1]:5353`; `ValueError` for anything else."""
    if is_address(server):
        return ip_address(server), 53
    host, _, port = server.rpartition(":")
    number = int(port)
    if not 0 < number < 65536:
        raise ValueError(f"port {number} is out of range")
    return ip_address(host.removeprefix("[").removesuffix("]")), number


def split_route(route: str) -> tuple[str, list[tuple[IPv4Address | IPv6Address, int]]]:
    """`corp.example=10.1.1.1,10.1.1.2:5353`: a domain and the servers that are asked for names below it."""
    domain, found, servers = route.partition("=")
    try:
        parsed = [split_port(server) for server in servers.split(",")]
    except ValueError:
        parsed = []
    if not (found and domain and parsed):
        raise InvalidParameter(f"invalid DNS route {route!r}: write DOMAIN=SERVER, as in corp.example=10.1.1.1")
    return domain, parsed


def is_address(text: str) -> bool:
    """Whether it is an IP address, without a port."""
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def check_servers(servers: Sequence[str], routes: Sequence[str]) -> None:
    """Each server an address, with a port or without; each route `DOMAIN=SERVER[,SERVER...]`."""
    for server in servers:
        try:
            split_port(server)
        except ValueError:
            raise InvalidParameter(f"bad nameserver address {server}: it is not an IP address") from None
    for route in routes:
        split_route(route)
