"""A network's address pools: as the options say, as they were allocated, and the addresses handed out of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from netd.ipam.addresses import AddressSpace
from netd.ipam.validate import PoolRequest, reserved_by_subnet
from netd.model.networks import IPAMConfig, Network

Address = IPv4Address | IPv6Address


def bip_pool(bip: str) -> IPAMConfig:
    address, _, _ = bip.partition("/")
    return IPAMConfig(subnet=str(ip_network(bip, strict=False)), gateway=address)


def resolved(pool: PoolRequest, subnet: IPv4Network | IPv6Network) -> IPAMConfig:
    """The pool as it was allocated: its gateway is the first address of the range unless the user named one."""
    gateway = pool.gateway or next(a for a in _hosts(subnet, pool.ip_range) if a not in pool.aux.values())
    return IPAMConfig(
        subnet=str(subnet),
        ip_range=str(pool.ip_range) if pool.ip_range else "",
        gateway=str(gateway),
        auxiliary_addresses={k: str(v) for k, v in pool.aux.items()} or None,
    )


def _hosts(
    subnet: IPv4Network | IPv6Network, ip_range: IPv4Network | IPv6Network | None
) -> Iterator[IPv4Address | IPv6Address]:
    """The addresses of the range that a host may have, lowest first (fact 2.40)."""
    unusable = reserved_by_subnet(subnet)
    return (address for address in ip_range or subnet if address not in unusable)


class Addresses:
    """A local network's addresses: free, in use by an endpoint, or kept for containers while they do not run.

    A kept address is never chosen, but whoever asks for it by name gets it (fact 2.44). It may be kept
    for several, until the last of them lets go.
    """

    def __init__(self, spaces: Iterable[AddressSpace] = ()) -> None:
        self.spaces = tuple(spaces)
        self._used: Counter[Address] = Counter()  # twice only after a run that left something undone
        self._kept: dict[Address, list[str]] = {}

    @classmethod
    def of(cls, record: Network) -> Addresses:
        label = f"{record.name} ({record.id})"
        return cls(_space(item, label) for item in record.ipam.config or ())

    def take(self, version: int, wanted: Address | None = None) -> str:
        """An address of this family with its prefix length: `wanted`, or a free one; empty without such a subnet.

        Raises `InvalidParameter` (outside the subnet), `Forbidden` (in use) or `NetdError` (nothing left).
        """
        space = next((s for s in self.spaces if s.pool.version == version), None)
        if space is None:
            return ""
        kept = wanted is not None and wanted in self._kept and wanted not in self._used
        address = wanted if kept and wanted else space.allocate(wanted)
        self._used[address] += 1
        return f"{address}/{space.pool.prefixlen}"

    def claim(self, address: Address) -> None:
        """Note that an endpoint of an earlier daemon has this address; if two do, it is free when both are gone."""
        if (space := self._around(address)) is not None:
            space.claim(address)
            self._used[address] += 1

    def release(self, address: Address) -> None:
        """An endpoint has it no more; fine if none had."""
        self._used[address] -= 1
        if self._used[address] <= 0:
            del self._used[address]
            self._free(address)

    def keep(self, address: Address, owner: str) -> None:
        """Keep an address for a container; what no container can have, such as the gateway's, is passed over."""
        space = self._around(address)
        if space is None:
            return
        if address not in self._kept and address not in self._used:
            if space.in_use(address):
                return
            space.allocate(address)
        owners = self._kept.setdefault(address, [])
        if owner not in owners:
            owners.append(owner)

    def let_go(self, owner: str) -> None:
        """Keep nothing for this container any more."""
        for address, owners in list(self._kept.items()):
            if owner in owners:
                owners.remove(owner)
            if not owners:
                del self._kept[address]
                self._free(address)

    def _free(self, address: Address) -> None:
        space = self._around(address)
        if space is not None and address not in self._used and address not in self._kept:
            space.release(address)

    def _around(self, address: Address) -> AddressSpace | None:
        return next((s for s in self.spaces if s.pool.version == address.version and address in s.pool), None)


def _space(item: IPAMConfig, label: str) -> AddressSpace:
    return AddressSpace(
        ip_network(item.subnet),
        ip_range=ip_network(item.ip_range) if item.ip_range else None,
        gateway=ip_address(item.gateway) if item.gateway else None,
        aux=[ip_address(a) for a in (item.auxiliary_addresses or {}).values()],
        label=label,
    )
