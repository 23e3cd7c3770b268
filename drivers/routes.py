"""The routes we give a sandbox: requests, and making a family's routes as they should be."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pyroute2.netlink.rtnl.rtmsg import rtmsg

from drivers import netlink
from drivers.netlink import IPAddress, IPInterface, Link, Netlink, Request


@dataclass(frozen=True, slots=True)
class Way:
    """A route of ours: no `destination` means default, no `gateway` means on-link."""

    destination: str | None
    gateway: IPAddress | None
    device: int

    def __str__(self) -> str:
        return f"the route to {self.destination}" if self.destination else "the default route"


def ensure(inner: Netlink, version: int, wanted: set[Way]) -> list[str]:
    """Make our routes of one address family exactly these; other routes to the same destinations are left alone."""
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    present = {Way(route.destination, route.gateway, route.device) for route in inner.routes(family) if route.ours}
    surplus, missing = present - wanted, wanted - present
    replaceable = {way.destination for way in surplus}
    inner.run(_requests(family, missing, surplus, replaceable))
    return [f"{way} (IPv{version}) was missing" for way in missing]


def renew(connection: Netlink, link: Link, addresses: Iterable[IPInterface]) -> list[str]:
    """Assign addresses of a device anew whose subnet's on-link route, which comes with them, has been removed."""
    families = {socket.AF_INET if address.version == 4 else socket.AF_INET6 for address in addresses}
    there = {r.destination for family in families for r in connection.routes(family) if r.device == link.index}
    lost = [address for address in addresses if _has_route(address) and str(address.network) not in there]
    for address in lost if link.up else ():
        connection.run([netlink.delete_address(link.index, address), netlink.add_address(link.index, address)])
    return [f"the route to {address.network} over {link.name} was missing" for address in lost if link.up]


def _has_route(address: IPInterface) -> bool:
    return address.network.prefixlen < address.network.max_prefixlen


def _requests(family: int, missing: set[Way], surplus: set[Way], replaceable: set[str | None]) -> Iterable[Request]:
    for way in missing:
        replace = way.destination in replaceable
        flags = netlink.NLM_F_CREATE | (netlink.NLM_F_REPLACE if replace else netlink.NLM_F_EXCL)
        tolerate = frozenset[int]() if replace else frozenset({errno.EEXIST})
        yield Request(netlink.RTM_NEWROUTE, flags, _message(family, way), f"set {way}", tolerate)
    for way in surplus:
        gone = frozenset({errno.ESRCH, errno.ENODEV})
        yield Request(netlink.RTM_DELROUTE, 0, _message(family, way), f"remove {way}", gone)


def _message(family: int, way: Way) -> Any:
    message = rtmsg()
    message["family"] = family
    message["table"], message["proto"] = netlink.RT_TABLE_MAIN, netlink.PROTOCOL
    message["type"] = netlink.RTN_UNICAST
    attrs: list[tuple[str, Any]] = [("RTA_OIF", way.device)]
    if way.gateway is not None:
        attrs.append(("RTA_GATEWAY", str(way.gateway)))
    elif family == socket.AF_INET:
        message["scope"] = netlink.RT_SCOPE_LINK
    if way.destination is not None:
        address, _, length = way.destination.partition("/")
        message["dst_len"] = int(length)
        attrs.append(("RTA_DST", address))
    message["attrs"] = attrs
    return message
