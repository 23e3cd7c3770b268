"""The addresses of a local network: in use, kept for containers that do not run, or free."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from netd.core.errors import Forbidden
from netd.model.networks import IPAM, IPAMConfig, Network
from netd.networks.pools import Addresses

NINE = ip_address("10.77.0.9")


@pytest.fixture
def addresses() -> Addresses:
    config = [IPAMConfig(subnet="10.77.0.0/28", gateway="10.77.0.1"), IPAMConfig(subnet="fd77::/64", gateway="fd77::1")]
    record = Network(name="shop", id="1", created="", scope="local", driver="bridge", ipam=IPAM(config=config))
    return Addresses.of(record)


def everything(addresses: Addresses) -> set[str]:
    """What is handed out until nothing is left."""
    taken = set()
    try:
        while True:
            taken.add(addresses.take(4))
    except Exception:
        return taken


def test_an_address_comes_with_its_prefix_length_and_none_without_a_subnet(addresses: Addresses) -> None:
    assert (addresses.take(4), addresses.take(6)) == ("10.77.0.2/28", "fd77::2/64")
    assert Addresses().take(4) == ""


def test_a_kept_address_is_never_chosen_but_given_to_whoever_asks_for_it(addresses: Addresses) -> None:
    addresses.keep(NINE, "db")
    assert "10.77.0.9/28" not in everything(addresses)
    assert addresses.take(4, NINE) == "10.77.0.9/28"


def test_an_address_in_use_is_given_to_nobody_else(addresses: Addresses) -> None:
    addresses.keep(NINE, "db")
    addresses.take(4, NINE)
    with pytest.raises(Forbidden, match="Address already in use"):
        addresses.take(4, NINE)
    addresses.release(NINE)
    assert addresses.take(4, NINE)


def test_an_address_kept_for_two_stays_kept_until_both_let_go(addresses: Addresses) -> None:
    addresses.keep(NINE, "db")
    addresses.keep(NINE, "standby")
    addresses.let_go("db")
    assert "10.77.0.9/28" not in everything(addresses)
    addresses.let_go("standby")
    assert everything(addresses) == {"10.77.0.9/28"}


def test_an_address_that_is_in_use_when_it_is_asked_to_be_kept_is_kept_afterwards(addresses: Addresses) -> None:
    addresses.take(4, NINE)
    addresses.keep(NINE, "standby")
    addresses.release(NINE)
    assert "10.77.0.9/28" not in everything(addresses)


def test_letting_go_of_an_address_in_use_does_not_free_it(addresses: Addresses) -> None:
    addresses.keep(NINE, "db")
    addresses.take(4, NINE)
    addresses.let_go("db")
    assert "10.77.0.9/28" not in everything(addresses)


def test_an_address_that_two_have_from_before_is_free_when_both_have_given_it_back(addresses: Addresses) -> None:
    addresses.claim(NINE)
    addresses.claim(NINE)
    addresses.release(NINE)
    with pytest.raises(Forbidden):
        addresses.take(4, NINE)
    addresses.release(NINE)
    assert addresses.take(4, NINE) == "10.77.0.9/28"


def test_the_gateways_address_cannot_be_kept_or_given_back(addresses: Addresses) -> None:
    gateway = ip_address("10.77.0.1")
    addresses.keep(gateway, "db")
    with pytest.raises(Forbidden):
        addresses.take(4, gateway)
    addresses.let_go("db")
    addresses.release(gateway)
    assert "10.77.0.1/28" not in everything(addresses)
