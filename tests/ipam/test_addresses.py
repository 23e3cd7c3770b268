"""Which address comes next, and which never comes (facts 2.38 to 2.47)."""

from __future__ import annotations

import time
from collections import deque
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netd.core.errors import Forbidden, InvalidParameter, NetdError
from netd.ipam.addresses import AddressSpace


def space(pool: str, **options: str) -> AddressSpace:
    return AddressSpace(
        ip_network(pool),
        ip_range=ip_network(options["ip_range"]) if "ip_range" in options else None,
        gateway=ip_address(options["gateway"]) if "gateway" in options else None,
        aux=[ip_address(a) for a in options.get("aux", "").split()],
        label=options.get("label", ""),
    )


def drain(addresses: AddressSpace) -> list[str]:
    taken = []
    while True:
        try:
            taken.append(str(addresses.allocate()))
        except NetdError:
            return taken


def test_a_29_has_five_container_addresses() -> None:
    assert drain(space("10.0.0.0/29", gateway="10.0.0.1")) == [f"10.0.0.{n}" for n in range(2, 7)]


def test_gateway_and_auxiliary_addresses_are_skipped() -> None:
    assert drain(space("10.0.0.0/29", gateway="10.0.0.3", aux="10.0.0.1 10.0.0.4")) == [
        "10.0.0.2",
        "10.0.0.5",
        "10.0.0.6",
    ]


def test_an_ip_range_limits_what_is_handed_out_and_may_use_its_own_first_and_last() -> None:
    assert drain(space("10.1.0.0/16", ip_range="10.1.4.0/30", gateway="10.1.0.1")) == [
        "10.1.4.0",
        "10.1.4.1",
        "10.1.4.2",
        "10.1.4.3",
    ]


def test_an_ip_range_at_the_end_of_the_subnet_spares_the_broadcast_address() -> None:
    assert drain(space("10.1.0.0/24", ip_range="10.1.0.252/30")) == ["10.1.0.252", "10.1.0.253", "10.1.0.254"]


@pytest.mark.parametrize(
    ("pool", "hosts"),
    [
        ("10.0.0.0/31", ["10.0.0.0", "10.0.0.1"]),
        ("10.0.0.7/32", ["10.0.0.7"]),
        ("fd00::/126", ["fd00::1", "fd00::2", "fd00::3"]),
        ("fd00::/127", ["fd00::", "fd00::1"]),
        ("fd00::7/128", ["fd00::7"]),
    ],
)
def test_the_smallest_subnets_have_every_host_they_can(pool: str, hosts: list[str]) -> None:
    assert drain(space(pool)) == hosts


def test_a_freed_address_is_reused_after_all_others_the_longest_free_first() -> None:
    addresses = space("10.0.0.0/29")
    first, second, third = (addresses.allocate() for _ in range(3))
    addresses.release(second)
    addresses.release(first)
    assert drain(addresses) == ["10.0.0.4", "10.0.0.5", "10.0.0.6", str(second), str(first)]
    addresses.release(third)
    assert addresses.allocate() == third


def test_a_static_address_may_lie_outside_the_ip_range() -> None:
    addresses = space("10.1.0.0/16", ip_range="10.1.4.0/24")
    assert addresses.allocate(IPv4Address("10.1.9.9")) == IPv4Address("10.1.9.9")
    assert addresses.in_use(IPv4Address("10.1.9.9"))


@pytest.mark.parametrize("taken", ["10.0.0.0", "10.0.0.1", "10.0.0.2", "10.0.0.9", "10.0.0.255"])
def test_a_static_address_that_is_taken_is_refused(taken: str) -> None:
    addresses = space("10.0.0.0/24", gateway="10.0.0.1", aux="10.0.0.9")
    addresses.allocate(IPv4Address("10.0.0.2"))
    with pytest.raises(Forbidden, match=r"^Address already in use$"):
        addresses.allocate(ip_address(taken))


@pytest.mark.parametrize("foreign", ["10.0.1.0", "fd00::1"])
def test_a_static_address_outside_the_subnet_is_refused(foreign: str) -> None:
    with pytest.raises(InvalidParameter, match="out of range"):
        space("10.0.0.0/24").allocate(ip_address(foreign))


def test_a_refused_address_changes_nothing() -> None:
    addresses = space("10.0.0.0/30", gateway="10.0.0.1")
    with pytest.raises(Forbidden):
        addresses.allocate(IPv4Address("10.0.0.1"))
    addresses.release(IPv4Address("10.0.0.1"))
    assert addresses.in_use(IPv4Address("10.0.0.1"))
    assert drain(addresses) == ["10.0.0.2"]


def test_claimed_addresses_are_in_use_and_may_be_claimed_twice() -> None:
    addresses = space("10.0.0.0/29")
    for _ in range(2):
        addresses.claim(IPv4Address("10.0.0.2"))
    assert drain(addresses) == ["10.0.0.1", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"]


def test_a_full_subnet_says_which_network_it_is() -> None:
    addresses = space("10.0.0.1/32", label="ip1 (4242)")
    addresses.allocate()
    with pytest.raises(NetdError) as caught:
        addresses.allocate()
    assert str(caught.value) == "no available IPv4 addresses on this network's address pools: ip1 (4242)"


@pytest.mark.parametrize("pool", [IPv4Network("10.0.0.0/8"), IPv6Network("fd00::/64"), IPv6Network("fd00::/8")])
def test_a_huge_subnet_costs_no_more_than_a_small_one(pool: IPv4Network | IPv6Network) -> None:
    started = time.perf_counter()
    addresses = AddressSpace(pool)
    for _ in range(20_000):
        addresses.release(addresses.allocate())
    assert addresses.allocate() == pool[20_001]
    assert time.perf_counter() - started < 2


def test_allocation_in_a_crowded_subnet_stays_cheap() -> None:
    addresses = AddressSpace(IPv4Network("10.0.0.0/16"))
    taken = deque(addresses.allocate() for _ in range(65_534))
    started = time.perf_counter()
    for _ in range(20_000):
        addresses.release(taken.popleft())
        taken.append(addresses.allocate())
    assert time.perf_counter() - started < 2


def test_addresses_whose_turn_was_forgotten_come_back_in_the_next_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("netd.ipam.addresses.REMEMBERED", 3)
    addresses = space("10.0.0.0/27")
    for address in [addresses.allocate() for _ in range(30)]:
        addresses.release(address)
    assert len(set(drain(addresses))) == 30


@given(
    prefix=st.integers(24, 32),
    steps=st.lists(st.tuples(st.sampled_from(["next", "static", "release", "claim"]), st.integers(0, 255))),
    gateway=st.none() | st.integers(0, 255),
)
def test_no_address_is_ever_held_twice(prefix: int, steps: list[tuple[str, int]], gateway: int | None) -> None:
    pool = IPv4Network(("10.0.0.0", prefix))
    fixed = pool[gateway % pool.num_addresses] if gateway is not None else None
    addresses = AddressSpace(pool, gateway=fixed)
    unusable = {fixed} | ({pool[0], pool[-1]} if prefix < 31 else set())
    usable = set(pool) - unusable
    held: set[IPv4Address | IPv6Address] = set()
    freed: deque[IPv4Address | IPv6Address] = deque()
    for step, number in steps:
        address = pool[number % pool.num_addresses]
        if step == "next":
            if usable <= held:
                with pytest.raises(NetdError):
                    addresses.allocate()
                continue
            address = addresses.allocate()
            assert address in usable - held
            assert address not in freed or usable <= held | set(freed), "a freed one came before a fresh one"
        elif step == "static":
            if address in held | unusable:
                with pytest.raises(Forbidden):
                    addresses.allocate(address)
                continue
            addresses.allocate(address)
        elif step == "claim":
            if address in unusable:
                continue
            addresses.claim(address)
        else:
            addresses.release(address)
            if address in held:
                held.remove(address)
                freed.append(address)
            continue
        held.add(address)
        if address in freed:
            freed.remove(address)
    assert {a for a in pool if addresses.in_use(a)} == held | (unusable - {None})
