"""Addresses and network identifiers (VNIs) that are unique in the whole cluster."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from kvstore.contract import Store
from netd.cluster.claims import Claims
from netd.core.errors import Forbidden, InvalidParameter, NetdError
from netd.ipam.validate import reserved_by_subnet

Address = IPv4Address | IPv6Address
Prefix = IPv4Network | IPv6Network

VNIS = (4096, (1 << 24) - 1)  # below lie numbers that switches use for VLANs; RFC 7348 gives 24 bits


class ClusterAddressSpace:
    """One subnet's addresses, handed out by all hosts. Each host goes up from a place of its own.

    `name` identifies the subnet's claims in the store; several subnets of one network may share `claims`. Run
    `claims.follow()` as a task while it is in use.
    """

    def __init__(
        self,
        store: Store,
        name: str,
        pool: Prefix,
        *,
        host: str,
        ip_range: Prefix | None = None,
        gateway: Address | None = None,
        aux: Iterable[Address] = (),
        label: str = "",
        claims: Claims | None = None,
    ) -> None:
        self.pool = pool
        self.claims = claims or Claims(store, f"ipam/{name}/ip", host)
        window = ip_range or pool
        self._first = int(window.network_address)
        self._size = int(window.broadcast_address) - self._first + 1
        self._reserved = {*reserved_by_subnet(pool), *aux, *((gateway,) if gateway else ())}
        self._next = _place(host, self._size)
        self._label = label
        self._doubtful: dict[str, Address] = {}  # by owner: claims that may have been made before the store failed

    def in_use(self, address: Address) -> bool:
        """As far as this host knows."""
        return address in self._reserved or str(address) in self.claims.held

    async def allocate(self, owner: str, address: Address | None = None) -> Address:
        """Take `address`, or a free one, for the endpoint `owner`. An address that it has already is given again.

        Raises `InvalidParameter` (outside the subnet), `Forbidden` (taken), `NetdError` (nothing left) or
        `Unavailable` (the store); asking again for the same owner then settles what became of the first try.
        """
        if address is not None:
            return await self._take_static(owner, address)
        for refreshed in (False, True):
            if refreshed:
                await self.claims.refresh()
            while (candidate := self._doubtful.get(owner) or self._candidate()) is not None:
                self._doubtful[owner] = candidate
                taken = await self.claims.take(str(candidate), owner)
                del self._doubtful[owner]
                if taken:
                    return candidate
                # somebody goes up the same stretch: leave it to them
                self._next = random.randrange(self._size)
        raise NetdError(self._exhausted())

    async def release(self, owner: str, address: Address) -> None:
        """Give an address back; one that `owner` does not have is fine."""
        await self.claims.release(str(address), owner)

    async def _take_static(self, owner: str, address: Address) -> Address:
        if address.version != self.pool.version or address not in self.pool:
            raise InvalidParameter("requested address is out of range")
        if address in self._reserved or not await self.claims.take(str(address), owner):
            raise Forbidden("Address already in use")
        return address

    def _candidate(self) -> Address | None:
        """The next address that is free as far as we know: one round through the subnet, in the end."""
        kind = type(self.pool.network_address)
        most = len(self.claims.held) + len(self._reserved) + 1
        for _ in range(min(self._size, most)):
            address = kind(self._first + self._next)
            self._next = (self._next + 1) % self._size
            if not self.in_use(address):
                return address
        return None

    def _exhausted(self) -> str:
        text = f"no available IPv{self.pool.version} addresses on this network's address pools"
        return f"{text}: {self._label}" if self._label else text


async def allocate_vni(store: Store, host: str, network_id: str, wanted: Iterable[int] = ()) -> int:
    """A VNI for a network: one of `wanted`, or any. Raises `Forbidden` if all wanted ones are taken."""
    claims = Claims(store, "vni", host)
    if chosen := list(wanted):
        for vni in chosen:
            if await claims.take(str(vni), network_id):
                return vni
        raise Forbidden(f"every VNI asked for is in use: {', '.join(map(str, chosen))}")
    while True:
        vni = random.randint(*VNIS)
        if await claims.take(str(vni), network_id):
            return vni


async def release_vni(store: Store, host: str, network_id: str, vni: int) -> None:
    """Give a VNI back; one that the network does not have is fine."""
    await Claims(store, "vni", host).release(str(vni), network_id)


def _place(host: str, size: int) -> int:
    """Where a host begins: the same each time, and as good as random among hosts."""
    return int.from_bytes(hashlib.sha256(host.encode()).digest()[:16], "big") % size
