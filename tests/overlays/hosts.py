"""A cluster of two hosts as one of them knows it, and how it shows them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from msgspec.structs import replace

from netd.cluster.channel import Channel, Path
from netd.cluster.hosts import Happenings, Hosts
from netd.cluster.model import EndpointRecord, GlobalNetwork, HostRecord
from netd.core.errors import Unavailable
from netd.model.networks import Network
from netd.overlays.hosts import ClusterView
from tests.fakes.loop import Loop

ME = HostRecord(name="here", id="1", advertise="192.0.2.1", version="1.0", started=0.0, lease=10.0)
FAR = HostRecord(name="far", id="2", advertise="192.0.2.2", version="1.1", started=86400.0, lease=10.0)
SHOP = Network(name="shop", id="s", created="", scope="global", driver="overlay")
DB = EndpointRecord(id="e1", network_id="s", name="db", mac="02:42:0a:09:00:09", ipv4="10.9.0.9/24", host="far")
WEB = replace(DB, id="e2", name="web", ipv4="10.9.0.2/24", host="here", container_id="c2")
FREE = Path("far", True, True, True, True, 1500, 0.0012345678, 0.0004, checked=86400.0)


class Endpoints:
    """What the store has, and what this host knows of it."""

    def __init__(self) -> None:
        self.stored = [DB, WEB]
        self.local = [WEB]
        self.away = False

    async def listed(self) -> list[EndpointRecord]:
        if self.away:
            raise Unavailable("the cluster store cannot be used now")
        return self.stored

    def known(self) -> list[EndpointRecord]:
        return self.local


class Networks:
    def __init__(self) -> None:
        self.items = {"s": GlobalNetwork(record=SHOP, vnis=(4096,), host="far")}


@dataclass
class Cluster:
    """The parts of a cluster that are shown, of which hosts and channel are real ones that do nothing."""

    hosts: Hosts
    channel: Channel | None
    endpoints: Endpoints = field(default_factory=Endpoints)
    networks: Networks = field(default_factory=Networks)


class _Lease:
    alive = True


def two_hosts() -> Any:
    """Hosts `here`, which is this one, and `far`; all is well."""
    nothing: Any = None
    hosts = Hosts(nothing, ME, nothing, {"far": FAR}, Happenings())
    registered(hosts)
    channel = Channel(ME, lambda: hosts.live, nothing)
    channel.paths["far"] = FREE
    channel.seen["far"] = 86401.0
    return Cluster(hosts, channel)


def registered(hosts: Any, alive: bool = True) -> None:
    hosts._lease, hosts._incarnation = (_Lease(), "i") if alive else (None, "")


def shown(cluster: Any) -> dict[str, dict[str, Any]]:
    """The lines of `netd hosts`, by name."""
    with Loop() as loop:
        return {line["Name"]: line for line in loop.run(ClusterView(cluster).hosts())}


def details(cluster: Any, name: str) -> dict[str, Any]:
    with Loop() as loop:
        return loop.run(ClusterView(cluster).host(name))
