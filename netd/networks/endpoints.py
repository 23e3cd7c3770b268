"""Making an endpoint: a value of what the user asked for, names, and the addresses that its network gives."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_address

from msgspec.structs import replace

from netd.model.networks import EndpointSettings
from netd.model.sandboxes import Endpoint
from netd.networks.live import LiveNetwork
from netd.networks.settings import Asked, interface_options


@dataclass(frozen=True, slots=True)
class EndpointRequest:
    """What an endpoint is to be: the user's settings, and what follows from whose it is."""

    settings: EndpointSettings
    ifname: str = ""  # unless the settings name the interface
    names: Sequence[str] = ()  # that resolve to it
    services: Sequence[str] = ()  # exposed and published ports, as in `80/tcp`


def new_id() -> str:
    return secrets.token_hex(32)


def local_endpoint(live: LiveNetwork, request: EndpointRequest) -> Endpoint:
    """An endpoint with addresses taken from a local network; if this fails, none are taken."""
    asked = Asked.of(request.settings)
    blank = blank_endpoint(live, request, asked, new_id())
    if not blank.ifname:
        return blank
    ipv4 = live.addresses.take(4, asked.ipv4)
    try:
        ipv6 = live.addresses.take(6, asked.ipv6)
    except BaseException:
        if ipv4:
            live.addresses.release(ip_address(ipv4.partition("/")[0]))
        raise
    gateways = {ip_address(c.gateway).version: c.gateway for c in live.record.ipam.config or () if c.gateway}
    return replace(
        addressed(blank, ipv4, ipv6),
        gateway4=gateways.get(4, "") if ipv4 else "",
        gateway6=gateways.get(6, "") if ipv6 else "",
    )


def blank_endpoint(live: LiveNetwork, request: EndpointRequest, asked: Asked, endpoint_id: str) -> Endpoint:
    """An endpoint without addresses as yet. On networks host and none it never has any, nor an interface.

    Raises `InvalidParameter` for options that cannot be.
    """
    record, settings = live.record, request.settings
    base = Endpoint(
        id=endpoint_id,
        network_id=record.id,
        network=record.name,
        internal=record.internal,
        predefined=live.predefined,
        scope=record.scope,
        priority=settings.gw_priority,
    )
    if record.driver in ("host", "null"):
        return base
    ifname, sysctls = interface_options(settings)
    return replace(
        base,
        ifname=ifname or request.ifname,
        mac=asked.mac,
        link_local=asked.link_local,
        names=() if live.predefined else tuple(dict.fromkeys(n for n in request.names if n)),
        links={} if live.predefined else asked.links,
        services=tuple(request.services),
        sysctls=sysctls,
    )


def addressed(blank: Endpoint, ipv4: str, ipv6: str) -> Endpoint:
    """The endpoint with its addresses, and a MAC address after them unless the user named one."""
    return replace(blank, ipv4=ipv4, ipv6=ipv6, mac=blank.mac or _generated_mac(ipv4))


def _generated_mac(ipv4: str) -> str:
    """02:42 and the four bytes of the IPv4 address (fact 2.103); random without one."""
    tail = IPv4Address(ipv4.partition("/")[0]).packed if ipv4 else secrets.token_bytes(4)
    return ":".join(f"{byte:02x}" for byte in b"\x02\x42" + tail)
