"""Sandboxes as the drivers need them."""

from __future__ import annotations

from ipaddress import IPv4Interface, IPv6Interface, ip_address, ip_interface

from drivers import spec
from netd.model.sandboxes import Endpoint, Published, Sandbox


def kernel_spec(sandbox: Sandbox, dns: spec.DnsPorts | None) -> spec.Sandbox:
    """The sandbox as the drivers need it: published ports ride on the endpoint that carries the default route."""
    gateway4, gateway6 = sandbox.gateway4, sandbox.gateway6
    return spec.Sandbox(
        id=sandbox.id,
        netns=sandbox.netns,
        endpoints=tuple(
            _endpoint_spec(e, _forwards(sandbox.published, e is gateway4, e is gateway6))
            for e in sandbox.endpoints
            if e.ifname
        ),
        gateway4=gateway4.id if gateway4 else None,
        gateway6=gateway6.id if gateway6 else None,
        dns=dns,
    )


def _forwards(published: tuple[Published, ...], ipv4: bool, ipv6: bool) -> tuple[spec.PortForward, ...]:
    forwards = []
    for port in published:
        address = ip_address(port.host_ip)
        if (address.version == 4 and ipv4) or (address.version == 6 and ipv6):
            forwards.append(
                spec.PortForward(port.proto, address, port.host_port, port.container_port, port.count)  # type: ignore[arg-type]
            )
    return tuple(forwards)


def _endpoint_spec(endpoint: Endpoint, ports: tuple[spec.PortForward, ...]) -> spec.Endpoint:
    return spec.Endpoint(
        id=endpoint.id,
        network_id=endpoint.network_id,
        ifname=endpoint.ifname,
        mac=endpoint.mac,
        ipv4=IPv4Interface(endpoint.ipv4) if endpoint.ipv4 else None,
        ipv6=IPv6Interface(endpoint.ipv6) if endpoint.ipv6 else None,
        link_local=tuple(ip_interface(a) for a in endpoint.link_local),
        ports=ports,
        sysctls=endpoint.sysctls,
    )
