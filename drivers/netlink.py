"""A blocking rtnetlink socket: several requests in one system call, links, addresses and routes as values.

Messages are encoded by pyroute2's message classes. They travel over a plain socket of our own because the
callers are worker threads that enter network namespaces: opening pyroute2's event-loop sockets costs a
millisecond a namespace, which is a tenth of what a container's whole network may take.
"""

from __future__ import annotations

import errno
import functools
import os
import socket
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface, ip_interface
from typing import Any

from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from drivers.spec import DriverError

# linux/rtnetlink.h, linux/netlink.h
RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_SETLINK = 16, 17, 18, 19
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP = 0x1, 0x4, 0x300
NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE = 0x100, 0x200, 0x400
NLM_F_CAPPED, NLM_F_ACK_TLVS = 0x100, 0x200
NLMSG_ERROR, NLMSG_DONE = 2, 3
SOL_NETLINK, NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK = 270, 10, 11, 12
NLMSGERR_ATTR_MSG = 1
IFF_UP = 0x1
IFA_F_NODAD = 0x02
RT_TABLE_MAIN, RTN_UNICAST, RT_SCOPE_LINK = 254, 1, 253
RTEXT_FILTER_SKIP_STATS = 1 << 3

# what `ip route` and `ip address` show as `proto 110` is ours: any number that no routing daemon has claimed
PROTOCOL = 110

IPAddress = IPv4Address | IPv6Address
IPInterface = IPv4Interface | IPv6Interface

_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_IFINFO = struct.Struct("=BxHiII")  # family, device type, index, flags, change
_IFADDR = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index
_RTMSG = struct.Struct("=BBBBBBBBI")  # family, dst len, src len, tos, table, protocol, scope, type, flags
_ATTRIBUTE = struct.Struct("=HH")
_U32 = struct.Struct("=I")

# linux/if_link.h, linux/if_addr.h, linux/rtnetlink.h
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_MASTER, _IFLA_LINKINFO, _IFLA_IFALIAS = 1, 3, 4, 10, 18, 20
_IFLA_INFO_KIND, _IFLA_INFO_DATA, _IFLA_VXLAN_ID = 1, 2, 1
_IFA_ADDRESS, _IFA_LOCAL, _IFA_PROTO = 1, 2, 11
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_TABLE = 1, 4, 5, 15


@dataclass(frozen=True, slots=True)
class Link:
    """A network device as the kernel reports it; `master` is the index of the bridge it is a port of."""

    index: int
    name: str
    kind: str
    alias: str
    mac: str
    mtu: int
    master: int
    up: bool
    vni: int  # of a VXLAN device


@dataclass(frozen=True, slots=True)
class Assigned:
    """An address of a device; `ours` if it carries our protocol number, which says who assigned it."""

    device: int
    address: IPv4Interface | IPv6Interface
    ours: bool


@dataclass(frozen=True, slots=True)
class Route:
    """A unicast route of the main table; no `gateway` means on-link, no `destination` means default."""

    family: int
    destination: str | None
    gateway: IPv4Address | IPv6Address | None
    device: int
    ours: bool


@dataclass(frozen=True, slots=True)
class Request:
    """One rtnetlink request. `tolerate` lists the errors that mean "already so"."""

    type: int
    flags: int
    message: Any = field(repr=False)
    subject: str
    tolerate: frozenset[int] = frozenset()


class KernelRefused(DriverError):
    """An rtnetlink request failed; `code` is the errno."""

    def __init__(self, subject: str, code: int, detail: str) -> None:
        reason = os.strerror(code)
        super().__init__(f"cannot {subject}: {reason}" + (f" ({detail})" if detail else ""))
        self.code = code


class Netlink:
    """An rtnetlink socket of the network namespace the calling thread is in when it opens it."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        for option in (NETLINK_EXT_ACK, NETLINK_CAP_ACK, NETLINK_GET_STRICT_CHK):
            self._socket.setsockopt(SOL_NETLINK, option, 1)
        self._sequence = 0

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Netlink:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- changes ----------------------------------------------------------------------------------------

    def run(self, requests: Iterable[Request]) -> None:
        """Send all requests at once, wait for every answer, raise the first refusal that is not tolerated."""
        pending: dict[int, Request] = {}
        wire = bytearray()
        for request in requests:
            pending[self._next()] = request
            wire += self._encode(request, NLM_F_REQUEST | NLM_F_ACK | request.flags)
        if not wire:
            return
        self._socket.send(wire)
        refusal: KernelRefused | None = None
        while pending:
            for kind, flags, sequence, body in messages(self._socket.recv(1 << 16)):
                request_ = pending.pop(sequence, None)
                if kind != NLMSG_ERROR or request_ is None:
                    continue
                code = -struct.unpack_from("=i", body)[0]
                if code and code not in request_.tolerate and refusal is None:
                    refusal = KernelRefused(request_.subject, code, _extended_ack(flags, body))
        if refusal is not None:
            raise refusal

    # ---- questions --------------------------------------------------------------------------------------

    def link(self, name: str) -> Link | None:
        """The device of that name, or None."""
        try:
            bodies = list(self.ask(_link_question(name)))
        except KernelRefused as refusal:
            if refusal.code == errno.ENODEV:
                return None
            raise
        return _link(bodies[0])

    def links(self) -> list[Link]:
        message = ifinfmsg()
        message["attrs"] = [("IFLA_EXT_MASK", RTEXT_FILTER_SKIP_STATS)]
        return [_link(body) for body in self.ask(Request(RTM_GETLINK, NLM_F_DUMP, message, "list devices"))]

    def addresses(self, index: int = 0) -> list[Assigned]:
        """The addresses of all devices, or of the one with this index."""
        message = ifaddrmsg()
        message["index"] = index
        return [_address(body) for body in self.ask(Request(RTM_GETADDR, NLM_F_DUMP, message, "list addresses"))]

    def routes(self, family: int) -> list[Route]:
        """The unicast routes of the main table."""
        message = rtmsg()
        message["family"] = family
        message["table"] = RT_TABLE_MAIN
        request = Request(RTM_GETROUTE, NLM_F_DUMP, message, "list routes", frozenset({errno.ENOENT}))
        routes = (_route(body) for body in self.ask(request))
        # a kernel without this family answers with all others
        return [route for route in routes if route is not None and route.family == family]

    # ---- inside -----------------------------------------------------------------------------------------

    def _next(self) -> int:
        self._sequence = (self._sequence + 1) & 0xFFFFFFFF or 1
        return self._sequence

    def _encode(self, request: Request, flags: int) -> bytes:
        if not request.message.data:
            request.message.encode()
        wire = bytearray(request.message.data)
        _HEADER.pack_into(wire, 0, len(wire), request.type, flags, self._sequence, 0)
        return bytes(wire)

    def ask(self, request: Request) -> Iterator[bytes]:
        """The bodies of the answers: one, or all of a dump."""
        sequence = self._next()
        self._socket.send(self._encode(request, NLM_F_REQUEST | request.flags))
        dump = bool(request.flags & NLM_F_DUMP)
        while True:
            for kind, flags, answered, body in messages(self._socket.recv(1 << 18)):
                if answered != sequence:
                    continue
                if kind == NLMSG_ERROR:
                    code = -struct.unpack_from("=i", body)[0]
                    if code in request.tolerate:
                        return
                    raise KernelRefused(request.subject, code, _extended_ack(flags, body))
                if kind == NLMSG_DONE:
                    return
                yield body
                if not dump:
                    return


def messages(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, flags, sequence, _ = _HEADER.unpack_from(data, offset)
        yield kind, flags, sequence, data[offset + _HEADER.size : offset + length]
        offset += (length + 3) & ~3


def attributes(data: bytes, offset: int) -> dict[int, bytes]:
    """Type -> payload of the attributes that start at `offset` (flag bits of the type removed)."""
    found: dict[int, bytes] = {}
    while offset + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < _ATTRIBUTE.size:
            break
        found[kind & 0x3FFF] = data[offset + _ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3
    return found


def _extended_ack(flags: int, body: bytes) -> str:
    """The kernel's own words about a refusal, if it sent any (NETLINK_EXT_ACK)."""
    if not flags & NLM_F_ACK_TLVS:
        return ""
    offset = 4 + _HEADER.size
    if not flags & NLM_F_CAPPED:
        offset = 4 + ((_HEADER.unpack_from(body, 4)[0] + 3) & ~3)
    return attributes(body, offset).get(NLMSGERR_ATTR_MSG, b"").rstrip(b"\0").decode(errors="replace")


def _text(payload: bytes | None) -> str:
    return (payload or b"").rstrip(b"\0").decode(errors="replace")


def _number(payload: bytes | None) -> int:
    return int(_U32.unpack(payload)[0]) if payload else 0


def _link(body: bytes) -> Link:
    _, _, index, flags, _ = _IFINFO.unpack_from(body)
    found = attributes(body, _IFINFO.size)
    info = attributes(found.get(_IFLA_LINKINFO, b""), 0)
    kind = _text(info.get(_IFLA_INFO_KIND))
    return Link(
        index=index,
        name=_text(found.get(_IFLA_IFNAME)),
        kind=kind,
        alias=_text(found.get(_IFLA_IFALIAS)),
        mac=found.get(_IFLA_ADDRESS, b"").hex(":"),
        mtu=_number(found.get(_IFLA_MTU)),
        master=_number(found.get(_IFLA_MASTER)),
        up=bool(flags & IFF_UP),
        vni=_number(attributes(info.get(_IFLA_INFO_DATA, b""), 0).get(_IFLA_VXLAN_ID)) if kind == "vxlan" else 0,
    )


def _address(body: bytes) -> Assigned:
    _, prefix, _, _, index = _IFADDR.unpack_from(body)
    found = attributes(body, _IFADDR.size)
    packed = found.get(_IFA_LOCAL) or found[_IFA_ADDRESS]
    return Assigned(index, ip_interface((packed, prefix)), found.get(_IFA_PROTO) == bytes([PROTOCOL]))


def _route(body: bytes) -> Route | None:
    family, prefix, _, _, table, protocol, _, kind, _ = _RTMSG.unpack_from(body)
    found = attributes(body, _RTMSG.size)
    if kind != RTN_UNICAST or (_number(found.get(_RTA_TABLE)) or table) != RT_TABLE_MAIN:
        return None
    address = IPv4Address if family == socket.AF_INET else IPv6Address
    gateway, destination = found.get(_RTA_GATEWAY), found.get(_RTA_DST)
    return Route(
        family=family,
        destination=f"{address(destination)}/{prefix}" if destination and prefix else None,
        gateway=address(gateway) if gateway else None,
        device=_number(found.get(_RTA_OIF)),
        ours=protocol == PROTOCOL,
    )


@functools.lru_cache(1024)
def _link_question(name: str) -> Request:
    """Kept, as encoding it takes longer than the kernel's answer."""
    message = ifinfmsg()
    message["attrs"] = [("IFLA_IFNAME", name), ("IFLA_EXT_MASK", RTEXT_FILTER_SKIP_STATS)]
    return Request(RTM_GETLINK, 0, message, f"look up device {name}")


# ---- requests -------------------------------------------------------------------------------------------


def new_link(subject: str, attrs: Mapping[str, Any]) -> Request:
    """Create a device; refused with EEXIST if the name is taken."""
    message = ifinfmsg()
    message["attrs"] = list(attrs.items())
    return Request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, message, subject)


def set_link(name: str, attrs: Mapping[str, Any], *, up: bool | None = None) -> Request:
    """Change a device found by name: any attributes, and administrative state if `up` is given."""
    message = ifinfmsg()
    message["attrs"] = [("IFLA_IFNAME", name), *attrs.items()]
    if up is not None:
        message["flags"], message["change"] = (IFF_UP if up else 0), IFF_UP
    return Request(RTM_NEWLINK, 0, message, f"configure device {name}")


def set_bridge_port(name: str, *, hairpin: bool = False, isolated: bool = False, learning: bool = True) -> Request:
    """Whether a port may send a frame back where it came from, and to other isolated ports, and learns MACs."""
    message = ifinfmsg()
    settings = {"IFLA_BRPORT_MODE": hairpin, "IFLA_BRPORT_ISOLATED": isolated, "IFLA_BRPORT_LEARNING": learning}
    options = {"attrs": [(key, int(value)) for key, value in settings.items()]}
    info = [("IFLA_INFO_SLAVE_KIND", "bridge"), ("IFLA_INFO_SLAVE_DATA", options)]
    message["attrs"] = [("IFLA_IFNAME", name), ("IFLA_LINKINFO", {"attrs": info})]
    return Request(RTM_NEWLINK, 0, message, f"configure bridge port {name}")


def retire(link: Link, name: str, alias: str) -> Iterator[Request]:
    """Set a device down, take it off its bridge, and rename it; in two steps, as older kernels want it down first."""
    gone = frozenset({errno.ENODEV})
    for attrs in ({"IFLA_MASTER": 0, "IFLA_IFALIAS": alias}, {"IFLA_IFNAME": name}):
        message = ifinfmsg()
        message["index"], message["change"] = link.index, IFF_UP
        message["attrs"] = [item for item in attrs.items() if item[0] != "IFLA_MASTER" or link.master]
        yield Request(RTM_NEWLINK, 0, message, f"take device {link.name} out of service", gone)


def delete_link(name: str) -> Request:
    message = ifinfmsg()
    message["attrs"] = [("IFLA_IFNAME", name)]
    return Request(RTM_DELLINK, 0, message, f"delete device {name}", frozenset({errno.ENODEV}))


def _address_message(index: int, address: IPv4Interface | IPv6Interface) -> Any:
    message = ifaddrmsg()
    message["family"] = socket.AF_INET if address.version == 4 else socket.AF_INET6
    message["prefixlen"], message["index"] = address.network.prefixlen, index
    attrs = [("IFA_LOCAL", str(address.ip)), ("IFA_ADDRESS", str(address.ip)), ("IFA_PROTO", PROTOCOL)]
    if isinstance(address, IPv4Interface) and address.network.prefixlen < 31:
        attrs.append(("IFA_BROADCAST", str(address.network.broadcast_address)))
    message["attrs"] = attrs
    return message


def add_address(index: int, address: IPv4Interface | IPv6Interface) -> Request:
    """Give a device an address that can be used at once (no duplicate address detection)."""
    message = _address_message(index, address)
    if address.version == 6:
        message["flags"] = IFA_F_NODAD
    if address.ip.is_link_local and address.version == 4:
        message["scope"] = RT_SCOPE_LINK
    return Request(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, message, f"add address {address}")


def delete_address(index: int, address: IPv4Interface | IPv6Interface) -> Request:
    message = _address_message(index, address)
    gone = frozenset({errno.EADDRNOTAVAIL, errno.ENODEV})
    return Request(RTM_DELADDR, 0, message, f"remove address {address}", gone)
