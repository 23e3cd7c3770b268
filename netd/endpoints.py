"""Making an endpoint: checking what the user asked of it, and giving it addresses, a MAC address and names."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING

from netaddr import EUI, AddrFormatError, mac_unix_expanded

from netd.errors import Forbidden, InvalidParameter
from netd.model import EndpointIPAMConfig, EndpointSettings
from netd.sandbox import Endpoint

if TYPE_CHECKING:
    from netd.networks import LiveNetwork

IFACE_PREFIX = "com.docker.network.container_iface_prefix"
_IFNAME = "com.docker.network.endpoint.ifname"
_SYSCTLS = "com.docker.network.endpoint.sysctls"
Address = IPv4Address | IPv6Address


def check_settings(settings: EndpointSettings) -> None:
    """What can be wrong with an endpoint's settings on any network (facts 2.97, 2.100, 2.103)."""
    asked = settings.ipam_config or EndpointIPAMConfig()
    requested_address(asked.ipv4_address, 4)
    requested_address(asked.ipv6_address, 6)
    for text in asked.link_local_ips or ():
        _link_local(text)
    if settings.mac_address:
        normal_mac(settings.mac_address)
    parse_links(settings.links or ())


def check_network_accepts(live: LiveNetwork, settings: EndpointSettings) -> None:
    """What this network does not offer: static addresses and aliases exist on user-defined networks only."""
    asked = settings.ipam_config or EndpointIPAMConfig()
    if live.record.config_only:
        raise Forbidden(f"cannot create endpoint on configuration-only network {live.record.name}")
    if live.predefined and (asked.ipv4_address or asked.ipv6_address):
        raise InvalidParameter("user-specified IP address is supported on user-defined networks only")
    if live.predefined and settings.aliases:
        raise InvalidParameter("network-scoped alias is supported only for containers in user defined networks")
    for text in (asked.ipv4_address, asked.ipv6_address):
        pools = [ip_network(item.subnet) for item in live.record.ipam.config or ()]
        if text and not any(ip_address(text) in pool for pool in pools):
            raise InvalidParameter(f"invalid endpoint settings:\nno configured subnet contains IP address {text}")


def make_endpoint(
    live: LiveNetwork,
    settings: EndpointSettings,
    *,
    ifname: str,
    names: Sequence[str],
    owner: str,
    services: Sequence[str] = (),
) -> Endpoint:
    """An endpoint with addresses taken from the network's spaces; give them back with `NetworkManager.leave`."""
    record = live.record
    base = Endpoint(
        id=secrets.token_hex(32),
        network_id=record.id,
        network=record.name,
        internal=record.internal,
        predefined=live.predefined,
        priority=settings.gw_priority,
    )
    if record.driver != "bridge":
        return base
    asked = settings.ipam_config or EndpointIPAMConfig()
    ipv4 = _take(live, asked.ipv4_address, 4, owner)
    try:
        ipv6 = _take(live, asked.ipv6_address, 6, owner)
    except BaseException:
        _give_back(live, ipv4)
        raise
    options = settings.driver_opts or {}
    gateways = {ip_address(c.gateway).version: c.gateway for c in record.ipam.config or () if c.gateway}
    return Endpoint(
        id=base.id,
        network_id=record.id,
        network=record.name,
        ifname=options.get(_IFNAME) or ifname,
        mac=normal_mac(settings.mac_address) if settings.mac_address else generated_mac(str(ipv4 or "")),
        ipv4=_with_prefix(live, ipv4),
        ipv6=_with_prefix(live, ipv6),
        link_local=tuple(_link_local(t) for t in asked.link_local_ips or ()),
        gateway4=gateways.get(4, "") if ipv4 else "",
        gateway6=gateways.get(6, "") if ipv6 else "",
        internal=record.internal,
        predefined=live.predefined,
        priority=settings.gw_priority,
        names=() if live.predefined else tuple(dict.fromkeys(n for n in names if n)),
        links={} if live.predefined else parse_links(settings.links or ()),
        services=tuple(services),
        sysctls=_sysctls(options.get(_SYSCTLS, "")),
    )


def requested_address(text: str, version: int) -> Address | None:
    """A static address as the user wrote it, of the right family."""
    if not text:
        return None
    try:
        address = ip_address(text)
    except ValueError:
        raise InvalidParameter(f"invalid IPv{version} address: {text}") from None
    mapped = address.version == 6 and address.ipv4_mapped is not None
    if address.version != version or mapped:
        raise InvalidParameter(f"invalid IPv{version} address: {text}")
    return address


def normal_mac(text: str) -> str:
    """`02-42-..` or `0242...` in the usual lower-case colon form."""
    try:
        return str(EUI(text, dialect=mac_unix_expanded))
    except (AddrFormatError, ValueError, TypeError):
        raise InvalidParameter(f"address {text}: invalid MAC address") from None


def parse_links(links: Sequence[str]) -> dict[str, str]:
    """`target[:alias]` to alias -> target; the alias defaults to the target's name (fact 1.39)."""
    parsed = {}
    for link in links:
        target, _, alias = link.partition(":")
        if not target or ":" in alias:
            raise InvalidParameter(f"bad format for links: {link}")
        target = target.lstrip("/")
        parsed[alias.rpartition("/")[2] or target] = target
    return parsed


def _take(live: LiveNetwork, wanted: str, version: int, owner: str) -> Address | None:
    space = live.space(version)
    if space is None:
        return None
    if not wanted:
        return space.allocate()
    address = ip_address(wanted)
    if live.reserved.get(address) == owner and not live.in_use(address):
        return address
    return space.allocate(address)


def _give_back(live: LiveNetwork, address: Address | None) -> None:
    if address is not None and address not in live.reserved:
        space = live.space(address.version)
        assert space is not None
        space.release(address)


def _with_prefix(live: LiveNetwork, address: Address | None) -> str:
    if address is None:
        return ""
    space = live.space(address.version)
    assert space is not None
    return f"{address}/{space.pool.prefixlen}"


def generated_mac(ipv4: str) -> str:
    """02:42 and the four bytes of the IPv4 address (fact 2.103); random without one."""
    tail = IPv4Address(ipv4.partition("/")[0]).packed if ipv4 else secrets.token_bytes(4)
    return ":".join(f"{byte:02x}" for byte in b"\x02\x42" + tail)


def _link_local(text: str) -> str:
    try:
        address = ip_address(text)
    except ValueError:
        address = None
    if address is None or not address.is_link_local:
        raise InvalidParameter(f"invalid link local IP address: {text}")
    return f"{address}/{16 if address.version == 4 else 64}"


def _sysctls(text: str) -> dict[str, str]:
    """`net.ipv4.conf.IFNAME.forwarding=1,...` (fact 2.58)."""
    parsed = {}
    for item in filter(None, text.split(",")):
        key, found, value = item.partition("=")
        parts = key.split(".")
        if (
            not found
            or len(parts) < 5
            or parts[0] != "net"
            or parts[1] not in ("ipv4", "ipv6", "mpls")
            or parts[3] != "IFNAME"
        ):
            raise InvalidParameter(
                f"unrecognised network interface sysctl '{item}'; represent 'net.X.Y.ethN.Z=V' as "
                "'net.X.Y.IFNAME.Z=V', 'X' must be 'ipv4', 'ipv6' or 'mpls'"
            )
        parsed[key] = value
    return parsed
