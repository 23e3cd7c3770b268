"""Networks of driver `overlay`: what their options, subnets and VNIs mean. Pure functions.

Option names, defaults and error texts are Docker's. An endpoint travels in the VXLAN of its IPv4 subnet; IPv6
subnets had better share that one's VNI.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface, ip_interface

from drivers.bridge import parse_boolean, parse_mtu
from drivers.spec import DriverError, Endpoint, InvalidOption, Network, Subnet

VXLAN_IDS = "com.docker.network.driver.overlay.vxlanid_list"
ENCRYPTED = "encrypted"
PORT = 4789  # RFC 7348, section 8
_MAX_VNI = (1 << 24) - 1
_IPV6_MIN_MTU = 1280  # RFC 8200, section 5

IPAddress = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Vxlan:
    """One VXLAN of a network, with its bridge, in the network's namespace."""

    vni: int
    subnets: tuple[Subnet, ...]

    @property
    def device(self) -> str:
        return device_name(self.vni)

    @property
    def bridge(self) -> str:
        return bridge_name(self.vni)

    @property
    def gateways(self) -> frozenset[IPv4Interface | IPv6Interface]:
        """What the bridge itself holds, to route between the network's subnets."""
        return frozenset(ip_interface((s.gateway, s.pool.prefixlen)) for s in self.subnets if s.gateway is not None)


def device_name(vni: int) -> str:
    return f"vxlan{vni}"


def bridge_name(vni: int) -> str:
    return f"br{vni}"


def validate(network: Network) -> None:
    """Refuse options that cannot be read, and encryption."""
    parse_mtu(network.options)
    asked = vxlan_ids(network)
    if asked and len(asked) < len(network.subnets):
        raise InvalidOption(f"insufficient vnis({len(asked)}) passed to overlay")
    if network.options.get(ENCRYPTED) == "" or parse_boolean(network.options, ENCRYPTED, default=False):
        raise InvalidOption(
            f"network {network.name} cannot be encrypted: that needs IPsec between the hosts, which netd does not set "
            "up; create it without --opt encrypted, over an underlay that is trusted or itself encrypted"
        )


def vxlan_ids(network: Network) -> tuple[int, ...]:
    """The VNIs that the user asks for, one a subnet; empty if the store chooses."""
    given = network.options.get(VXLAN_IDS) or network.options.get("vxlanid_list", "")
    return tuple(_vni(text) for text in given.split(",")) if given else ()


def _vni(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,8}", text.strip(), re.ASCII) or not 0 < int(text) <= _MAX_VNI:
        raise InvalidOption(f'invalid vxlan id value "{text}" passed')
    return int(text)


def vxlans(network: Network) -> tuple[Vxlan, ...]:
    """The network's VXLANs in the order of its subnets. Raises DriverError if there is a subnet without VNI."""
    first = next((subnet.vni for subnet in network.subnets), 0)
    if not first:
        raise DriverError(f"overlay network {network.name} has no VXLAN id yet")
    found: dict[int, list[Subnet]] = {}
    for subnet in network.subnets:
        found.setdefault(subnet.vni or first, []).append(subnet)
    return tuple(Vxlan(vni, tuple(subnets)) for vni, subnets in found.items())


def vxlan_of(network: Network, addresses: Iterable[IPAddress]) -> Vxlan | None:
    """The VXLAN an endpoint with these addresses travels in: that of the first that is in a pool."""
    every = vxlans(network)
    for address in addresses:
        for vxlan in every:
            if any(address in subnet.pool for subnet in vxlan.subnets):
                return vxlan
    return None


def routes(network: Network, endpoint: Endpoint) -> tuple[tuple[str, IPAddress | None], ...]:
    """How an endpoint reaches the network's other subnets: on-link in the same VXLAN, or over its gateway."""
    found: list[tuple[str, IPAddress | None]] = []
    for own in (endpoint.ipv4, endpoint.ipv6):
        vxlan = vxlan_of(network, [own.ip]) if own is not None else None
        if own is None or vxlan is None:
            continue
        gateway = next((subnet.gateway for subnet in vxlan.subnets if own.ip in subnet.pool), None)
        for subnet in network.subnets:
            if subnet.pool.version != own.version or own.ip in subnet.pool:
                continue
            if subnet in vxlan.subnets:
                found.append((str(subnet.pool), None))
            elif gateway is not None:
                found.append((str(subnet.pool), gateway))
    return tuple(found)


def overhead(vtep: IPAddress) -> int:
    """Bytes that encapsulation adds: IP, UDP and VXLAN headers, and the inner Ethernet header (RFC 7348, 5)."""
    return (20 if vtep.version == 4 else 40) + 8 + 8 + 14


def mtu(network: Network, underlay: int) -> int:
    """The inner MTU; the user's option is, as with Docker, the underlay's MTU (fact 4.21)."""
    assert network.vtep is not None
    found = (parse_mtu(network.options) or underlay) - overhead(network.vtep)
    if found < _IPV6_MIN_MTU and any(subnet.pool.version == 6 for subnet in network.subnets):
        raise DriverError(
            f"overlay network {network.name} would have an MTU of {found}, and IPv6 needs {_IPV6_MIN_MTU}: "
            "give the underlay a larger MTU, or the network no IPv6 subnet"
        )
    return found


def bridge_mac(network: Network, vxlan: Vxlan) -> str:
    """The bridge's own address, another one on each host: remote bridges are seen through the VXLAN."""
    seed = f"{network.id}/{vxlan.vni}/{network.vtep}".encode()
    return "06:" + hashlib.blake2s(seed, digest_size=5).digest().hex(":")  # 06: locally administered
