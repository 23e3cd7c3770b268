"""Which subnet a network gets (facts 2.23, 2.28 to 2.36)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network
from itertools import combinations, islice, pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netd.core.errors import Forbidden, InvalidParameter
from netd.ipam.pools import GLOBAL_POOLS, PoolAllocator, merged, ula_block

Prefix = IPv4Network | IPv6Network


def request(pools: PoolAllocator, subnet: str | None = None, *, avoid: Sequence[str] = (), **options: Any) -> str:
    wanted = ip_network(subnet) if subnet else None
    return str(asyncio.run(pools.request(wanted, avoid=[ip_network(a) for a in avoid], **options)))


def test_default_subnets_come_in_dockers_order() -> None:
    pools = PoolAllocator()
    subnets = [request(pools) for _ in range(31)]
    assert subnets[:4] == ["172.17.0.0/16", "172.18.0.0/16", "172.19.0.0/16", "172.20.0.0/16"]
    assert subnets[14:17] == ["172.31.0.0/16", "192.168.0.0/20", "192.168.16.0/20"]
    assert subnets[-1] == "192.168.240.0/20"


def test_used_up_default_pools_say_so() -> None:
    pools = PoolAllocator([("10.0.0.0/30", 31)])
    request(pools), request(pools)
    with pytest.raises(InvalidParameter, match=r"^all predefined address pools have been fully subnetted$"):
        request(pools)


def test_global_pools_are_24s_of_ten_slash_eight() -> None:
    pools = PoolAllocator(GLOBAL_POOLS)
    assert [request(pools) for _ in range(3)] == ["10.0.0.0/24", "10.0.1.0/24", "10.0.2.0/24"]


def test_custom_pools_replace_the_default_ones() -> None:
    pools = PoolAllocator([("10.9.0.0/16", 24), ("10.8.0.0/16", 17)])
    assert [request(pools) for _ in range(3)] == ["10.8.0.0/17", "10.8.128.0/17", "10.9.0.0/24"]


@pytest.mark.parametrize("pool", [("10.0.0.0/8", 7), ("10.0.0.0/8", 33), ("10.0.0.1/8", 24), ("ten", 24)])
def test_a_pool_that_cannot_be_cut_is_refused(pool: tuple[str, int]) -> None:
    with pytest.raises(InvalidParameter, match="invalid default address pool"):
        PoolAllocator([pool])


def test_a_released_subnet_is_used_again_first() -> None:
    pools = PoolAllocator()
    first, _ = request(pools), request(pools)
    pools.release(ip_network(first))
    assert [request(pools), request(pools)] == [first, "172.19.0.0/16"]


def test_releasing_what_is_not_in_use_is_fine() -> None:
    pools = PoolAllocator()
    pools.release(ip_network("10.0.0.0/8"))
    assert request(pools) == "172.17.0.0/16"


def test_routes_of_the_host_are_avoided_but_not_the_default_route() -> None:
    routes = ["0.0.0.0/0", "172.17.4.0/24", "172.18.0.0/15", "172.20.3.3/32"]
    assert request(PoolAllocator(), avoid=routes) == "172.21.0.0/16"


def test_an_explicit_subnet_is_not_checked_against_routes() -> None:
    assert request(PoolAllocator(), "10.0.0.0/24", avoid=["10.0.0.0/8"]) == "10.0.0.0/24"


@pytest.mark.parametrize("other", ["10.0.0.0/24", "10.0.0.128/25", "10.0.0.0/8", "8.0.0.0/5"])
def test_an_overlapping_subnet_is_refused(other: str) -> None:
    pools = PoolAllocator()
    request(pools, "10.0.0.0/24")
    expected = "^invalid pool request: Pool overlaps with other one on this address space$"
    with pytest.raises(Forbidden, match=expected):
        request(pools, other)
    assert request(pools, "10.0.1.0/24") == "10.0.1.0/24"


def test_default_subnets_step_around_explicit_ones() -> None:
    pools = PoolAllocator()
    request(pools, "172.17.200.0/24")
    assert request(pools) == "172.18.0.0/16"


def test_a_size_alone_asks_for_any_free_subnet_of_it() -> None:
    pools = PoolAllocator()
    assert [request(pools, "0.0.0.0/24") for _ in range(2)] == ["172.17.0.0/24", "172.17.1.0/24"]
    assert request(pools) == "172.18.0.0/16"
    assert request(pools, "0.0.0.0/15") == "172.20.0.0/15"


def test_v6_subnets_come_from_this_hosts_ula_block() -> None:
    pools = PoolAllocator(host_id="a host")
    block = ula_block("a host")
    assert block.prefixlen == 48 and block.subnet_of(ip_network("fd00::/8"))
    assert [request(pools, v6=True) for _ in range(2)] == [str(s) for s in islice(block.subnets(new_prefix=64), 2)]
    assert request(pools, "::/120") == f"{block[0] + 2 * 2**64}/120"
    assert ula_block("another host") != block


def test_a_v6_default_pool_replaces_the_ula_block() -> None:
    pools = PoolAllocator([("10.0.0.0/8", 24), ("fd12::/32", 56)])
    assert request(pools, v6=True) == "fd12::/56"


def test_thousands_of_networks_from_a_vast_pool_stay_cheap() -> None:
    pools = PoolAllocator([("fd00::/8", 64)])

    async def fill() -> Prefix:
        for _ in range(500):
            last = await pools.request(v6=True)
        return last

    started = time.perf_counter()
    assert asyncio.run(fill()) == ip_network("fd00:0:0:1f3::/64")
    assert time.perf_counter() - started < 2


prefixes = st.builds(
    lambda address, length: IPv4Network((address, length), strict=False),
    st.integers(0x0A000000, 0x0A0000FF),
    st.integers(25, 32),
)


@given(steps=st.lists(st.tuples(st.sampled_from(["any", "size", "explicit", "release"]), prefixes)), avoid=prefixes)
def test_subnets_in_use_never_overlap(steps: list[tuple[str, IPv4Network]], avoid: IPv4Network) -> None:
    pools = PoolAllocator([("10.0.0.0/25", 28), ("10.0.0.128/25", 27)])
    held: list[Prefix] = []

    async def take(wanted: IPv4Network | None) -> None:
        try:
            held.append(await pools.request(wanted, avoid=[avoid]))
        except Forbidden:
            assert wanted is not None and any(wanted.overlaps(h) for h in held)
        except InvalidParameter:
            assert wanted is None or wanted.network_address.is_unspecified
        else:
            automatic = wanted is None or wanted.network_address.is_unspecified
            assert not (automatic and held[-1].overlaps(avoid))

    async def main() -> None:
        for kind, prefix in steps:
            if kind == "release":
                if held:
                    pools.release(held.pop(prefix.prefixlen % len(held)))
            else:
                size = IPv4Network(("0.0.0.0", prefix.prefixlen))
                await take({"any": None, "size": size, "explicit": prefix}[kind])
            assert not any(a.overlaps(b) for a, b in combinations(held, 2))

    asyncio.run(main())


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)).map(lambda s: (min(s), max(s)))))
def test_merged_spans_cover_the_same_and_do_not_touch(spans: list[tuple[int, int]]) -> None:
    joined = merged(spans)
    assert {n for a, b in joined for n in range(a, b + 1)} == {n for a, b in spans for n in range(a, b + 1)}
    assert all(left[1] + 1 < right[0] for left, right in pairwise(joined))
