"""What settings say of an endpoint: names, addresses, options; and which network accepts them."""

from __future__ import annotations

import socket

from netd.core.errors import InvalidParameter
from netd.model.containers import Container
from netd.model.networks import EndpointSettings
from netd.networks.live import LiveNetwork


def hostname(record: Container) -> str:
    """The container's host name: the short id, unless the user gave one; host mode has the host's."""
    if record.config.hostname:
        return record.config.hostname
    if record.host_config.network_mode == "host":
        return socket.gethostname()
    return record.id[:12]


def dns_names(record: Container, settings: EndpointSettings) -> tuple[str, ...]:
    """Name, aliases, short id and host name, each once; the first one is what PTR answers (facts 1.26 and 1.27)."""
    names = (record.name, *(settings.aliases or ()), record.id[:12], record.config.hostname)
    return tuple(dict.fromkeys(n for n in names if n))


def configured(given: EndpointSettings) -> EndpointSettings:
    """What a user may set; the rest of the settings tells how a running endpoint is."""
    return EndpointSettings(
        ipam_config=given.ipam_config,
        links=given.links,
        aliases=given.aliases,
        mac_address=given.mac_address,
        driver_opts=given.driver_opts,
        gw_priority=given.gw_priority,
    )


def static_addresses(settings: EndpointSettings) -> tuple[str, ...]:
    asked = settings.ipam_config
    return (asked.ipv4_address, asked.ipv6_address) if asked is not None else ()


def check_connectable(record: Container, live: LiveNetwork) -> None:
    """Whether a container may be connected to a network at all."""
    mode = record.host_config.network_mode
    if mode == "host" or mode.startswith("container:"):
        raise InvalidParameter(
            "container sharing network namespace with another container or host cannot be connected to any other "
            "network"
        )
    if live.record.driver == "host":
        raise InvalidParameter(
            "cannot connect container to host network - container must be created in host network mode"
        )
    if "none" in record.networks or (live.record.driver == "null" and record.networks):
        raise InvalidParameter(
            "container cannot be connected to multiple networks with one of the networks in private (none) mode"
        )
