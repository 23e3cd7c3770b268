"""Checking the address pools a user asks for (facts 2.20 to 2.32); every problem is told, one a line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_address,
    ip_interface,
)

from netd.core.errors import Forbidden, InvalidParameter
from netd.model.networks import IPAMConfig

Address = IPv4Address | IPv6Address
Prefix = IPv4Network | IPv6Network

_CIDR = re.compile(r"[0-9a-fA-F.:]+/(0|[1-9][0-9]{0,2})")


@dataclass(frozen=True, slots=True)
class PoolRequest:
    """One pool to allocate. `subnet` is None for "any", and has an unspecified address for "any of that size"."""

    subnet: Prefix | None
    v6: bool = False
    ip_range: Prefix | None = None
    gateway: Address | None = None
    aux: Mapping[str, Address] = field(default_factory=dict)


def validate(config: Iterable[IPAMConfig], *, ipv4: bool, ipv6: bool) -> tuple[PoolRequest, ...]:
    """What `config` asks for; a family that is enabled and not mentioned gets "any". The others are ignored.

    Raises `InvalidParameter` with all problems joined, or `Forbidden` for an address that is given away twice.
    """
    problems: list[str] = []
    pools = [pool for item in config if (pool := _parse(item, problems, ipv4, ipv6))]
    if problems:
        raise InvalidParameter("\n".join(["invalid network config:", *problems]))
    for pool in pools:
        _check_distinct(pool)
    given = {pool.v6 for pool in pools}
    pools += [PoolRequest(None, v6) for v6, wanted in ((False, ipv4), (True, ipv6)) if wanted and v6 not in given]
    return tuple(pools)


def is_any(subnet: Prefix) -> bool:
    """Whether `subnet` stands for any free one of its size (`0.0.0.0/24`, `::/64`)."""
    return subnet.network_address.is_unspecified


def reserved_by_subnet(subnet: Prefix) -> tuple[Address, ...]:
    """The addresses no host can have: network and broadcast, or for IPv6 the subnet-router anycast (RFC 4291, 2.6.1).

    A /31 or /127 has two hosts and nothing else (RFC 3021, RFC 6164), a /32 or /128 one.
    """
    if subnet.max_prefixlen - subnet.prefixlen < 2:
        return ()
    if subnet.version == 6:
        return (subnet.network_address,)
    return (subnet.network_address, subnet.broadcast_address)


def _parse(item: IPAMConfig, problems: list[str], ipv4: bool, ipv6: bool) -> PoolRequest | None:
    interface = _cidr(item.subnet)
    if interface is None:
        problems.append(f"invalid subnet {item.subnet}: invalid CIDR block notation")
        return None
    subnet: Prefix = interface.network
    if not (ipv6 if subnet.version == 6 else ipv4):
        return None
    if interface.ip != subnet.network_address:
        problems.append(f"invalid subnet {item.subnet}: it should be {subnet}")
    if is_any(subnet) and (item.ip_range or item.gateway or item.auxiliary_addresses):
        problems.append(f"invalid subnet {item.subnet}: addresses can be given only together with a definite subnet")
        return None
    problems.extend(_range_problems(item.ip_range, subnet))
    gateway, fault = _address(item.gateway, subnet)
    if fault:
        problems.append(f"invalid gateway {item.gateway}: {fault}")
    aux = {}
    for name, text in (item.auxiliary_addresses or {}).items():
        address, fault = _address(text, subnet)
        if fault:
            problems.append(f"invalid auxiliary address {name}: {fault}")
        elif address is not None:
            aux[name] = address
    range_ = _cidr(item.ip_range)
    return PoolRequest(subnet, subnet.version == 6, range_.network if range_ else None, gateway, aux)


def _cidr(text: str) -> IPv4Interface | IPv6Interface | None:
    """`address/bits` with decimal bits, as strict as Go's netip; None if it is not that."""
    if not _CIDR.fullmatch(text):
        return None
    try:
        return ip_interface(text)
    except ValueError:
        return None


def _range_problems(text: str, subnet: Prefix) -> Iterator[str]:
    if not text:
        return
    interface = _cidr(text)
    if interface is None:
        yield f"invalid ip-range {text}: invalid CIDR block notation"
        return
    block: Prefix = interface.network
    if block.version != subnet.version:
        yield f"invalid ip-range {text}: parent subnet is an IPv{subnet.version} block"
        return
    if block.prefixlen < subnet.prefixlen:
        yield f"invalid ip-range {text}: CIDR block is bigger than its parent subnet {subnet}"
    if interface.ip != block.network_address:
        yield f"invalid ip-range {text}: it should be {block}"
    if not block.overlaps(subnet):
        yield f"invalid ip-range {text}: parent subnet {subnet} doesn't contain ip-range"


def _address(text: str, subnet: Prefix) -> tuple[Address | None, str]:
    """The address, or what is wrong with it."""
    if not text:
        return None, ""
    try:
        address = ip_address(text)
    except ValueError:
        return None, "invalid address"
    if address.version != subnet.version:
        return None, f"parent subnet is an IPv{subnet.version} block"
    if address not in subnet:
        return None, f"parent subnet {subnet} doesn't contain this address"
    return address, ""


def _check_distinct(pool: PoolRequest) -> None:
    if pool.subnet is None or is_any(pool.subnet):
        return
    taken = set(reserved_by_subnet(pool.subnet))
    if pool.gateway is not None:
        if pool.gateway in taken:
            raise Forbidden(f"failed to allocate gateway ({pool.gateway}): Address already in use")
        taken.add(pool.gateway)
    for name, address in pool.aux.items():
        if address in taken:
            raise Forbidden(f"failed to allocate secondary ip address ({name}:{address}): Address already in use")
        taken.add(address)
