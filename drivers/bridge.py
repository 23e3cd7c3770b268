"""Networks of driver `bridge`: what their options and pools mean. Pure functions.

Option names, defaults and error texts are Docker's.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface, ip_interface
from typing import TypeVar

from drivers.ruleset import Elements
from drivers.spec import InvalidOption, Network, OptionConflict

_BRIDGE = "com.docker.network.bridge."
NAME, DEFAULT = _BRIDGE + "name", _BRIDGE + "default_bridge"
MASQUERADE, ICC = _BRIDGE + "enable_ip_masquerade", _BRIDGE + "enable_icc"
HOST_BINDING, INHIBIT_IPV4 = _BRIDGE + "host_binding_ipv4", _BRIDGE + "inhibit_ipv4"
MTU, HOST_IPV4, HOST_IPV6 = (
    "com.docker.network.driver.mtu",
    "com.docker.network.host_ipv4",
    "com.docker.network.host_ipv6",
)
DEFAULT_DEVICE = "netd0"

A = TypeVar("A", IPv4Address, IPv6Address)

_ADDR_GEN_EUI64, _ADDR_GEN_NONE = 0, 1
_DEVICE_NAME = re.compile(r"[A-Za-z0-9_.@+=-]{1,15}")


@dataclass(frozen=True, slots=True)
class BridgeOptions:
    """The options of one bridge network, parsed. `mtu` 0 means the kernel's default."""

    device: str
    masquerade: bool = True
    icc: bool = True
    inhibit_ipv4: bool = False
    mtu: int = 0
    host_ipv4: IPv4Address | None = None
    host_ipv6: IPv6Address | None = None


def parse_options(network: Network) -> BridgeOptions:
    """Read a network's options; InvalidOption with Docker's words for a value that cannot be read."""
    options = network.options
    _address(options, HOST_BINDING)
    return BridgeOptions(
        device=_device(network),
        masquerade=parse_boolean(options, MASQUERADE, default=True),
        icc=parse_boolean(options, ICC, default=True),
        inhibit_ipv4=parse_boolean(options, INHIBIT_IPV4, default=False),
        mtu=parse_mtu(options),
        host_ipv4=_address_of(options, HOST_IPV4, IPv4Address),
        host_ipv6=_address_of(options, HOST_IPV6, IPv6Address),
    )


def _device(network: Network) -> str:
    given = network.options.get(NAME, "")
    if not given:
        default = parse_boolean(network.options, DEFAULT, default=False)
        return DEFAULT_DEVICE if default else "br-" + network.id[:12]
    if not _DEVICE_NAME.fullmatch(given) or given in (".", ".."):
        raise InvalidOption(
            f"invalid {NAME} {given!r}: a device name has 1 to 15 characters, letters, digits or any of _.@+=-"
        )
    return given


def parse_boolean(options: Mapping[str, str], key: str, *, default: bool) -> bool:
    """An option as Go's strconv.ParseBool reads it."""
    value = options.get(key)
    if value is None:
        return default
    if value in ("1", "t", "T", "TRUE", "true", "True"):
        return True
    if value in ("0", "f", "F", "FALSE", "false", "False"):
        return False
    raise InvalidOption(f'failed to parse {key} value: {value} (strconv.ParseBool: parsing "{value}": invalid syntax)')


def parse_mtu(options: Mapping[str, str]) -> int:
    """The network's MTU in bytes; 0 if none is asked for."""
    value = options.get(MTU)
    if value is None:
        return 0
    if not re.fullmatch(r"[+-]?[0-9]+", value, re.ASCII):
        raise InvalidOption(f'failed to parse {MTU} value: {value} (strconv.Atoi: parsing "{value}": invalid syntax)')
    mtu = int(value)
    if mtu < 0 or mtu > 65535:
        raise InvalidOption(f"invalid MTU number: {mtu}")
    return mtu


def _address(options: Mapping[str, str], key: str) -> IPv4Address | IPv6Address | None:
    value = options.get(key)
    if not value:
        return None
    try:
        return ipaddress.ip_address(value)
    except ValueError:
        raise InvalidOption(f"failed to parse {key} value: {value} (nil ip)") from None


def _address_of(options: Mapping[str, str], key: str, kind: type[A]) -> A | None:
    address = _address(options, key)
    if address is not None and not isinstance(address, kind):
        raise InvalidOption(f"failed to parse {key} value: {address} (wrong address family)")
    return address


def validate(network: Network, existing: Iterable[Network]) -> None:
    """Refuse options that cannot be read, and a network that clashes with another bridge network of this host."""
    device = parse_options(network).device
    for other in existing:
        if other.id == network.id or other.driver != network.driver:
            continue
        other_device = parse_options(other).device
        clash = _clash(network, device, other, other_device)
        if clash:
            raise OptionConflict(
                f"cannot create network {network.id} ({device}): "
                f"conflicts with network {other.id} ({other_device}): {clash}"
            )


def _clash(network: Network, device: str, other: Network, other_device: str) -> str:
    if device == other_device:
        return "networks have same bridge name"
    for subnet in network.subnets:
        for taken in other.subnets:
            if subnet.pool.version == taken.pool.version and subnet.pool.overlaps(taken.pool):
                return f"networks have overlapping IPv{subnet.pool.version}"
    return ""


def gateway_addresses(network: Network, options: BridgeOptions) -> frozenset[IPv4Interface | IPv6Interface]:
    """What the bridge itself holds: the gateway of each pool."""
    return frozenset(
        ip_interface((subnet.gateway, subnet.pool.prefixlen))
        for subnet in network.subnets
        if subnet.gateway is not None and not (subnet.pool.version == 4 and options.inhibit_ipv4)
    )


def has_ipv6(network: Network) -> bool:
    return any(subnet.pool.version == 6 for subnet in network.subnets)


# ---- the firewall's view --------------------------------------------------------------------------------


def elements(network: Network) -> Elements:
    """A bridge network's part of our nftables table."""
    options = parse_options(network)
    device = f'"{options.device}"'
    found: Elements = {"bridges": {device: ""}, "same": {f"{device} . {device}": ""}}
    if not options.icc:
        found["no_icc"] = {device: ""}
    for subnet in network.subnets:
        single = subnet.pool.prefixlen == subnet.pool.max_prefixlen  # nftables lists it as an address
        key = str(subnet.pool.network_address if single else subnet.pool)
        found.setdefault(f"subnets{subnet.pool.version}", {})[key] = ""
    if network.internal:
        found["internal"] = {device: ""}
    elif options.masquerade:
        found["masqueraded"] = {device: ""}
        for address in (options.host_ipv4, options.host_ipv6):
            if address is not None:
                found[f"snat{address.version}"] = {device: str(address)}
    return found
