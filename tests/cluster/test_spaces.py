"""Addresses and VNIs that several hosts take from one store: never twice, and none lost in an outage."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from ipaddress import IPv4Address, IPv4Network, ip_address, ip_network

import pytest

from kvstore.contract import Store
from kvstore.open import open_store
from netd.cluster.spaces import ClusterAddressSpace, allocate_vni, release_vni
from netd.core.errors import Forbidden, InvalidParameter, NetdError, Unavailable
from tests.kvstore.conftest import Backend, opened
from tests.kvstore.servers import Server


class Host:
    """One daemon's view of a subnet."""

    def __init__(self, store: Store, name: str, pool: str = "10.7.0.0/23", **options: object) -> None:
        self.store = store
        self.space = ClusterAddressSpace(store, "net", ip_network(pool), host=name, **options)  # type: ignore[arg-type]
        self.follower = asyncio.create_task(self.space.claims.follow())

    async def take(self, count: int, name: str = "") -> list[str]:
        return [str(await self.space.allocate(f"{name}{self.space.claims._host}-{n}")) for n in range(count)]


async def with_hosts(open_one: Callable[[], Awaitable[Store]], names: str, **options: object) -> AsyncExitStack:
    stack = AsyncExitStack()
    hosts = [Host(await stack.enter_async_context(opened(open_one)), name, **options) for name in names]  # type: ignore[arg-type]
    for host in hosts:
        stack.callback(host.follower.cancel)
    stack.hosts = hosts  # type: ignore[attr-defined]
    return stack


def on_hosts(
    opener: Callable[[], Awaitable[Store]], names: str, test: Callable[..., Awaitable[None]], **options: object
) -> None:
    async def main() -> None:
        async with await with_hosts(opener, names, **options) as stack:
            await test(*stack.hosts)  # type: ignore[attr-defined]

    asyncio.run(main())


def test_three_hosts_taking_at_once_never_get_the_same_address(opener: Backend) -> None:
    async def test(*hosts: Host) -> None:
        taken = [address for got in await asyncio.gather(*(host.take(60) for host in hosts)) for address in got]
        assert len(set(taken)) == 180
        stored = {entry.key.rpartition("/")[2] for entry in await hosts[0].store.list("ipam/net/ip/")}
        assert stored == set(taken)

    on_hosts(opener, "abc", test)


def test_every_address_can_be_taken_and_then_the_pool_says_so(opener: Backend) -> None:
    async def test(one: Host, two: Host) -> None:
        got = [*await one.take(3), *await two.take(2)]
        assert sorted(got) == [f"10.0.0.{n}" for n in range(2, 7)]
        with pytest.raises(NetdError, match=r"no available IPv4 addresses on this network's address pools: n \(1\)"):
            await one.take(1, "more")
        await two.space.release("b-0", ip_address(got[3]))
        assert await one.take(1, "more") == [got[3]]

    on_hosts(opener, "ab", test, pool="10.0.0.0/29", gateway=IPv4Address("10.0.0.1"), label="n (1)")


def test_a_static_address_belongs_to_one_endpoint_which_may_ask_again(opener: Backend) -> None:
    wanted = IPv4Address("10.7.0.9")

    async def test(one: Host, two: Host) -> None:
        for _ in range(2):
            assert await one.space.allocate("endpoint", wanted) == wanted
        with pytest.raises(Forbidden, match="Address already in use"):
            await two.space.allocate("another", wanted)
        with pytest.raises(InvalidParameter, match="out of range"):
            await two.space.allocate("another", IPv4Address("10.9.0.1"))
        await two.space.release("another", wanted)
        assert await one.space.allocate("endpoint", wanted) == wanted
        await one.space.release("endpoint", wanted)
        assert await two.space.allocate("another", wanted) == wanted

    on_hosts(opener, "ab", test)


def test_hosts_learn_of_each_others_addresses(opener: Backend) -> None:
    async def test(one: Host, two: Host) -> None:
        (address,) = await one.take(1)
        async with asyncio.timeout(10):
            while not two.space.in_use(ip_address(address)):  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    on_hosts(opener, "ab", test)


def test_vnis_are_unique_and_stay_with_their_network(opener: Backend) -> None:
    async def main() -> None:
        async with opened(opener) as store:
            assert await allocate_vni(store, "a", "one", [42]) == 42
            assert await allocate_vni(store, "b", "one", [42]) == 42
            assert await allocate_vni(store, "b", "two", [42, 43]) == 43
            with pytest.raises(Forbidden, match="in use: 42, 43"):
                await allocate_vni(store, "b", "three", [42, 43])
            await release_vni(store, "a", "one", 42)
            assert await allocate_vni(store, "b", "three", [42]) == 42
            assert 4096 <= await allocate_vni(store, "b", "four") < 1 << 24

    asyncio.run(main())


def test_a_server_killed_amid_allocations_leaks_and_doubles_nothing(own_server: Server) -> None:
    async def test(*hosts: Host) -> None:
        async def take(host: Host) -> list[str]:
            got = []
            for number in range(60):
                while True:
                    try:
                        got.append(str(await host.space.allocate(f"{host.space.claims._host}-{number}")))
                        break
                    except Unavailable:
                        continue  # the same endpoint asks again
                await asyncio.sleep(0.01)
            return got

        taking = asyncio.gather(*map(take, hosts))
        await asyncio.sleep(0.3)
        await asyncio.to_thread(own_server.restart)
        taken = [address for got in await taking for address in got]
        stored = {entry.key.rpartition("/")[2] for entry in await hosts[0].store.list("ipam/net/ip/")}
        assert len(taken) == len(set(taken)) == 180
        assert stored == set(taken)

    on_hosts(lambda: open_store(own_server.url), "abc", test)


def test_an_allocation_without_a_store_fails_in_time_and_in_words(own_server: Server) -> None:
    async def test(host: Host) -> None:
        own_server.kill()
        with pytest.raises(Unavailable, match="the cluster store cannot be used now"):
            async with asyncio.timeout(5):
                await host.take(1)

    on_hosts(lambda: open_store(own_server.url), "a", test)


def test_hosts_begin_in_different_places() -> None:
    pool = IPv4Network("10.0.0.0/16")
    places = {ClusterAddressSpace(None, "n", pool, host=f"host{n}")._next for n in range(20)}  # type: ignore[arg-type]
    assert len(places) == 20
