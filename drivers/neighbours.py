"""Static rows of a VXLAN device: forwarding (MAC -> VTEP) and neighbours (address -> MAC), as values and requests.

A forwarding row is one request and two entries: in the device's own table, and in that of its bridge, so that the
bridge need not flood. Messages are packed here, as hosts with thousands of endpoints make pyroute2's encoder a
bottleneck.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_address
from itertools import islice

from drivers import netlink
from drivers.netlink import IPAddress, Netlink, Request, attributes

# linux/neighbour.h, linux/rtnetlink.h
RTM_NEWNEIGH, RTM_DELNEIGH, RTM_GETNEIGH = 28, 29, 30
NTF_SELF, NTF_MASTER = 0x02, 0x04
NUD_REACHABLE, NUD_NOARP, NUD_PERMANENT = 0x02, 0x40, 0x80
_NDA_DST, _NDA_LLADDR, _NDA_IFINDEX = 1, 2, 8

_NDMSG = struct.Struct("=BxxxiHBB")  # family, index, state, flags, type
_ATTRIBUTE = struct.Struct("=HH")
_HEADER_SIZE = 16
_AT_ONCE = 100  # requests a system call: their answers have to fit into the socket's buffer
_GONE = frozenset({errno.ENOENT, errno.ENODEV})


@dataclass(frozen=True, slots=True)
class Forward:
    """Frames to `mac` go to the host `vtep`."""

    mac: str
    vtep: IPAddress

    def __str__(self) -> str:
        return f"forwarding row {self.mac} -> {self.vtep}"


@dataclass(frozen=True, slots=True)
class Neighbour:
    """Whoever asks for `address` is answered `mac`."""

    address: IPAddress
    mac: str

    def __str__(self) -> str:
        return f"neighbour row {self.address} -> {self.mac}"


Row = Forward | Neighbour


def key(row: Row) -> str | IPAddress:
    """What a row is looked up by; a device has one of each."""
    return row.mac if isinstance(row, Forward) else row.address


class _Message:
    """An encoded message, with room for the header that `Netlink` writes."""

    def __init__(self, family: int, index: int, state: int, flags: int, attrs: Iterable[tuple[int, bytes]]) -> None:
        body = b"".join(_ATTRIBUTE.pack(4 + len(v), k) + v + bytes(-len(v) % 4) for k, v in attrs)
        self.data = bytes(_HEADER_SIZE) + _NDMSG.pack(family, index, state, flags, 0) + body


def put(index: int, row: Row) -> Request:
    """Make a row of the device with this index, or change the one of the same key."""
    flags = netlink.NLM_F_CREATE | netlink.NLM_F_REPLACE
    # a state that both tables take for static: the device wants "reachable", the bridge "no ARP"
    state = NUD_NOARP | NUD_REACHABLE if isinstance(row, Forward) else NUD_PERMANENT
    return Request(RTM_NEWNEIGH, flags, _message(index, row, state, NTF_SELF | NTF_MASTER), f"write {row}")


def delete(index: int, row: Row) -> Iterator[Request]:
    if isinstance(row, Neighbour):
        yield Request(RTM_DELNEIGH, 0, _message(index, row, 0, 0), f"delete {row}", _GONE)
        return
    for table in (NTF_SELF, NTF_MASTER):  # in one request, one table's lack of the row would spare the other's
        yield Request(RTM_DELNEIGH, 0, _message(index, row, 0, table), f"delete {row}", _GONE)


def write(connection: Netlink, requests: Iterable[Request]) -> None:
    """Run any number of requests, some at a time."""
    rest = iter(requests)
    while batch := list(islice(rest, _AT_ONCE)):
        connection.run(batch)


def rows(connection: Netlink, index: int) -> set[Row]:
    """The static rows of a device; a forwarding row counts if both tables have it."""
    own: dict[str, IPAddress] = {}
    bridged: set[str] = set()
    for flags, _, found in _dump(connection, socket.AF_BRIDGE, _Message(socket.AF_BRIDGE, index, 0, 0, ())):
        mac = found[_NDA_LLADDR].hex(":")
        if flags & NTF_SELF and _NDA_DST in found:
            own[mac] = ip_address(found[_NDA_DST])
        elif not flags & NTF_SELF:
            bridged.add(mac)
    result: set[Row] = {Forward(mac, vtep) for mac, vtep in own.items() if mac in bridged}
    for family in (socket.AF_INET, socket.AF_INET6):
        only = _Message(family, 0, 0, 0, [(_NDA_IFINDEX, struct.pack("=I", index))])
        for _, state, found in _dump(connection, family, only):
            if state & NUD_PERMANENT and _NDA_LLADDR in found:
                result.add(Neighbour(ip_address(found[_NDA_DST]), found[_NDA_LLADDR].hex(":")))
    return result


def _dump(connection: Netlink, family: int, message: _Message) -> Iterator[tuple[int, int, dict[int, bytes]]]:
    """(flags, state, attributes) of the entries."""
    for body in connection.ask(Request(RTM_GETNEIGH, netlink.NLM_F_DUMP, message, "list neighbours")):
        found_family, _, state, flags, _ = _NDMSG.unpack_from(body)
        if found_family == family:
            yield flags, state, attributes(body, _NDMSG.size)


def _message(index: int, row: Row, state: int, flags: int) -> _Message:
    if isinstance(row, Forward):
        attrs = [(_NDA_LLADDR, _mac(row.mac)), (_NDA_DST, row.vtep.packed)]
        return _Message(socket.AF_BRIDGE, index, state, flags, attrs)
    family = socket.AF_INET if isinstance(row.address, IPv4Address) else socket.AF_INET6
    return _Message(family, index, state, 0, [(_NDA_DST, row.address.packed), (_NDA_LLADDR, _mac(row.mac))])


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))
