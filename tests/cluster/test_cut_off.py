"""Hosts cut off from the store, killed and healed: no address twice, no ghost, no lost endpoint."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from kvstore.contract import StoreError
from netd.cluster.cluster import Timing
from netd.cluster.model import EndpointRecord
from netd.core.errors import NetdError
from tests.cluster.cable import Cable
from tests.cluster.conftest import Host, hosts, until
from tests.kvstore.conftest import LEASES
from tests.kvstore.servers import Server

KINDS = ("etcd", "consul", "zookeeper")


@asynccontextmanager
async def cabled(
    server: Server, data: Path, names: str, timing: Timing
) -> AsyncIterator[tuple[list[Host], list[Cable]]]:
    """Hosts that each reach the store through a cable of their own."""
    cables = [Cable(server.port) for _ in names]
    for cable in cables:
        await cable.start()
    async with hosts(server.url, data, names, timing, started=False) as cluster:
        for host, cable in zip(cluster, cables, strict=True):
            host._url = f"{server.url.partition('://')[0]}://127.0.0.1:{cable.port}/{data.name}"
            await host.start()
        yield cluster, cables
        for cable in cables:
            cable.mend()
    for cable in cables:
        await cable.stop()


@pytest.mark.parametrize("kind", KINDS)
def test_a_host_cut_off_for_longer_than_its_lease_comes_back_with_what_is_still_its_own(
    kind: str, servers: Callable[[str], Server], tmp_path: Path
) -> None:
    ttl, gone_after = LEASES[kind]

    async def main() -> None:
        async with cabled(servers(kind), tmp_path, "ab", Timing(ttl, 0.5)) as ((a, b), (cable, _)):
            shop = await a.network("shop")
            web, cache = await a.run("web", shop), await a.run("cache", shop)
            db = await b.run("db", shop)
            await until(lambda: a.heard.names == {"db"} and b.heard.names == {"web", "cache"})
            cable.cut()
            await until(lambda: not b.heard.names, gone_after + 5)
            assert a.heard.names == {"db"}, "who is cut off goes on with what is known"
            async with asyncio.timeout(10):
                while True:
                    with contextlib.suppress(NetdError):
                        robber = await b.run("robber", shop, cache.addresses[0])
                        break
                    await asyncio.sleep(0.1)
            cable.mend()
            await until(lambda: b.heard.names == {"web"} and bool(a.heard.lost))
            assert f"{cache.addresses[0]} is taken by host b-host" in a.heard.lost[0]
            await until(lambda: a.heard.names == {"db", "robber"})
            stored = {e.key.rpartition("/")[2] for e in await b.cluster.store.list("ipam/")}
            assert stored == {e.addresses[0] for e in (web, db, robber)}

    asyncio.run(main())


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_happens_in_whatever_order_the_cluster_agrees_in_the_end(
    kind: str, servers: Callable[[str], Server], tmp_path: Path
) -> None:
    """NETD_SEED gives another schedule, NETD_CHAOS_SECONDS a longer one."""
    seed = int(os.environ.get("NETD_SEED", "4"))
    seconds = float(os.environ.get("NETD_CHAOS_SECONDS", "12"))
    asyncio.run(Chaos(seed, seconds).run(servers(kind), tmp_path, LEASES[kind]))


class Chaos:
    """A random schedule of containers, cuts and crashes on three hosts."""

    def __init__(self, seed: int, seconds: float) -> None:
        self._random = random.Random(seed)
        self._seconds = seconds
        self._containers: dict[str, dict[str, EndpointRecord]] = {}
        self._number = 0

    async def run(self, server: Server, data: Path, lease: tuple[float, float]) -> None:
        timing = Timing(lease[0], 0.5)
        async with cabled(server, data, "abc", timing) as (cluster, cables):
            net = await cluster[0].network("n", "10.9.0.0/27")
            self._containers = {host.name: {} for host in cluster}
            until_time = asyncio.get_running_loop().time() + self._seconds
            while asyncio.get_running_loop().time() < until_time:
                number = self._random.randrange(3)
                await self._step(cluster[number], cables[number], net)
                await asyncio.sleep(self._random.uniform(0, 0.2))
            for cable in cables:
                cable.mend()
            await until(lambda: all(h.cluster.hosts.incarnation for h in cluster), 15)
            await asyncio.sleep(lease[1] + 2 if self._seconds > 60 else 6)
            await self._agrees(cluster)

    async def _step(self, host: Host, cable: Cable, net: object) -> None:
        own = self._containers[host.name]
        match self._random.choices(("run", "stop", "cut", "mend", "restart"), (8, 4, 1, 3, 1))[0]:
            case "run" if cable._whole.is_set():
                self._number += 1
                with contextlib.suppress(NetdError):
                    endpoint = await host.run(f"c{self._number}", net)  # type: ignore[arg-type]
                    own[endpoint.id] = endpoint
            case "stop" if own:
                endpoint = own.pop(self._random.choice(sorted(own)))
                await host.stop(endpoint)
            case "cut":
                cable.cut()
            case "mend":
                cable.mend()
            case "restart":
                await host.crash()
                lost = set(own) - set(host.cluster.endpoints.own)
                await host.start(own=[e for id, e in own.items() if id not in lost])

    async def _agrees(self, cluster: list[Host], patience: float = 30) -> None:
        """All of it, once what was put off is made up for: a busy machine may take longer. But no address twice."""
        addresses = [e.addresses[0] for host in cluster for e in host.cluster.endpoints.own.values()]
        assert len(addresses) == len(set(addresses)), "an address twice"
        give_up = time.monotonic() + patience
        while True:
            try:
                for host in cluster:
                    await host.cluster._sweeper.sweep()
                return await self._check(cluster)
            except (AssertionError, StoreError):
                if time.monotonic() > give_up:
                    raise
            await asyncio.sleep(1)

    async def _check(self, cluster: list[Host]) -> None:
        store = cluster[0].cluster.store
        living = {id: e for host in cluster for id, e in host.cluster.endpoints.own.items()}
        addresses = [e.addresses[0] for e in living.values()]
        assert {e.key.rpartition("/")[2] for e in await store.list("ep/")} == set(living), "a ghost, or one is lost"
        assert {e.key.rpartition("/")[2] for e in await store.list("ipam/")} == set(addresses)
        assert {e.key.rpartition("/")[2] for e in await store.list("epname/")} == {e.name for e in living.values()}
        for host in cluster:
            if host.cluster.endpoints.own:
                others = set(living) - set(host.cluster.endpoints.own)
                await until(lambda host=host, others=others: set(host.heard.endpoints) == others)  # type: ignore[misc]
        kept = sum(len(host.cluster.endpoints.own) for host in cluster)
        print(
            f"{self._number} containers were started, {kept} are there, {sum(len(h.heard.lost) for h in cluster)} lost"
        )
