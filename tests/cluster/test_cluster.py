"""Hosts that share nothing but a store: networks, endpoints, addresses; and what becomes of a host's at its end."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from msgspec.structs import replace

from netd.cluster.cluster import Timing
from netd.core.errors import Conflict, Forbidden, InvalidParameter, NotFound, Unavailable
from tests.cluster.conftest import Backend, Host, hosts, until


async def stored(host: Host) -> dict[str, bytes]:
    """All that hosts have written about their endpoints."""
    prefixes = ("ep/", "epname/", "ipam/")
    return {e.key: e.value for prefix in prefixes for e in await host.cluster.store.list(prefix)}


def test_a_network_made_on_one_host_is_known_to_all_and_goes_from_all(opener: Backend, tmp_path: Path) -> None:
    async def main() -> None:
        async with hosts(opener.url, tmp_path, "abc") as (a, b, c):
            shop = await a.network("shop")
            assert shop.record.scope == "global"
            await until(lambda: all(shop.id in host.heard.networks for host in (a, b, c)))
            await b.cluster.networks.remove(shop.id)
            assert shop.id not in b.cluster.networks.items
            await until(lambda: not any(host.heard.networks for host in (a, b, c)))
            again = await c.network("shop")
            assert (again.record.ipam.config or [])[0].subnet == (shop.record.ipam.config or [])[0].subnet

    asyncio.run(main())


def test_a_network_that_another_host_removes_as_soon_as_it_is_made_is_forgotten(
    opener: Backend, tmp_path: Path
) -> None:
    async def main() -> None:
        async with hosts(opener.url, tmp_path, "ab") as (a, b):
            for _ in range(10):
                shop = await a.network("shop")
                await b.cluster.networks.remove(shop.id)
            await until(lambda: not a.heard.networks and not a.cluster.networks.items)

    asyncio.run(main())


def test_of_several_hosts_that_create_a_network_of_one_name_at_once_one_succeeds(
    opener: Backend, tmp_path: Path
) -> None:
    async def main() -> None:
        async with hosts(opener.url, tmp_path, "abc") as cluster:
            results = await asyncio.gather(*(h.network("shop") for h in cluster), return_exceptions=True)
            assert sorted(isinstance(r, Conflict) for r in results) == [False, True, True]
            assert "network with name shop already exists" in {str(r) for r in results}

    asyncio.run(main())


def test_networks_made_at_once_have_subnets_and_vnis_of_their_own(opener: Backend, tmp_path: Path) -> None:
    async def main() -> None:
        async with hosts(opener.url, tmp_path, "abc") as cluster:
            made = await asyncio.gather(*(h.network(f"{h.name}{n}") for h in cluster for n in range(4)))
            subnets = {(n.record.ipam.config or [])[0].subnet for n in made}
            assert len({n.vnis for n in made}) == len(subnets) == 12
            assert all(subnet.startswith("10.0.") and subnet.endswith(".0/24") for subnet in subnets)

    asyncio.run(main())


def test_a_subnet_named_by_the_user_is_avoided_by_the_automatic_ones(opener: Backend, tmp_path: Path) -> None:
    async def main() -> None:
        async with hosts(opener.url, tmp_path, "ab") as (a, b):
            mine = await a.network("mine", "10.0.0.0/20")
            await until(lambda: mine.id in b.heard.networks)
            other = await b.network("other")
            assert (other.record.ipam.config or [])[0].subnet == "10.0.16.0/24"

    asyncio.run(main())


def test_endpoints_are_told_to_the_hosts_on_their_network_only(opener: Backend, tmp_path: Path) -> None:
    async def main() -> None:
        async with hosts(opener.url, tmp_path, "abc") as (a, b, c):
            shop = await a.network("shop")
            web = await a.run("web", shop)
            db = await b.run("db", shop)
            assert b.heard.names == {"web"}, "known when the first container's start returns"
            await until(lambda: a.heard.names == {"db"})
            told = a.heard.endpoints[db.id]
            assert (told.host, told.vtep, told.ipv4) == ("b-host", b.advertise, db.ipv4)
            assert not c.heard.endpoints
            assert {e.name for e in await c.cluster.endpoints.listed(shop.id)} == {"web", "db"}
            await a.stop(web)
            await until(lambda: not b.heard.names)
            await b.stop(db)
            await c.cluster.networks.remove(shop.id)
            assert await a.cluster.store.list("ipam/") == await a.cluster.store.list("epname/") == []

    asyncio.run(main())


def test_a_container_name_is_unique_on_a_network_across_hosts(opener: Backend, tmp_path: Path) -> None:
    async def main() -> None:
        async with hosts(opener.url, tmp_path, "ab") as (a, b):
            shop = await a.network("shop")
            web = await a.run("web", shop)
            with pytest.raises(Forbidden, match="endpoint with name web already exists in network shop"):
                await b.run("web", shop)
            assert len(await a.cluster.store.list("ipam/")) == 1, "the address went back"
            await a.stop(web)
            assert await b.run("web", shop)

    asyncio.run(main())


def test_a_network_with_endpoints_anywhere_is_not_removed(opener: Backend, tmp_path: Path) -> None:
    async def main() -> None:
        async with hosts(opener.url, tmp_path, "ab") as (a, b):
            shop = await a.network("shop")
            web = await a.run("web", shop)
            with pytest.raises(Forbidden, match=r"network shop id \w+ has active endpoints .*web.* on host a-host"):
                await b.cluster.networks.remove(shop.id)
            await a.run("db", shop)
            await a.stop(web)
            with pytest.raises(NotFound):
                await b.cluster.networks.remove("0" * 64)

    asyncio.run(main())


def test_joining_and_removing_at_once_never_both_succeed(opener: Backend, tmp_path: Path) -> None:
    async def main() -> None:
        async with hosts(opener.url, tmp_path, "ab") as (a, b):
            for number in range(5):
                net = await a.network(f"n{number}")
                joined, removed = await asyncio.gather(
                    b.run("web", net), a.cluster.networks.remove(net.id), return_exceptions=True
                )
                stored = await a.cluster.store.list(f"ep/{net.id}/")
                if removed is None:
                    assert isinstance(joined, Exception) and not stored
                else:
                    assert isinstance(removed, Forbidden)
                    assert bool(stored) == (not isinstance(joined, Exception))

    asyncio.run(main())


def test_a_host_that_dies_leaves_nothing_behind(opener: Backend, tmp_path: Path) -> None:
    async def main() -> None:
        async with hosts(opener.url, tmp_path, "ab", Timing(opener.lease_ttl, 0.5)) as (a, b):
            shop = await a.network("shop")
            web = await a.run("web", shop)
            await b.run("db", shop)
            assert b.heard.names == {"web"}
            await a.crash()
            await until(lambda: not b.heard.names, opener.gone_after + 2)
            async with asyncio.timeout(5):
                while len([*await b.cluster.store.list("ipam/"), *await b.cluster.store.list("epname/")]) > 2:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            again = await b.run("web", shop, web.addresses[0])
            assert again.ipv4 == web.ipv4
            await a.start(own=[web])
            await until(lambda: bool(a.heard.lost))
            assert "taken by host b-host" in a.heard.lost[0]

    asyncio.run(main())


def test_a_host_that_returns_has_its_endpoints_and_addresses_again(opener: Backend, tmp_path: Path) -> None:
    async def main() -> None:
        async with hosts(opener.url, tmp_path, "ab", Timing(opener.lease_ttl, 0.5)) as (a, b):
            shop = await a.network("shop")
            web, old = await a.run("web", shop), await a.run("old", shop)
            await b.run("db", shop)
            await a.crash()
            await until(lambda: not b.heard.names, opener.gone_after + 2)
            await a.start(own=[web])
            await until(lambda: b.heard.names == {"web"})
            assert b.heard.endpoints[web.id].same(web)
            assert not a.heard.lost
            assert old.id not in {e.id for e in await b.cluster.endpoints.listed(shop.id)}

    asyncio.run(main())


def test_a_daemon_that_restarts_within_its_lease_is_never_missed(opener: Backend, tmp_path: Path) -> None:
    async def main() -> None:
        async with hosts(opener.url, tmp_path, "ab", Timing(10.0, 1.0)) as (a, b):
            shop = await a.network("shop")
            web = await a.run("web", shop)
            await b.run("db", shop)
            await until(lambda: a.heard.names == {"db"})
            before = list(b.heard.log)
            await a.crash()
            await a.start(own=[web])
            assert "db" in a.heard.names, "known from the time before"
            await until(lambda: bool(a.cluster.hosts.incarnation))
            await asyncio.sleep(1.5)
            assert b.heard.log == before
            assert not a.heard.lost

    asyncio.run(main())


def test_what_a_killed_daemon_had_sent_is_taken_back_when_it_arrives_after_its_successor_is_a_member(
    opener: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel sends for a process that is dead, and tries again when the store is back."""
    monkeypatch.setattr("netd.cluster.sweep.LIMIT", 0.5)

    async def main() -> None:
        async with hosts(opener.url, tmp_path, "a", Timing(10.0, 1.0)) as (a,):
            shop = await a.network("shop")
            web, late = await a.run("web", shop), await a.run("late", shop)
            before = await stored(a)
            await a.stop(late)
            wanted = await stored(a)
            left = {key: before[key] for key in before.keys() - wanted.keys()}
            assert {key.partition("/")[0] for key in left} == {"ep", "epname", "ipam"}
            await a.crash()
            await a.start(own=[web])
            await until(lambda: bool(a.cluster.hosts.incarnation))
            for key, value in left.items():
                await a.cluster.store.create(key, value)
            async with asyncio.timeout(10):
                while (await stored(a)).keys() != wanted.keys():  # noqa: ASYNC110
                    await asyncio.sleep(0.1)

    asyncio.run(main())


def test_a_rename_that_is_refused_half_way_leaves_no_claim_to_the_new_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(network_id: str) -> None:
        raise Conflict("the network is being removed")

    monkeypatch.setattr("netd.cluster.sweep.LIMIT", 0.2)

    async def main() -> None:
        async with hosts(str(tmp_path / "shared.db"), tmp_path, "a", Timing(10.0, 1.0)) as (a,):
            web = await a.run("web", await a.network("shop"))
            wanted = (await stored(a)).keys()
            await asyncio.sleep(2)  # the looks that follow upon becoming a member are over
            with monkeypatch.context() as broken:
                broken.setattr(a.cluster.networks, "check_joinable", refuse)
                with pytest.raises(Conflict):
                    await a.cluster.endpoints.put(replace(web, name="shop-window"))
            assert (await stored(a)).keys() > wanted
            async with asyncio.timeout(10):
                while (await stored(a)).keys() != wanted:  # noqa: ASYNC110
                    await asyncio.sleep(0.1)

    asyncio.run(main())


def test_a_second_host_of_one_name_takes_nothing_from_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("netd.cluster.sweep.LIMIT", 0.5)
    monkeypatch.setattr("netd.cluster.hosts.PATIENCE", 0.5)

    async def main() -> None:
        async with hosts(str(tmp_path / "shared.db"), tmp_path, "ab", Timing(10.0, 1.0), started=False) as (a, b):
            b.name = a.name
            await a.start()
            shop = await a.network("shop")
            await a.run("web", shop)
            await b.start()
            await until(lambda: shop.id in b.heard.networks)
            before = await stored(a)
            with pytest.raises(Unavailable, match="is named a-host too"):
                await b.run("db", shop)
            await asyncio.sleep(2)
            assert await stored(a) == before

    asyncio.run(main())


def test_leftovers_of_a_crash_are_swept(opener: Backend, tmp_path: Path) -> None:
    async def main() -> None:
        async with hosts(opener.url, tmp_path, "ab", Timing(opener.lease_ttl, 0.5, 0.5)) as (a, b):
            nets = a.cluster.networks
            await nets._names.take("half", "f" * 64)
            await nets._subnets.take("10.0.0.0_24", "f" * 64)
            for _ in range(2):
                await b.cluster._sweeper.sweep()
                await asyncio.sleep(0.6)
            await b.cluster._sweeper.sweep()
            assert await a.network("half")

    asyncio.run(main())


def test_vnis_come_from_the_list_that_the_user_gives(opener: Backend, tmp_path: Path) -> None:
    async def main() -> None:
        async with hosts(opener.url, tmp_path, "a") as (a,):
            assert (await a.network("one", vxlanid_list="300,301")).vnis == (300,)
            assert (await a.network("two", vxlanid_list="300,301")).vnis == (301,)
            with pytest.raises(Forbidden, match="300, 301"):
                await a.network("three", vxlanid_list="300,301")
            with pytest.raises(InvalidParameter, match='invalid vxlan id value "x" passed'):
                await a.network("three", vxlanid_list="x")
            await until(lambda: not a.cluster.networks._tasks)
            assert await a.network("three")

    asyncio.run(main())


def test_two_hosts_of_one_name_or_one_address_are_told_apart(opener: Backend, tmp_path: Path) -> None:
    async def main() -> None:
        async with hosts(opener.url, tmp_path, "abc", started=False) as (a, b, c):
            await a.start()
            await until(lambda: bool(a.cluster.hosts.incarnation))
            b.name = a.name
            c.advertise = a.advertise
            await b.start()
            await c.start()
            await until(lambda: a.name in b.cluster.hosts.problems and "c-host" in a.cluster.hosts.problems)
            assert "is named a-host too" in b.cluster.hosts.problems[a.name]
            assert "give one of them another --cluster-advertise" in a.cluster.hosts.problems["c-host"]

    asyncio.run(main())
