"""The store away, and back: what is known stays known, what cannot be is refused in time, all converges."""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path

import pytest

from kvstore.contract import StoreUnavailable
from netd.cluster.cluster import Timing
from netd.core.errors import Unavailable
from tests.cluster.conftest import Host, hosts, until
from tests.kvstore.servers import Server

CONVERGED = 10.0  # seconds after the store is back, on a busy machine; the weather is held to 5
REFUSED = 5.0  # seconds until a global change fails
TIMING = Timing(10.0, 2.0)


def test_while_the_store_is_away_what_is_known_stays_and_changes_fail_in_time(
    own_server: Server, tmp_path: Path
) -> None:
    async def main() -> None:
        async with hosts(own_server.url, tmp_path, "ab", TIMING) as (a, b):
            shop = await a.network("shop")
            web, cache = await a.run("web", shop), await a.run("cache", shop)
            db = await b.run("db", shop)
            await until(lambda: a.heard.names == {"db"} and b.heard.names == {"web", "cache"})
            await asyncio.to_thread(own_server.kill)

            for change in (a.network("new"), a.run("late", shop), a.cluster.networks.remove(shop.id)):
                begun = time.monotonic()
                with pytest.raises(Unavailable, match="cluster"):
                    await change
                assert time.monotonic() - begun < REFUSED
            await a.stop(cache)
            begun = time.monotonic()
            await a.stop(cache)
            assert time.monotonic() - begun < 1, "it is known that the store is away"
            assert shop.id in b.heard.networks
            # the end of `cache` is told by its host itself
            await until(lambda: b.heard.names == {"web"})

            await a.crash()
            await a.start(own=[web])
            assert shop.id in a.heard.networks
            assert a.heard.names == {"db"}

            await asyncio.to_thread(own_server.start)
            begun = time.monotonic()
            async with asyncio.timeout(CONVERGED):
                while await held(a) != {*web.addresses, *db.addresses}:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
                await until(lambda: bool(a.cluster.hosts.incarnation and b.cluster.hosts.incarnation))
            print(f"converged {time.monotonic() - begun:.1f} s after the store was back")
            again = await a.run("cache", shop, cache.addresses[0])
            await until(lambda: again.id in b.heard.endpoints)
            assert a.heard.lost == b.heard.lost == []
            assert await held(a) == {*web.addresses, *again.addresses, *db.addresses}
            assert await a.network("new")

    asyncio.run(main())


def test_endpoints_outlive_a_store_that_is_away_for_longer_than_the_lease(own_server: Server, tmp_path: Path) -> None:
    async def main() -> None:
        async with hosts(own_server.url, tmp_path, "ab", Timing(2.0, 0.5)) as (a, b):
            shop = await a.network("shop")
            web, db = await a.run("web", shop), await b.run("db", shop)
            await until(lambda: a.heard.names == {"db"} and b.heard.names == {"web"})
            heard = list(a.heard.log), list(b.heard.log)
            await asyncio.to_thread(own_server.kill)
            await asyncio.sleep(6)
            await asyncio.to_thread(own_server.start)
            await until(lambda: bool(a.cluster.hosts.incarnation and b.cluster.hosts.incarnation), CONVERGED)
            await asyncio.sleep(2)
            assert await held(a) == {*web.addresses, *db.addresses}
            assert (a.heard.names, b.heard.names) == ({"db"}, {"web"})
            assert (a.heard.log, b.heard.log) == heard, "nobody was missed"
            assert a.heard.lost == b.heard.lost == []

    asyncio.run(main())


async def held(host: Host) -> set[str]:
    """The addresses that are taken, as the store tells when it answers."""
    while True:
        with contextlib.suppress(StoreUnavailable):
            return {entry.key.rpartition("/")[2] for entry in await host.cluster.store.list("ipam/")}
        await asyncio.sleep(0.1)
