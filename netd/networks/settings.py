"""What a user asks of an endpoint, checked: addresses, links, a MAC address, options of the interface."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from netaddr import EUI, AddrFormatError, mac_unix_expanded

from netd.core.errors import Forbidden, InvalidParameter
from netd.model.networks import EndpointIPAMConfig, EndpointSettings
from netd.networks.live import LiveNetwork

IFACE_PREFIX = "com.docker.network.container_iface_prefix"
_IFNAME = "com.docker.network.endpoint.ifname"
_SYSCTLS = "com.docker.network.endpoint.sysctls"
Address = IPv4Address | IPv6Address


# ---- what is accepted -----------------------------------------------------------------------------------


def check_settings(settings: EndpointSettings) -> None:
    """What can be wrong with an endpoint's settings on any network (facts 2.97, 2.100, 2.103)."""
    Asked.of(settings)


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


# ---- parsing --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Asked:
    """An endpoint's settings, parsed."""

    ipv4: Address | None
    ipv6: Address | None
    link_local: tuple[str, ...]
    mac: str
    links: dict[str, str]

    @classmethod
    def of(cls, settings: EndpointSettings) -> Asked:
        """Raises `InvalidParameter`."""
        asked = settings.ipam_config or EndpointIPAMConfig()
        return cls(
            ipv4=_requested(asked.ipv4_address, 4),
            ipv6=_requested(asked.ipv6_address, 6),
            link_local=tuple(_link_local(text) for text in asked.link_local_ips or ()),
            mac=_normal_mac(settings.mac_address) if settings.mac_address else "",
            links=parse_links(settings.links or ()),
        )


def interface_options(settings: EndpointSettings) -> tuple[str, dict[str, str]]:
    """The interface's name, if the user chose it, and its sysctls (fact 2.58). Raises `InvalidParameter`."""
    options = settings.driver_opts or {}
    return options.get(_IFNAME, ""), _sysctls(options.get(_SYSCTLS, ""))


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


def _requested(text: str, version: int) -> Address | None:
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


def _normal_mac(text: str) -> str:
    """`02-42-..` or `0242...` in the usual lower-case colon form."""
    try:
        return str(EUI(text, dialect=mac_unix_expanded))
    except (AddrFormatError, ValueError, TypeError):
        raise InvalidParameter(f"address {text}: invalid MAC address") from None


def _link_local(text: str) -> str:
    try:
        address = ip_address(text)
    except ValueError:
        address = None
    if address is None or not address.is_link_local:
        raise InvalidParameter(f"invalid link local IP address: {text}")
    return f"{address}/{16 if address.version == 4 else 64}"


def _sysctls(text: str) -> dict[str, str]:
    """`net.ipv4.conf.IFNAME.forwarding=1,...`"""
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
