"""Forgetting tracked connections, so that no packet follows a translation that no longer holds.

UDP has no end of connection: an entry made before a port was published, or for a container that is gone, keeps
its packets on the old way as long as they flow. Selection happens in the kernel (CTA_FILTER, Linux 5.8).
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from drivers.netlink import NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, attributes, messages
from drivers.spec import DriverError

_NETLINK_NETFILTER = 12
# linux/netfilter/nfnetlink_conntrack.h
_SUBSYSTEM, _GET, _DELETE = 1, 1, 2
_TUPLE_ORIG, _TUPLE_REPLY, _FILTER, _ZONE = 1, 2, 25, 18
_TUPLE_IP, _TUPLE_PROTO = 1, 2
_IP_V4_SRC, _IP_V6_SRC = 1, 3
_PROTO_NUM, _PROTO_DST_PORT = 1, 3
_FILTER_ORIG, _FILTER_REPLY = 1, 2
_BY_SOURCE, _BY_PROTOCOL = 1 << 0, 1 << 3
_NESTED = 1 << 15

_UDP = bytes([socket.IPPROTO_UDP])
_COUNT = Path("/proc/sys/net/netfilter/nf_conntrack_count")
_FEW = 2000  # entries that are read faster than the table is walked again

_HEADER = struct.Struct("=IHHII")
_NFGEN = struct.Struct("=BBH")


@dataclass(frozen=True, slots=True)
class Stale:
    """Connections that no longer hold: from or led to these addresses, or over UDP to these ports of the host."""

    addresses: frozenset[IPv4Address | IPv6Address] = frozenset()
    udp_ports: frozenset[int] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.addresses or self.udp_ports)


class Conntrack:
    """A conntrack socket of the network namespace the calling thread is in when it opens it."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)
        self._sequence = 0

    def close(self) -> None:
        self._socket.close()

    def forget(self, stale: Stale) -> int:
        """Delete the tracked connections that are `stale`; returns how many.

        The kernel walks its whole hash table for every question (12 ms with 262,144 buckets), so a small
        table is read once, and a large one asked for each kind of entry.
        """
        count = int(_COUNT.read_text()) if _COUNT.exists() else 0
        if not count or not stale:
            return 0
        queries = {(0, b"")} if count <= _FEW else set(_queries(stale))
        matches = _matcher(stale)
        return sum(self._forget(family, query, matches) for family, query in queries)

    def _forget(self, family: int, query: bytes, matches: Callable[[dict[int, bytes]], bool]) -> int:
        count = 0
        for found_family, entry in list(self._dump(family, query)):
            if matches(entry):
                zone = entry.get(_ZONE)
                body = _attribute(_TUPLE_ORIG | _NESTED, entry[_TUPLE_ORIG])
                count += self._delete(found_family, body + (_attribute(_ZONE, zone) if zone else b""))
        return count

    def _send(self, kind: int, flags: int, family: int, body: bytes) -> None:
        self._sequence += 1
        payload = _NFGEN.pack(family, 0, 0) + body
        header = _HEADER.pack(
            _HEADER.size + len(payload), _SUBSYSTEM << 8 | kind, NLM_F_REQUEST | flags, self._sequence, 0
        )
        self._socket.send(header + payload)

    def _answers(self) -> Iterator[tuple[int, bytes]]:
        while True:
            for kind, _, sequence, body in messages(self._socket.recv(1 << 17)):
                if sequence == self._sequence:
                    yield kind, body

    def _dump(self, family: int, query: bytes) -> Iterator[tuple[int, dict[int, bytes]]]:
        """(address family, attributes) of the entries."""
        self._send(_GET, NLM_F_DUMP, family, query)
        for kind, body in self._answers():
            if kind == NLMSG_DONE:
                return
            if kind == NLMSG_ERROR:
                code = -struct.unpack_from("=i", body)[0]
                raise DriverError(f"cannot list tracked connections: {os.strerror(code)}")
            yield body[0], attributes(body, _NFGEN.size)

    def _delete(self, family: int, body: bytes) -> int:
        self._send(_DELETE, NLM_F_ACK, family, body)
        for kind, answer in self._answers():
            if kind == NLMSG_ERROR:
                code = -struct.unpack_from("=i", answer)[0]
                if code not in (0, errno.ENOENT):  # it may have ended meanwhile
                    raise DriverError(f"cannot forget a tracked connection: {os.strerror(code)}")
                return int(code == 0)
        return 0


def _matcher(stale: Stale) -> Callable[[dict[int, bytes]], bool]:
    addresses = {address.packed for address in stale.addresses}
    ports = {struct.pack("!H", port) for port in stale.udp_ports}

    def matches(entry: dict[int, bytes]) -> bool:
        orig, reply = attributes(entry[_TUPLE_ORIG], 0), attributes(entry.get(_TUPLE_REPLY, b""), 0)
        if _source(orig) in addresses or _source(reply) in addresses:
            return True
        proto = attributes(orig.get(_TUPLE_PROTO, b""), 0)
        return proto.get(_PROTO_NUM) == _UDP and proto.get(_PROTO_DST_PORT) in ports

    return matches


def _source(tuple_: dict[int, bytes]) -> bytes:
    ip = attributes(tuple_.get(_TUPLE_IP, b""), 0)
    return ip.get(_IP_V4_SRC) or ip.get(_IP_V6_SRC) or b""


def _queries(stale: Stale) -> Iterator[tuple[int, bytes]]:
    """(address family, attributes of the question) that together select all of `stale` in the kernel."""
    for address in stale.addresses:
        family, kind = (socket.AF_INET, _IP_V4_SRC) if address.version == 4 else (socket.AF_INET6, _IP_V6_SRC)
        source = _attribute(_TUPLE_IP | _NESTED, _attribute(kind, address.packed))
        for tuple_, flags in ((_TUPLE_ORIG, _FILTER_ORIG), (_TUPLE_REPLY, _FILTER_REPLY)):
            yield family, _attribute(tuple_ | _NESTED, source) + _filter(flags, _BY_SOURCE)
    if stale.udp_ports:
        udp = _attribute(_TUPLE_PROTO | _NESTED, _attribute(_PROTO_NUM, _UDP))
        for family in (socket.AF_INET, socket.AF_INET6):
            yield family, _attribute(_TUPLE_ORIG | _NESTED, udp) + _filter(_FILTER_ORIG, _BY_PROTOCOL)


def _attribute(kind: int, payload: bytes) -> bytes:
    length = 4 + len(payload)
    return struct.pack("=HH", length, kind) + payload + bytes(-length % 4)


def _filter(tuple_flags: int, fields: int) -> bytes:
    """Which fields of the given tuple the kernel has to compare."""
    return _attribute(_FILTER | _NESTED, _attribute(tuple_flags, struct.pack("=I", fields)))
