"""Several hosts in one process: each a `Cluster` with a local store and a listener of its own."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from ipaddress import ip_network
from pathlib import Path

from kvstore.contract import Store
from kvstore.open import open_store
from netd.cluster.cluster import Cluster, Kept, Timing
from netd.cluster.model import EndpointRecord, GlobalNetwork
from netd.ipam.validate import PoolRequest
from netd.model.networks import Network
from tests.kvstore.conftest import Backend, opener, own_server, servers

__all__ = ["Backend", "opener", "own_server", "servers"]

SOON = 20.0  # seconds


class Heard:
    """A listener that keeps a picture of what it was told."""

    def __init__(self) -> None:
        self.networks: dict[str, GlobalNetwork] = {}
        self.endpoints: dict[str, EndpointRecord] = {}
        self.lost: list[str] = []
        self.log: list[str] = []

    async def network_appeared(self, network: GlobalNetwork) -> None:
        self.networks[network.id] = network
        self.log.append(f"network {network.record.name}")

    async def network_gone(self, network: GlobalNetwork) -> None:
        del self.networks[network.id]
        self.log.append(f"no network {network.record.name}")

    async def endpoints_changed(
        self, network_id: str, present: Sequence[EndpointRecord], gone: Sequence[EndpointRecord]
    ) -> None:
        for endpoint in gone:
            del self.endpoints[endpoint.id]
            self.log.append(f"no {endpoint.name}")
        for endpoint in present:
            self.endpoints[endpoint.id] = endpoint
            self.log.append(endpoint.name)

    async def endpoint_lost(self, endpoint: EndpointRecord, reason: str) -> None:
        self.lost.append(reason)

    @property
    def names(self) -> set[str]:
        return {endpoint.name for endpoint in self.endpoints.values()}


class Host:
    """A daemon's share in the cluster, which may crash, be cut off and start again."""

    def __init__(self, name: str, url: str, data: Path, timing: Timing) -> None:
        self.name, self._url, self._data, self._timing = name, url, data, timing
        self.id = secrets.token_hex(8)
        self.advertise = f"127.0.0.{ord(name[0])}"
        self.cluster: Cluster
        self.heard: Heard
        self._local: Store

    async def start(self, own: Sequence[EndpointRecord] = (), kept: Sequence[Kept] = ()) -> None:
        self._local = await open_store(self._data)
        self.heard = Heard()
        self.cluster = await Cluster.open(
            self._url, {}, self.advertise, self._local, self.heard, host=self.name, host_id=self.id, timing=self._timing
        )
        self.heard.networks = dict(self.cluster.networks.items)
        await self.cluster.start(own, kept, probes=False)
        for endpoints in (self.cluster.remote.on(n) for n in self.heard.networks):
            self.heard.endpoints.update((e.id, e) for e in endpoints)

    async def crash(self) -> None:
        """As far as the others can tell: nothing is renewed or said any more."""
        await self.cluster.close()
        await self._local.close()

    async def network(self, name: str, pool: str | None = None, **options: str) -> GlobalNetwork:
        record = Network(
            name=name, id=secrets.token_hex(32), created="", scope="global", driver="overlay", options=options
        )
        return await self.cluster.networks.create(record, [PoolRequest(ip_network(pool) if pool else None)])

    async def run(self, name: str, network: GlobalNetwork, address: str = "") -> EndpointRecord:
        """What starting a container does."""
        from ipaddress import ip_address

        endpoint_id = secrets.token_hex(32)
        wanted = ip_address(address) if address else None
        ipv4 = await self.cluster.addresses.allocate(network, endpoint_id, wanted=wanted)
        endpoint = EndpointRecord(
            id=endpoint_id, network_id=network.id, name=name, mac="02:42:00:00:00:01", ipv4=str(ipv4), names=(name,)
        )
        await self.cluster.endpoints.put(endpoint)
        return self.cluster.endpoints.own[endpoint_id]

    async def stop(self, endpoint: EndpointRecord) -> None:
        await self.cluster.endpoints.remove(endpoint.id)


async def until(condition: Callable[[], bool], patience: float = SOON) -> None:
    async with asyncio.timeout(patience):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@asynccontextmanager
async def hosts(
    url: str, data: Path, names: str, timing: Timing | None = None, started: bool = True
) -> AsyncIterator[list[Host]]:
    """One host for each letter of `names`."""
    made = [Host(f"{name}-host", url, data / name / "netd.db", timing or Timing(2.0, 0.5, 2.0)) for name in names]
    running: list[Host] = []
    try:
        for host in made if started else ():
            await host.start()
            running.append(host)
        yield made
    finally:
        for host in made:
            if hasattr(host, "cluster"):
                await host.crash()
