"""A cluster as this host sees it: what is in its store, and what this host knows of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Interface, ip_interface, ip_network
from typing import Any

from msgspec.structs import replace

from netd.cluster.model import EndpointRecord, GlobalNetwork, HostRecord, Listener
from netd.core.errors import Forbidden, NotFound, Unavailable
from netd.ipam.validate import PoolRequest
from netd.model.networks import IPAMConfig, Network
from tests.fakes.calls import Calls, before, step


class FakeCluster:
    """The parts that `netd.overlays.scope` uses. While the store is `away`, whatever asks it waits and is refused."""

    def __init__(self, calls: Calls) -> None:
        self.away = False
        self.listener: Listener
        self.hosts = _Hosts()
        self.addresses = _Addresses(self, calls)
        self.networks = _Networks(self, calls)
        self.endpoints = _Endpoints(self, calls)
        self.remote = _Remote()

    async def start(self, own: Iterable[EndpointRecord], kept: Iterable[Any]) -> None:
        """A new daemon tells what it has; what else is in this host's name is given back."""
        self.endpoints.own = {endpoint.id: endpoint for endpoint in own}
        owners = {*self.endpoints.own, *(item.container_id for item in kept)}
        self.addresses.held = {key: owner for key, owner in self.addresses.held.items() if owner in owners}

    async def answers(self, calls: Calls, name: str) -> None:
        await before(calls, name, Unavailable)
        if self.away:
            await asyncio.sleep(4)
            raise Unavailable("the cluster store cannot be used now")
        await step()


class _Hosts:
    def __init__(self) -> None:
        self.me = HostRecord(name="here", id="1", advertise="192.0.2.1", version="", started=0.0)


class _Remote:
    """Other hosts' endpoints, by network."""

    def __init__(self) -> None:
        self.records: dict[str, list[EndpointRecord]] = {}

    def on(self, network_id: str) -> list[EndpointRecord]:
        return list(self.records.get(network_id, ()))


class _Networks:
    """`stored` is what there is, `items` what this host has been told of."""

    def __init__(self, cluster: FakeCluster, calls: Calls) -> None:
        self.stored: dict[str, GlobalNetwork] = {}
        self.items: dict[str, GlobalNetwork] = {}
        self._cluster, self._calls = cluster, calls

    def make_elsewhere(self, name: str, subnet: str) -> GlobalNetwork:
        """Another host makes one; this one has not been told yet."""
        record = Network(name=name, id=name * 8, created="", scope="global", driver="overlay")
        config = [IPAMConfig(subnet=subnet, gateway=str(ip_network(subnet)[1]))]
        made = GlobalNetwork(record=replace(record, ipam=replace(record.ipam, config=config)), vnis=(4096,), host="far")
        self.stored[made.id] = made
        return made

    async def create(self, wanted: Network, pools: Sequence[PoolRequest], avoid: Iterable[Any] = ()) -> GlobalNetwork:
        await self._cluster.answers(self._calls, "Networks.create")
        config = [IPAMConfig(subnet=str(p.subnet or "10.0.0.0/24"), gateway="10.0.0.1") for p in pools]
        made = GlobalNetwork(
            record=replace(wanted, ipam=replace(wanted.ipam, config=config)), vnis=(4096,), host="here"
        )
        self.stored[made.id] = made
        await self.learn(made)
        return made

    async def learn(self, network: GlobalNetwork) -> None:
        self.items[network.id] = network
        await self._cluster.listener.network_appeared(network)

    async def remove(self, network_id: str) -> None:
        await self._cluster.answers(self._calls, "Networks.remove")
        if any(e.network_id == network_id for e in self._cluster.endpoints.own.values()):
            raise Forbidden(f"network {network_id} has active endpoints")
        self.stored.pop(network_id, None)
        await self.vanish(network_id)

    async def vanish(self, network_id: str) -> None:
        """It was removed, by whomever."""
        self.stored.pop(network_id, None)
        if (network := self.items.pop(network_id, None)) is not None:
            await self._cluster.listener.network_gone(network)

    async def get(self, network_id: str) -> GlobalNetwork:
        if network_id not in self.items:
            await self._cluster.answers(self._calls, "Networks.get")
            if network_id not in self.stored:
                raise NotFound(f"network {network_id} not found")
            await self.learn(self.stored[network_id])
        return self.items[network_id]

    async def refresh(self) -> None:
        await self._cluster.answers(self._calls, "Networks.refresh")
        for network_id in self.stored.keys() - self.items.keys():
            await self.learn(self.stored[network_id])


class _Endpoints:
    def __init__(self, cluster: FakeCluster, calls: Calls) -> None:
        self.own: dict[str, EndpointRecord] = {}
        self._cluster, self._calls = cluster, calls

    async def put(self, record: EndpointRecord) -> None:
        await self._cluster.answers(self._calls, "Endpoints.put")
        if record.network_id not in self._cluster.networks.stored:
            raise NotFound(f"network {record.network_id} not found")
        if any(e.name == record.name and e.id != record.id for e in self._on(record.network_id)):
            raise Forbidden(f"endpoint with name {record.name} already exists")
        self.own[record.id] = record

    def _on(self, network_id: str) -> list[EndpointRecord]:
        own = [e for e in self.own.values() if e.network_id == network_id]
        return own + self._cluster.remote.on(network_id)

    async def remove(self, endpoint_id: str) -> None:
        """Never fails: the real one tells the store later."""
        await step()
        if (record := self.own.pop(endpoint_id, None)) is not None:
            self._cluster.addresses.disown(record.network_id, endpoint_id)
        await step()

    async def listed(self, network_id: str = "") -> list[EndpointRecord]:
        await self._cluster.answers(self._calls, "Endpoints.listed")
        return self._on(network_id)


class _Addresses:
    """`held` has the owner of each address, by network."""

    def __init__(self, cluster: FakeCluster, calls: Calls) -> None:
        self.held: dict[tuple[str, str], str] = {}
        self._cluster, self._calls = cluster, calls

    async def allocate(
        self, network: GlobalNetwork, owner: str, *, version: int = 4, wanted: Any = None
    ) -> IPv4Interface:
        await self._cluster.answers(self._calls, "Addresses.allocate")
        pool = ip_network((network.record.ipam.config or [])[0].subnet)
        free = (a for a in list(pool.hosts())[1:] if (network.id, str(a)) not in self.held)
        address = wanted or next(free)
        if self.held.get((network.id, str(address)), owner) != owner:
            raise Forbidden("Address already in use")
        self.held[network.id, str(address)] = owner
        return ip_interface(f"{address}/{pool.prefixlen}")  # type: ignore[return-value]

    async def release(self, network_id: str, owner: str) -> None:
        await step()
        self.disown(network_id, owner)

    def disown(self, network_id: str, owner: str) -> None:
        for key in [key for key, who in self.held.items() if key[0] == network_id and who == owner]:
            del self.held[key]

    def networks_of(self, owner: str) -> set[str]:
        return {network for (network, _), who in self.held.items() if who == owner}
