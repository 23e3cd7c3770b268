"""The ports of this host: which are taken, and which is next (facts 3.19 to 3.24)."""

from __future__ import annotations

import errno
import os
import re
import socket
from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Literal

from netd.core.errors import NetdError

Address = IPv4Address | IPv6Address
Protocol = Literal["tcp", "udp", "sctp"]
Span = tuple[int, int]  # first and last port

ANY_ADDRESS: tuple[Address, ...] = (IPv4Address(0), IPv6Address(0))
BIND_ATTEMPTS = 10  # ephemeral ports tried when processes of the host hold them, as moby does

_SYSCTLS = Path("/proc/sys/net/ipv4")
_RANGE = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")


@dataclass(frozen=True, slots=True)
class Port:
    """A container port, or `count` consecutive ones."""

    proto: Protocol
    first: int
    count: int = 1


@dataclass(frozen=True, slots=True)
class Binding:
    """`count` container ports from `port.first` on, to be bound to as many consecutive host ports.

    `host_ip` is None for the default addresses. `host` is None for an ephemeral port; a span that is longer
    than `port.count` lets the allocator choose.
    """

    port: Port
    host_ip: Address | None = None
    host: Span | None = None


@dataclass(frozen=True, slots=True)
class BoundPort:
    """`count` consecutive host ports of one address, held for as many container ports."""

    proto: Protocol
    host_ip: Address
    host_port: int
    container_port: int
    count: int = 1


def span_of(text: str) -> Span | None:
    """`80` or `80-90` as first and last; None if it is neither."""
    found = _RANGE.fullmatch(text)
    if not found:
        return None
    first = int(found[1])
    last = int(found[2] or first)
    return (first, last) if first <= last <= 65535 else None


def is_fixed(binding: Binding) -> bool:
    """Whether each of its container ports has one host port."""
    return binding.host is not None and binding.host[1] - binding.host[0] + 1 == binding.port.count


# ---- allocation -----------------------------------------------------------------------------------------


class PortAllocator:
    """The host ports held by containers, by owner. A range counts as one entry, however long it is."""

    def __init__(self, sysctls: Path = _SYSCTLS) -> None:
        self._sysctls = sysctls
        self._held: dict[tuple[Protocol, Address], _Spans] = {}
        self._owned: dict[str, list[BoundPort]] = {}
        self._last: dict[Protocol, int] = {}

    def allocate(
        self, owner: str, bindings: Iterable[Binding], default: Sequence[Address] = ANY_ADDRESS
    ) -> list[BoundPort]:
        """Take a host port for every binding, or none at all; `default` are the addresses if a binding names none.

        All addresses of one container port get the same number (fact 3.21). Raises `NetdError` with Docker's
        words if a port is held by another container or a process of the host. Probing costs about 10 µs a port.
        """
        taken: list[BoundPort] = []
        wanted = _by_port(bindings, default)
        ephemeral = self._read_sysctls() if any(binding.host is None for binding, _ in wanted) else None
        try:
            for binding, addresses in wanted:
                first = self._choose(binding, addresses, ephemeral)
                for address in addresses:
                    bound = BoundPort(binding.port.proto, address, first, binding.port.first, binding.port.count)
                    self._hold(bound)
                    taken.append(bound)
        except BaseException:
            self._let_go(taken)
            raise
        self._owned.setdefault(owner, []).extend(taken)
        return taken

    def claim(self, owner: str, ports: Iterable[BoundPort]) -> None:
        """Note ports that `owner` has held since before this daemon started; nothing is probed."""
        for port in ports:
            if port not in self._owned.get(owner, ()):
                self._hold(port)
                self._owned.setdefault(owner, []).append(port)

    def release(self, owner: str) -> None:
        """Let go of everything `owner` holds; an unknown owner is fine."""
        self._let_go(self._owned.pop(owner, []))

    def _let_go(self, ports: Iterable[BoundPort]) -> None:
        for port in ports:
            key = (port.proto, port.host_ip)
            self._held[key].remove(port.host_port, port.host_port + port.count - 1)
            if not self._held[key]:
                del self._held[key]

    def _hold(self, port: BoundPort) -> None:
        last = port.host_port + port.count - 1
        if (obstacle := self._obstacle(port.proto, [port.host_ip], port.host_port, last)) is not None:
            raise _already_allocated(port.host_ip, max(obstacle[0], port.host_port))
        self._held.setdefault((port.proto, port.host_ip), _Spans()).add(port.host_port, last)

    def _obstacle(self, proto: Protocol, addresses: Iterable[Address], first: int, last: int) -> Span | None:
        """A held span that overlaps first..last on one of the addresses, or on a wildcard that covers it."""
        for address in addresses:
            for (held_proto, held), spans in self._held.items():
                if held_proto == proto and _clash(held, address) and (found := spans.overlap(first, last)):
                    return found
        return None

    # ---- choosing ----------------------------------------------------------------------------------------

    def _choose(self, binding: Binding, addresses: Sequence[Address], ephemeral: _Ephemeral | None) -> int:
        if binding.host is None:
            assert ephemeral is not None
            return self._next_ephemeral(binding.port, addresses, ephemeral)
        if is_fixed(binding):
            self._check_fixed(binding.port, binding.host, addresses)
            return binding.host[0]
        for first in self._free(binding.port, binding.host, addresses):
            if _bind_error(binding.port.proto, addresses, first, binding.port.count) is None:
                return first
        raise NetdError("all ports are allocated")

    def _check_fixed(self, port: Port, host: Span, addresses: Sequence[Address]) -> None:
        for address in addresses:
            if (obstacle := self._obstacle(port.proto, [address], *host)) is not None:
                raise _already_allocated(address, max(obstacle[0], host[0]))
        if (problem := _bind_error(port.proto, addresses, host[0], port.count)) is not None:
            raise NetdError(problem)

    def _next_ephemeral(self, port: Port, addresses: Sequence[Address], ephemeral: _Ephemeral) -> int:
        """The next one after the last that was given out, round and round (fact 3.19)."""
        low, high = ephemeral.window
        start = self._last.get(port.proto, low - 1) + 1
        if not low <= start <= high:
            start = low
        problem, attempts = None, 0
        for window in ((start, high), (low, high)):
            for first in self._free(port, window, addresses, ephemeral.reserved):
                problem = _bind_error(port.proto, addresses, first, port.count)
                if problem is None:
                    self._last[port.proto] = first + port.count - 1
                    return first
                attempts += 1
                if attempts == BIND_ATTEMPTS:
                    raise NetdError(problem)
        raise NetdError(problem or "all ports are allocated")

    def _free(
        self, port: Port, window: Span, addresses: Sequence[Address], reserved: _Spans | None = None
    ) -> Iterator[int]:
        """Where `port.count` free ports begin inside the window, lowest first."""
        first = window[0]
        while (last := first + port.count - 1) <= window[1]:
            obstacle = self._obstacle(port.proto, addresses, first, last)
            if obstacle is None and reserved is not None:
                obstacle = reserved.overlap(first, last)
            if obstacle is None:
                yield first
                first += 1
            else:
                first = obstacle[1] + 1

    def _read_sysctls(self) -> _Ephemeral:
        low, high = (self._sysctls / "ip_local_port_range").read_text().split()
        reserved = _Spans()
        for item in (self._sysctls / "ip_local_reserved_ports").read_text().strip().split(","):
            if span := span_of(item):
                reserved.add(*span)
        return _Ephemeral((int(low), int(high)), reserved)


@dataclass(frozen=True, slots=True)
class _Ephemeral:
    """Where ephemeral ports lie, and what of it the administrator keeps for others (kernel: ip-sysctl)."""

    window: Span
    reserved: _Spans


class _Spans:
    """Disjoint spans of ports, sorted."""

    def __init__(self) -> None:
        self._items: list[Span] = []

    def __bool__(self) -> bool:
        return bool(self._items)

    def add(self, first: int, last: int) -> None:
        insort(self._items, (first, last))

    def remove(self, first: int, last: int) -> None:
        self._items.remove((first, last))

    def overlap(self, first: int, last: int) -> Span | None:
        """The lowest span that shares a port with first..last."""
        at = bisect_left(self._items, (first, 0))
        if at and self._items[at - 1][1] >= first:
            return self._items[at - 1]
        if at < len(self._items) and self._items[at][0] <= last:
            return self._items[at]
        return None


def _by_port(bindings: Iterable[Binding], default: Sequence[Address]) -> list[tuple[Binding, list[Address]]]:
    """Each port once, with all the addresses that want the same of it; those with fixed ports come first."""
    grouped: dict[tuple[Port, Span | None], dict[Address, None]] = {}
    for binding in bindings:
        addresses = grouped.setdefault((binding.port, binding.host), {})
        addresses.update(dict.fromkeys(default if binding.host_ip is None else (binding.host_ip,)))
    fixed_first = sorted(grouped.items(), key=lambda item: item[0][1] is None)
    return [(Binding(port, None, host), list(addresses)) for (port, host), addresses in fixed_first]


def _clash(one: Address, other: Address) -> bool:
    """Whether both cannot have the same port: the same address, or a wildcard of the family (fact 3.24)."""
    return one.version == other.version and (one == other or one.is_unspecified or other.is_unspecified)


def _already_allocated(address: Address, port: int) -> NetdError:
    return NetdError(f"Bind for {_host_port(address, port)} failed: port is already allocated")


def _host_port(address: Address, port: int) -> str:
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"


# ---- what processes of the host hold ------------------------------------------------------------------------

_KINDS = {
    "tcp": (socket.SOCK_STREAM, socket.IPPROTO_TCP),
    "udp": (socket.SOCK_DGRAM, socket.IPPROTO_UDP),
    "sctp": (socket.SOCK_STREAM, socket.IPPROTO_SCTP),
}
_NO_SUCH_SOCKETS = (errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT)


def _bind_error(proto: Protocol, addresses: Iterable[Address], first: int, count: int) -> str | None:
    """Why one of the ports cannot be bound, tried by binding each for a moment; None if all can."""
    for address in addresses:
        for port in range(first, first + count):
            if code := _bind_errno(proto, address, port):
                where = f"{_host_port(address, port)}/{proto}"
                return f"failed to bind host port {where}: {os.strerror(code).lower()}"
    return None


def _bind_errno(proto: Protocol, address: Address, port: int) -> int:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, *_KINDS[proto]) as probe:
            if address.version == 6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if proto != "udp":  # connections in TIME_WAIT are no obstacle; a listener is, all the same
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((str(address), port))
    except OSError as error:
        return 0 if error.errno in _NO_SUCH_SOCKETS else error.errno or errno.EIO
    return 0
