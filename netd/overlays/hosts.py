"""The cluster's hosts as `netd hosts` shows them: who is there, what is on them, what is wrong with the way to them."""

from __future__ import annotations

import time
from collections import defaultdict
from typing import Any, Protocol

from netd.cluster.channel import Path
from netd.cluster.cluster import Cluster
from netd.cluster.model import EndpointRecord, HostRecord
from netd.core.errors import NotFound, Unavailable
from netd.core.times import rfc3339
from netd.networks.scope import refuse

Json = dict[str, Any]


class HostsView(Protocol):
    """What there is to be told of the cluster's hosts."""

    async def hosts(self) -> list[Json]:
        """GET /netd/hosts: one line each."""

    async def host(self, name: str) -> Json:
        """GET /netd/hosts/{name}: all that is known of one. Raises `NotFound`."""

    def problems(self) -> dict[str, str]:
        """By the names of all hosts: what is wrong, empty if nothing is."""


class ClusterView:
    """The `HostsView` of a daemon that has a cluster."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def hosts(self) -> list[Json]:
        cluster, endpoints = self._cluster, await _endpoints(self._cluster)
        return [{**_summary(cluster, h), "Endpoints": sum(e.host == h.name for e in endpoints)} for h in _all(cluster)]

    async def host(self, name: str) -> Json:
        return await _host(self._cluster, name)

    def problems(self) -> dict[str, str]:
        return {host.name: _problem(self._cluster, host) for host in _all(self._cluster)}


class NoHosts:
    """That of a daemon without one."""

    async def hosts(self) -> list[Json]:
        refuse()

    async def host(self, name: str) -> Json:
        refuse()

    def problems(self) -> dict[str, str]:
        return {}


async def _host(cluster: Cluster, name: str) -> Json:
    found = next((host for host in _all(cluster) if host.name == name), None)
    if found is None:
        raise NotFound(f"no host of the cluster is called {name}: `netd hosts` lists them")
    networks: defaultdict[str, list[Json]] = defaultdict(list)
    for endpoint in await _endpoints(cluster):
        if endpoint.host == name:
            networks[_network_name(cluster, endpoint)].append(_endpoint(endpoint))
    channel = cluster.channel
    there = channel.paths.get(name) if channel else None
    back = channel.back.get(name) if channel else None
    return {
        **_summary(cluster, found),
        "Path": {"There": _path(there), "Back": _path(back)},
        "Delay": round(there.delay, 6) if there else None,
        "ClockOffset": round(there.skew, 3) if there else None,
        "Networks": dict(sorted(networks.items())),
    }


def _all(cluster: Cluster) -> list[HostRecord]:
    me = cluster.hosts.me
    return sorted({me.name: me, **cluster.hosts.live}.values(), key=lambda host: host.name)


def _summary(cluster: Cluster, host: HostRecord) -> Json:
    is_self = host.id == cluster.hosts.me.id
    seen = time.time() if is_self else cluster.channel.seen.get(host.name) if cluster.channel else None
    return {
        "Name": host.name,
        "ID": host.id,
        "Self": is_self,
        "Address": host.advertise,
        "Version": host.version,
        "Started": rfc3339(host.started),
        "Lease": {"Seconds": host.lease, "Alive": cluster.hosts.alive(host.name)},
        "LastSeen": rfc3339(seen) if seen else "",
        "Problem": _problem(cluster, host),
    }


def _problem(cluster: Cluster, host: HostRecord) -> str:
    """What is wrong with a host or the way to it, the most telling sentence; empty if nothing is."""
    is_self = host.id == cluster.hosts.me.id
    if known := cluster.hosts.problems.get(host.name):
        return known
    if not cluster.hosts.alive(host.name):
        return (
            "not registered in the cluster store, which does not answer"
            if is_self
            else f"host {host.name} no longer renews its lease in the cluster store"
        )
    if is_self or cluster.channel is None:
        return ""
    return cluster.channel.problem(host.name)


async def _endpoints(cluster: Cluster) -> list[EndpointRecord]:
    """Of all hosts; those of the networks that this host is on, while the store is away."""
    try:
        return await cluster.endpoints.listed()
    except Unavailable:
        return cluster.endpoints.known()


def _network_name(cluster: Cluster, endpoint: EndpointRecord) -> str:
    network = cluster.networks.items.get(endpoint.network_id)
    return network.record.name if network else endpoint.network_id


def _endpoint(endpoint: EndpointRecord) -> Json:
    return {
        "Name": endpoint.name,
        "EndpointID": endpoint.id,
        "ContainerID": endpoint.container_id,
        "MacAddress": endpoint.mac,
        "IPv4Address": endpoint.ipv4,
        "IPv6Address": endpoint.ipv6,
    }


def _path(path: Path | None) -> Json | None:
    """One direction: what passed when it was last checked; null before that."""
    if path is None:
        return None
    return {
        "Checked": rfc3339(path.checked),
        "ControlUDP": path.udp,
        "ControlTCP": path.tcp,
        "SmallPackets": path.small,
        "FullPackets": path.full,
        "MTU": path.size,
    }
