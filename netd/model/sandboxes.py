"""Sandboxes and endpoints as stored: one network namespace, its attachments, its ports, its resolver's settings."""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace


class Published(Struct, frozen=True):
    """One published port, or `count` consecutive ones, as bound on this host."""

    proto: str
    container_port: int
    host_ip: str
    host_port: int
    count: int = 1


class Endpoint(Struct, frozen=True, kw_only=True):
    """The attachment of a sandbox to a network. Addresses carry their prefix length; empty means none."""

    id: str
    network_id: str
    network: str
    ifname: str = ""
    mac: str = ""
    ipv4: str = ""
    ipv6: str = ""
    link_local: tuple[str, ...] = ()
    gateway4: str = ""
    gateway6: str = ""
    internal: bool = False
    predefined: bool = False
    scope: str = "local"
    priority: int = 0
    names: tuple[str, ...] = ()
    links: dict[str, str] = {}
    services: tuple[str, ...] = ()  # exposed and published container ports, as in `80/tcp`
    sysctls: dict[str, str] = {}

    @property
    def addresses(self) -> tuple[str, ...]:
        """Its addresses without prefix lengths, IPv4 first."""
        return tuple(a.partition("/")[0] for a in (self.ipv4, self.ipv6) if a)


class Sandbox(Struct, frozen=True, kw_only=True):
    """One network namespace and what belongs to it. An empty `netns` is the daemon's own (host mode)."""

    id: str
    container_id: str
    name: str
    netns: str
    hostname: str = ""
    endpoints: tuple[Endpoint, ...] = ()
    published: tuple[Published, ...] = ()
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    dns_routes: tuple[str, ...] = ()  # `DOMAIN=SERVER[,SERVER...]`
    going: bool = False  # it was to be taken down when this was stored
    inode: int = 0  # of an attached namespace: another one may come to be at its path

    @property
    def ordered(self) -> tuple[Endpoint, ...]:
        """Endpoints in gateway order (fact 2.104), which is also the order names are searched in."""
        return tuple(sorted(self.endpoints, key=_gateway_order))

    @property
    def resolves(self) -> bool:
        """Whether the embedded resolver serves it: it is on a network other than the predefined ones."""
        return any(not e.predefined for e in self.endpoints)

    @property
    def gateway4(self) -> Endpoint | None:
        """The endpoint that carries the IPv4 default route."""
        return next((e for e in self.ordered if e.gateway4 and not e.internal), None)

    @property
    def gateway6(self) -> Endpoint | None:
        """The endpoint that carries the IPv6 default route."""
        return next((e for e in self.ordered if e.gateway6 and not e.internal), None)

    @property
    def attached(self) -> bool:
        """Whether it was attached rather than started: no container stands behind it."""
        return self.container_id == self.id

    def endpoint_on(self, network_id: str) -> Endpoint | None:
        return next((e for e in self.endpoints if e.network_id == network_id), None)

    def with_endpoint(self, endpoint: Endpoint) -> Sandbox:
        return replace(self, endpoints=(*self.endpoints, endpoint))

    def without_endpoint(self, endpoint_id: str) -> Sandbox:
        return replace(self, endpoints=tuple(e for e in self.endpoints if e.id != endpoint_id))

    def free_ifname(self, prefix: str) -> str:
        """The lowest free interface name of this prefix (fact 2.106)."""
        taken = {e.ifname for e in self.endpoints}
        return next(name for i in range(len(taken) + 1) if (name := f"{prefix}{i}") not in taken)


def _gateway_order(endpoint: Endpoint) -> tuple[int, bool, int, str]:
    gateways = bool(endpoint.gateway4) + bool(endpoint.gateway6)
    return (-endpoint.priority, endpoint.internal, -gateways, endpoint.network)
