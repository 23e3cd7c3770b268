"""Endpoints of other hosts on this one: peers in the kernel, and names that resolve."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from drivers import spec
from drivers.spec import DriverError
from netd.cluster.model import EndpointRecord
from netd.model.sandboxes import Endpoint
from netd.networks.live import Member
from tests.fakes.points import meetings
from tests.fakes.world import World
from tests.overlays.conftest import FAR, WEB, ensure, here, join, network, projection

ID = FAR.network_id
CACHE = replace(FAR, id="g", name="cache", ipv4="10.9.0.10/24", names=("cache",))


def names(world: World) -> set[str]:
    """The names that resolve on the network."""
    return {name for record in world.resolver.networks[ID].values() for name in record.names}


def changed(world: World, present: list[EndpointRecord], gone: list[EndpointRecord]) -> None:
    """What other hosts have changed is told."""
    world.run(projection(world).endpoints_changed(ID, present, gone))


# ---- other hosts' endpoints -----------------------------------------------------------------------------


def test_endpoints_of_other_hosts_become_peers_and_names(world: World) -> None:
    world.run(join(world))
    assert world.kernel.peers[ID] == {"f"}
    assert names(world) == {"db"}
    changed(world, [CACHE], [])
    assert (world.kernel.peers[ID], names(world)) == ({"f", "g"}, {"db", "cache"})
    changed(world, [replace(CACHE, names=("redis",))], [FAR])
    assert (world.kernel.peers[ID], names(world)) == ({"g"}, {"redis"})


def test_a_peer_is_where_its_host_says(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[spec.Peer] = []
    world.run(ensure(world))

    async def put_peer(_: str, peer: spec.Peer) -> None:
        told.append(peer)

    monkeypatch.setattr(world.kernel, "put_peer", put_peer)
    changed(world, [replace(FAR, ipv6="fd09::9/64")], [])
    (peer,) = told
    assert (peer.id, peer.mac, str(peer.vtep)) == ("f", "02:42:00:00:00:01", "192.0.2.2")
    assert [str(address) for address in peer.addresses] == ["10.9.0.9", "fd09::9"]


def test_endpoints_of_a_network_that_nobody_here_is_on_are_nobodys_affair(world: World) -> None:
    changed(world, [CACHE], [FAR])
    assert not here(world) and ID not in world.kernel.peers


def test_what_changed_while_the_network_came_is_not_lost(make: Callable[[], World]) -> None:
    async def appears(world: World) -> None:
        world.cluster.remote.records[ID] = [FAR, CACHE]
        await projection(world).endpoints_changed(ID, [CACHE], [])

    for world, _, _ in meetings(make, ensure, appears):
        assert world.kernel.peers[ID] == {"f", "g"}
        assert names(world) == {"db", "cache"}


def test_a_member_that_is_only_planned_has_no_name_yet(world: World) -> None:
    planned = Endpoint(id="p", network_id=ID, network="far", ipv4="10.9.0.3/24", scope="global", names=("planned",))
    world.daemon.networks.find("far").members["p"] = Member(WEB.container_id, "planned", planned)
    world.run(ensure(world))
    assert names(world) == {"db"}


def test_a_recorded_member_has_its_name_beside_those_of_other_hosts(world: World) -> None:
    world.run(world.namespaces.pin(WEB.netns))
    endpoint = world.run(join(world))
    assert names(world) == {"db"}
    world.run(world.daemon.sandboxes.bring_up(WEB.with_endpoint(endpoint)))
    assert names(world) == {"db", "web"}


def refuses(world: World, monkeypatch: pytest.MonkeyPatch, method: str, refused: str) -> None:
    """From now on the kernel refuses one peer."""
    works = getattr(world.kernel, method)

    async def call(network_id: str, peer: Any) -> None:
        if refused in (peer, getattr(peer, "id", "")):
            raise DriverError("no such device")
        await works(network_id, peer)

    monkeypatch.setattr(world.kernel, method, call)


def test_one_that_does_not_come_does_not_keep_the_others_from_coming(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    world.run(ensure(world))
    refuses(world, monkeypatch, "put_peer", "bad")
    changed(world, [replace(CACHE, id="bad", name="bad"), CACHE], [])
    assert world.kernel.peers[ID] == {"f", "g"}
    assert "container bad on host far" in caplog.text and "no such device" in caplog.text


def test_one_that_does_not_go_does_not_keep_the_others_from_coming(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    world.run(join(world))
    refuses(world, monkeypatch, "remove_peer", "f")
    world.cluster.remote.records[ID] = [CACHE]
    changed(world, [CACHE], [FAR])
    assert names(world) == {"cache"}
    assert "container db on host far" in caplog.text and "no such device" in caplog.text


# ---- after a restart ------------------------------------------------------------------------------------


def adopt(world: World) -> None:
    world.run(projection(world).adopt([ID], world.cluster.remote.on))


def test_networks_from_before_get_the_peers_of_now(world: World) -> None:
    world.run(world.kernel.ensure_network(network(world)))
    world.kernel.peers[ID] = {"old"}
    adopt(world)
    assert ID in projection(world)
    assert world.kernel.peers[ID] == {"f"}


def test_peers_from_before_stay_until_anything_is_known_of_other_hosts(world: World) -> None:
    world.kernel.peers[ID] = {"old"}
    world.cluster.remote.records.clear()
    adopt(world)
    assert world.kernel.peers[ID] == {"old"}


def test_peers_that_the_kernel_refuses_do_not_keep_the_daemon_from_starting(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    near = world.cluster.networks.make_elsewhere("near", "10.8.0.0/24")
    world.cluster.remote.records[near.id] = [replace(CACHE, network_id=near.id)]
    world.calls.broken.add("Kernel.ensure_peers")
    world.run(projection(world).adopt([ID, near.id], world.cluster.remote.on))
    assert ID in projection(world) and near.id in projection(world)
    assert caplog.text.count("Kernel.ensure_peers was made to fail") == 2
