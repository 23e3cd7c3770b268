"""Subnets for networks: from the default pools, or as the user names them (facts 2.23, 2.28 to 2.36)."""

from __future__ import annotations

import hashlib
import socket
from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path

from netd.core.errors import Forbidden, InvalidParameter
from netd.ipam.validate import is_any

Prefix = IPv4Network | IPv6Network
Span = tuple[int, int]  # first and last address, as numbers

LOCAL_POOLS = (
    ("172.17.0.0/16", 16),
    ("172.18.0.0/16", 16),
    ("172.19.0.0/16", 16),
    ("172.20.0.0/14", 16),
    ("172.24.0.0/14", 16),
    ("172.28.0.0/14", 16),
    ("192.168.0.0/16", 20),
)
GLOBAL_POOLS = (("10.0.0.0/8", 24),)


@dataclass(frozen=True, slots=True)
class _Base:
    """A block and the prefix length of the subnets cut from it."""

    block: Prefix
    size: int


class PoolAllocator:
    """The subnets in use on this host. Without a v6 pool, v6 subnets come from a ULA /48 of this host (RFC 4193).

    The lowest free subnet of the lowest pool comes first, so that a released one is soon used again.
    """

    def __init__(self, pools: Sequence[tuple[str, int]] | None = None, *, host_id: str | None = None) -> None:
        self._bases = sorted((_base(*p) for p in pools or LOCAL_POOLS), key=lambda b: (b.block.version, b.block))
        if not any(base.block.version == 6 for base in self._bases):
            self._bases.append(_Base(ula_block(_host_id() if host_id is None else host_id), 64))
        self._used: dict[int, list[Span]] = {4: [], 6: []}

    async def request(self, subnet: Prefix | None = None, *, v6: bool = False, avoid: Iterable[Prefix] = ()) -> Prefix:
        """Take `subnet`, or a free default one that overlaps none of `avoid` (on-link routes of the host).

        `0.0.0.0/24` and `::/64` ask for any of that size. Raises `Forbidden` if the subnet overlaps one in use,
        `InvalidParameter` if the default pools are used up.
        """
        if subnet is None or is_any(subnet):
            family = subnet.version if subnet else (6 if v6 else 4)
            subnet = self._free(family, subnet.prefixlen if subnet else None, avoid)
        elif self._overlaps(subnet):
            raise Forbidden("invalid pool request: Pool overlaps with other one on this address space")
        insort(self._used[subnet.version], _span(subnet))
        return subnet

    def release(self, subnet: Prefix) -> None:
        """Give a subnet back; one that is not in use is fine."""
        used, span = self._used[subnet.version], _span(subnet)
        at = bisect_left(used, span)
        if at < len(used) and used[at] == span:
            del used[at]

    def _overlaps(self, subnet: Prefix) -> bool:
        first, last = _span(subnet)
        return _first_overlap(self._used[subnet.version], first, last) is not None

    def _free(self, family: int, size: int | None, avoid: Iterable[Prefix]) -> Prefix:
        # a default route overlaps everything and says nothing
        foreign = [_span(p) for p in avoid if p.version == family and p.prefixlen > 0]
        blocked = merged([*self._used[family], *foreign])
        for base in self._bases:
            length = base.size if size is None else size
            if base.block.version == family and length >= base.block.prefixlen:
                for first in _gaps(base.block, length, blocked):
                    return type(base.block)((first, length))
        raise InvalidParameter("all predefined address pools have been fully subnetted")


def ula_block(host_id: str) -> IPv6Network:
    """The /48 of unique local addresses that belongs to `host_id` (RFC 4193, 3.2: fd and 40 bits)."""
    return IPv6Network((b"\xfd" + hashlib.sha256(host_id.encode()).digest()[:5] + bytes(10), 48))


def merged(spans: Iterable[Span]) -> list[Span]:
    """Sorted, with overlapping and touching spans joined."""
    joined: list[Span] = []
    for first, last in sorted(spans):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
        else:
            joined.append((first, last))
    return joined


def _gaps(block: Prefix, length: int, blocked: Sequence[Span]) -> Iterator[int]:
    """The first address of the lowest subnet of `length` in `block` outside `blocked`, if there is one."""
    step = 1 << (block.max_prefixlen - length)
    first, end = _span(block)
    while first + step - 1 <= end:
        obstacle = _first_overlap(blocked, first, first + step - 1)
        if obstacle is None:
            yield first
            return
        first = (obstacle[1] // step + 1) * step


def _first_overlap(spans: Sequence[Span], first: int, last: int) -> Span | None:
    """The lowest of the sorted, disjoint spans that shares an address with first..last."""
    at = bisect_left(spans, (first,))
    if at and spans[at - 1][1] >= first:
        return spans[at - 1]
    if at < len(spans) and spans[at][0] <= last:
        return spans[at]
    return None


def _base(block: str, size: int) -> _Base:
    try:
        network = ip_network(block)
    except ValueError as error:
        raise InvalidParameter(f"invalid default address pool {block}: {error}") from error
    if not network.prefixlen <= size <= network.max_prefixlen:
        raise InvalidParameter(f"invalid default address pool {block}: it cannot be cut into networks of size {size}")
    return _Base(network, size)


def _span(subnet: Prefix) -> Span:
    return int(subnet.network_address), int(subnet.broadcast_address)


def _host_id() -> str:
    try:
        return Path("/etc/machine-id").read_text().strip() or socket.gethostname()
    except OSError:
        return socket.gethostname()
