"""What a user may ask of address management, and the words for what not (facts 2.20 to 2.32)."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netd.core.errors import Forbidden, InvalidParameter
from netd.ipam.validate import PoolRequest, validate
from netd.model.networks import IPAMConfig


def check(*config: IPAMConfig, ipv4: bool = True, ipv6: bool = True) -> tuple[PoolRequest, ...]:
    return validate(config, ipv4=ipv4, ipv6=ipv6)


def problems(*config: IPAMConfig, ipv6: bool = True) -> list[str]:
    with pytest.raises(InvalidParameter) as caught:
        check(*config, ipv6=ipv6)
    first, *lines = str(caught.value).split("\n")
    assert first == "invalid network config:"
    assert caught.value.status == 400
    return lines


def test_everything_given_is_returned_parsed() -> None:
    given_ = IPAMConfig(
        subnet="10.10.0.0/16",
        ip_range="10.10.4.0/24",
        gateway="10.10.0.1",
        auxiliary_addresses={"router": "10.10.0.2"},
    )
    assert check(given_, ipv6=False) == (
        PoolRequest(
            ip_network("10.10.0.0/16"),
            False,
            ip_network("10.10.4.0/24"),
            ip_address("10.10.0.1"),
            {"router": ip_address("10.10.0.2")},
        ),
    )


def test_an_enabled_family_that_is_not_mentioned_gets_any_subnet() -> None:
    assert check() == (PoolRequest(None), PoolRequest(None, v6=True))
    assert check(ipv6=False) == (PoolRequest(None),)
    assert check(IPAMConfig(subnet="fd00::/64")) == (
        PoolRequest(ip_network("fd00::/64"), v6=True),
        PoolRequest(None),
    )


def test_pools_of_a_disabled_family_are_neither_checked_nor_used() -> None:
    assert check(IPAMConfig(subnet="fd00::1/64", gateway="nonsense"), ipv6=False) == (PoolRequest(None),)
    assert check(IPAMConfig(subnet="10.0.0.0/8"), ipv4=False) == (PoolRequest(None, v6=True),)


def test_several_subnets_of_one_family_are_allowed() -> None:
    assert len(check(IPAMConfig(subnet="10.0.0.0/24"), IPAMConfig(subnet="10.0.1.0/24"), ipv6=False)) == 2


def test_a_size_alone_is_passed_on() -> None:
    assert check(IPAMConfig(subnet="0.0.0.0/24"), ipv6=False) == (PoolRequest(ip_network("0.0.0.0/24")),)
    assert problems(IPAMConfig(subnet="0.0.0.0/24", gateway="10.0.0.1"), ipv6=False)


@pytest.mark.parametrize(
    "text", ["", "bad", "10.0.0.0", "10.0.0.0/33", "10.0.0/8", "10.0.0.0/255.0.0.0", "10.0.0.0/08", "fd00::/129", "/8"]
)
def test_what_is_not_in_cidr_notation_is_refused(text: str) -> None:
    assert problems(IPAMConfig(subnet=text, gateway="10.0.0.1")) == [
        f"invalid subnet {text}: invalid CIDR block notation"
    ]
    if text:
        assert problems(IPAMConfig(subnet="10.0.0.0/8", ip_range=text)) == [
            f"invalid ip-range {text}: invalid CIDR block notation"
        ]


def test_host_bits_are_refused_with_the_right_subnet() -> None:
    assert problems(IPAMConfig(subnet="10.1.2.3/16")) == ["invalid subnet 10.1.2.3/16: it should be 10.1.0.0/16"]


def test_all_problems_of_all_pools_are_told_together() -> None:
    first = IPAMConfig(
        subnet="10.0.0.0/8",
        ip_range="192.168.0.1/24",
        gateway="192.168.0.1",
        auxiliary_addresses={"a": "192.168.0.1", "b": "dummy"},
    )
    assert problems(first, IPAMConfig(subnet="fd00::/64", gateway="10.0.0.1")) == [
        "invalid ip-range 192.168.0.1/24: it should be 192.168.0.0/24",
        "invalid ip-range 192.168.0.1/24: parent subnet 10.0.0.0/8 doesn't contain ip-range",
        "invalid gateway 192.168.0.1: parent subnet 10.0.0.0/8 doesn't contain this address",
        "invalid auxiliary address a: parent subnet 10.0.0.0/8 doesn't contain this address",
        "invalid auxiliary address b: invalid address",
        "invalid gateway 10.0.0.1: parent subnet is an IPv6 block",
    ]


@pytest.mark.parametrize(
    ("ip_range", "problem"),
    [
        ("10.0.0.0/8", "CIDR block is bigger than its parent subnet 10.10.10.0/24"),
        ("fd00::/64", "parent subnet is an IPv4 block"),
        ("10.10.10.130/25", "it should be 10.10.10.128/25"),
        ("10.10.11.0/25", "parent subnet 10.10.10.0/24 doesn't contain ip-range"),
    ],
)
def test_an_ip_range_must_be_a_part_of_its_subnet(ip_range: str, problem: str) -> None:
    assert problems(IPAMConfig(subnet="10.10.10.0/24", ip_range=ip_range)) == [
        f"invalid ip-range {ip_range}: {problem}"
    ]


def test_auxiliary_addresses_may_lie_outside_the_ip_range() -> None:
    assert check(
        IPAMConfig(subnet="10.0.0.0/24", ip_range="10.0.0.128/25", auxiliary_addresses={"a": "10.0.0.2"}), ipv6=False
    )


@pytest.mark.parametrize("gateway", ["10.0.0.0", "10.0.0.255"])
def test_the_gateway_cannot_be_the_network_or_broadcast_address(gateway: str) -> None:
    with pytest.raises(Forbidden, match=r"failed to allocate gateway \(10\.0\.0\.\d+\): Address already in use"):
        check(IPAMConfig(subnet="10.0.0.0/24", gateway=gateway), ipv6=False)


@pytest.mark.parametrize("aux", [{"a": "10.0.0.1"}, {"a": "10.0.0.9", "b": "10.0.0.9"}, {"a": "10.0.0.0"}])
def test_an_address_cannot_be_given_away_twice(aux: dict[str, str]) -> None:
    with pytest.raises(Forbidden, match=r"failed to allocate secondary ip address .*: Address already in use"):
        check(IPAMConfig(subnet="10.0.0.0/24", gateway="10.0.0.1", auxiliary_addresses=aux), ipv6=False)


texts = st.text(alphabet="0123456789abcdef.:/%", max_size=20) | st.sampled_from(["10.0.0.0/8", "fd00::/64", "10.0.0.1"])


@given(st.builds(IPAMConfig, subnet=texts, ip_range=texts, gateway=texts))
def test_any_text_is_either_accepted_or_refused_in_words(config: IPAMConfig) -> None:
    try:
        for pool in check(config):
            assert pool.gateway is None or (pool.subnet is not None and pool.gateway in pool.subnet)
    except (InvalidParameter, Forbidden) as error:
        assert str(error)
