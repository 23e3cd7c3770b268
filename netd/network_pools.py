"""A network's address pools: as the options say, as they were allocated, and as a space to hand addresses out of."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from netd.ipam.addresses import AddressSpace
from netd.ipam.validate import PoolRequest, reserved_by_subnet
from netd.model import IPAMConfig


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


def address_space(item: IPAMConfig, label: str) -> AddressSpace:
    return AddressSpace(
        ip_network(item.subnet),
        ip_range=ip_network(item.ip_range) if item.ip_range else None,
        gateway=ip_address(item.gateway) if item.gateway else None,
        aux=[ip_address(a) for a in (item.auxiliary_addresses or {}).values()],
        label=label,
    )
