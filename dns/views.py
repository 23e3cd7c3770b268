"""What the daemon tells the resolver, in its own types, and as the control protocol carries it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address

from dns import control
from dns.control import Port

Address = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Record:
    """One endpoint on one network. The first of `names` gives the PTR name `<first>.<network>.`;
    a name that starts with `*.` is a wildcard. `ports` are found by SRV questions."""

    endpoint: str
    names: tuple[str, ...]
    addresses: tuple[Address, ...]
    ports: tuple[Port, ...] = ()


@dataclass(frozen=True, slots=True)
class Upstream:
    """A DNS server; `host`: asked from the daemon's own namespace instead of the sandbox's."""

    address: Address
    port: int = 53
    host: bool = False


@dataclass(frozen=True, slots=True)
class Route:
    """Split DNS: names at and below `suffix` are asked of these servers only."""

    suffix: str
    upstreams: tuple[Upstream, ...]


@dataclass(frozen=True, slots=True)
class View:
    """What one sandbox can resolve.

    `networks` are ids in search order: the first that knows a name wins. `links` are, by network id, aliases
    of target names, looked up when asked. `internal`: there is no way out, so `host` upstreams are not used.
    """

    sandbox: str
    container: str
    networks: tuple[str, ...] = ()
    links: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    upstreams: tuple[Upstream, ...] = ()
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    internal: bool = False
    routes: tuple[Route, ...] = ()


def member(record: Record) -> control.Member:
    packed = tuple(address.packed for address in record.addresses)
    return control.Member(record.endpoint, tuple(record.names), packed, tuple(record.ports))


def _servers(upstreams: Iterable[Upstream]) -> tuple[control.Server, ...]:
    return tuple(control.Server(str(u.address), u.port, u.host) for u in upstreams)


def sandbox_view(view: View) -> control.SandboxView:
    return control.SandboxView(
        sandbox=view.sandbox,
        container=view.container,
        networks=view.networks,
        links={network: dict(links) for network, links in view.links.items()},
        servers=_servers(view.upstreams),
        search=view.search,
        options=view.options,
        internal=view.internal,
        routes=tuple(control.Route(route.suffix, _servers(route.upstreams)) for route in view.routes),
    )
