"""What a host's kernel should hold: the desired state that netd hands to the drivers.

Values are immutable. The drivers compare them with what the kernel has (`owned`) and change the
difference; they keep no other truth.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from typing import Literal


class DriverError(Exception):
    """The kernel, or a driver's rules, refused; the message is one sentence for the user."""


class InvalidOption(DriverError):
    """A network or endpoint option that the driver cannot accept."""


class OptionConflict(DriverError):
    """A network that clashes with another one on this host (same device name, overlapping addresses)."""


@dataclass(frozen=True, slots=True)
class Subnet:
    """One address pool of a network and the address its gateway holds (None: no gateway address)."""

    pool: IPv4Network | IPv6Network
    gateway: IPv4Address | IPv6Address | None
    vni: int = 0  # of an overlay: the VXLAN that carries it; subnets may share one; 0: that of the first subnet


@dataclass(frozen=True, slots=True)
class Network:
    """A network as a driver needs it. `options` are the user's, as given (`com.docker.network...`)."""

    id: str
    name: str
    driver: str
    subnets: tuple[Subnet, ...] = ()
    internal: bool = False
    options: Mapping[str, str] = field(default_factory=dict)
    vtep: IPv4Address | IPv6Address | None = None  # of an overlay: this host's address on the underlay


@dataclass(frozen=True, slots=True)
class Peer:
    """An endpoint of an overlay on another host, whose underlay address is `vtep`; `id` is the endpoint's."""

    id: str
    mac: str
    addresses: tuple[IPv4Address | IPv6Address, ...]
    vtep: IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class PortForward:
    """One published port. `host_ip` is the unspecified address (0.0.0.0 or ::) for "any local address"."""

    proto: Literal["tcp", "udp", "sctp"]
    host_ip: IPv4Address | IPv6Address
    host_port: int
    container_port: int
    count: int = 1  # a range publishes `count` consecutive ports on both sides


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The attachment of one sandbox to one network: a veth pair whose outer end is on one of its bridges."""

    id: str
    network_id: str
    ifname: str
    mac: str
    ipv4: IPv4Interface | None = None
    ipv6: IPv6Interface | None = None
    link_local: tuple[IPv4Interface | IPv6Interface, ...] = ()
    ports: tuple[PortForward, ...] = ()
    sysctls: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DnsPorts:
    """Where the sandbox's resolver sockets listen on 127.0.0.11; port 53 is rewritten to these.

    `program` is the id of a BPF program that does that, and answers what it knows itself; `number` tells it the
    sandbox. Without one nftables rewrites the ports.
    """

    udp: int
    tcp: int
    program: int = 0
    number: int = 0


UNKNOWN = DnsPorts(0, 0)  # whatever is there stays as it is: the resolver has to be asked first


@dataclass(frozen=True, slots=True)
class Sandbox:
    """One network namespace and all that belongs in it.

    `netns` is a path (`<exec-root>/netns/<id>` or `/proc/<pid>/ns/net`). `gateway4`/`gateway6` name the
    endpoint whose network carries the default route of that family, or None for no default route.
    """

    id: str
    netns: str
    endpoints: tuple[Endpoint, ...] = ()
    gateway4: str | None = None
    gateway6: str | None = None
    dns: DnsPorts | None = None
