"""A network as the drivers need it."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

from drivers import spec
from netd.model.networks import Network


def network_spec(record: Network) -> spec.Network:
    """The record in the drivers' words; what only a host knows of an overlay (VNIs, its own address) is missing."""
    subnets = tuple(
        spec.Subnet(ip_network(item.subnet), ip_address(item.gateway) if item.gateway else None)
        for item in record.ipam.config or ()
    )
    return spec.Network(record.id, record.name, record.driver, subnets, record.internal, record.options)
