"""Endpoints on a network of one host: the addresses that they take, give back and find kept for them."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from netd.core.errors import Forbidden, InvalidParameter, NetdError
from netd.model.networks import EndpointIPAMConfig, EndpointSettings
from netd.model.sandboxes import Endpoint
from netd.networks.endpoints import EndpointRequest
from netd.networks.live import LiveNetwork, Member
from tests.fakes.world import World
from tests.networks.conftest import WEB, local

NINE = "10.77.0.9"


def shop(world: World) -> LiveNetwork:
    return world.daemon.networks.by_name("shop")


def join(world: World, wanted: str = "") -> Endpoint:
    settings = EndpointSettings(ipam_config=EndpointIPAMConfig(ipv4_address=wanted))
    return world.run(local(world).join(shop(world), WEB, EndpointRequest(settings, "eth0", names=("web",))))


def others(world: World) -> set[str]:
    """The addresses that whoever asks for any is given, until nothing is left."""
    found = set()
    while True:
        try:
            found.add(join(world).addresses[0])
        except NetdError:
            return found


# ---- joining and leaving --------------------------------------------------------------------------------


def test_an_endpoint_has_an_address_of_its_network_and_its_gateway(world: World) -> None:
    endpoint = join(world)
    assert (endpoint.ipv4, endpoint.gateway4, endpoint.network) == ("10.77.0.2/28", "10.77.0.1", "shop")
    assert shop(world).members[endpoint.id] == Member("c", "web", endpoint)
    assert local(world).endpoints(shop(world)) == [endpoint]
    assert [member.container for member in world.run(local(world).members(shop(world)))] == ["web"]


def test_two_endpoints_have_two_addresses(world: World) -> None:
    assert join(world).ipv4 != join(world).ipv4


def test_an_endpoint_that_has_left_counts_no_more_and_its_address_is_free(world: World) -> None:
    endpoint = join(world, NINE)
    with pytest.raises(Forbidden, match="Address already in use"):
        join(world, NINE)
    local(world).left(endpoint)
    assert not shop(world).members
    assert join(world, NINE)


def test_an_endpoint_that_leaves_twice_does_not_take_an_address_from_another(world: World) -> None:
    first = join(world, NINE)
    local(world).left(first)
    join(world, NINE)
    local(world).left(first)
    with pytest.raises(Forbidden):
        join(world, NINE)


def test_leaving_a_network_that_has_gone_is_fine(world: World) -> None:
    endpoint = join(world)
    local(world).left(replace(endpoint, network_id="gone"))
    assert list(shop(world).members) == [endpoint.id]


def test_an_endpoint_of_an_earlier_daemon_counts_and_has_its_address(world: World) -> None:
    endpoint = join(world, NINE)
    world.restart_daemon()
    assert not shop(world).members
    local(world).adopt(shop(world), Member("c", "web", endpoint))
    assert list(shop(world).members) == [endpoint.id]
    with pytest.raises(Forbidden):
        join(world, NINE)


def test_a_join_that_is_refused_counts_nobody(world: World) -> None:
    with pytest.raises(InvalidParameter, match="requested address is out of range"):
        join(world, "10.99.0.9")
    assert not shop(world).members


# ---- kept addresses -------------------------------------------------------------------------------------


def keep(world: World, owner: str = "db") -> None:
    world.run(local(world).keep(shop(world), (NINE, ""), owner))


def test_an_address_that_is_kept_is_for_whoever_asks_for_it(world: World) -> None:
    keep(world)
    assert NINE not in others(world)
    assert join(world, NINE)


def test_an_address_that_was_remembered_is_kept(world: World) -> None:
    local(world).remember(shop(world), ("", NINE), "db")
    assert NINE not in others(world)


def test_an_address_that_nobody_keeps_any_more_is_free(world: World) -> None:
    keep(world)
    local(world).let_go("db")
    assert NINE in others(world)


def test_letting_go_of_one_network_keeps_what_is_kept_on_the_others(world: World) -> None:
    keep(world)
    local(world).let_go("db", world.daemon.networks.by_name("back").record.id)
    assert NINE not in others(world)
    local(world).let_go("db", shop(world).record.id)
    assert others(world) == {NINE}


def test_letting_go_for_one_container_keeps_what_is_kept_for_another(world: World) -> None:
    keep(world)
    local(world).let_go("web")
    assert NINE not in others(world)


def test_a_kept_address_stays_kept_when_its_endpoint_leaves(world: World) -> None:
    keep(world)
    local(world).left(join(world, NINE))
    assert NINE not in others(world)
