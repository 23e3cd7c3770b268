"""Global networks in a host's kernel and in its table: when they come and when they go."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain

import pytest
from msgspec.structs import replace

from drivers.spec import DriverError
from netd.cluster.model import GlobalNetwork
from netd.model.containers import ContainerCreate, HostConfig
from netd.model.networks import NetworkCreate, StaticRecord
from netd.model.sandboxes import Endpoint
from netd.overlays.projection import Projection
from tests.fakes.calls import step
from tests.fakes.points import failures, meetings
from tests.fakes.world import World
from tests.overlays.conftest import FAR, OTHER, ensure, here, join, leave, projection

ID = FAR.network_id
CACHE = replace(FAR, id="g", name="cache", ipv4="10.9.0.10/24", names=("cache",))
PRINTER = StaticRecord(name="printer", type="A", data="10.9.0.200")


# ---- coming and going -----------------------------------------------------------------------------------


def test_the_first_endpoint_brings_the_network_and_the_last_takes_it_away(world: World) -> None:
    assert not here(world)
    first, second = world.run(join(world)), world.run(join(world, OTHER))
    assert here(world)
    world.run(leave(world, first))
    world.loop.settle()
    assert here(world)
    world.run(leave(world, second))
    world.loop.settle()
    assert not here(world)
    assert not world.cluster.endpoints.own and not world.cluster.addresses.held


def test_a_network_is_told_to_the_kernel_once_however_many_join(world: World) -> None:
    world.run(ensure(world))
    made = world.calls.made
    world.run(ensure(world))
    assert world.calls.made == made
    projected: Projection = projection(world)
    assert ID in projected


def test_a_network_that_nobody_here_was_on_is_left_without_a_word(world: World) -> None:
    made = world.calls.made
    world.run(projection(world).leave_unused(ID))
    assert world.calls.made == made


def test_whoever_joins_while_the_last_one_leaves_has_a_network(make: Callable[[], World]) -> None:
    def joined() -> World:
        world = make()
        world.run(join(world))
        return world

    async def last_leaves(world: World) -> None:
        members = world.daemon.networks.find("far").members.values()
        await leave(world, next(m.endpoint for m in members if m.container == "web"))
        for _ in range(20):  # while the store, the kernel and the resolver are told
            await step()

    leaving_first = ((world, found) for world, _, found in meetings(joined, last_leaves, lambda w: join(w, OTHER)))
    joining_first = ((world, found) for world, found, _ in meetings(joined, lambda w: join(w, OTHER), last_leaves))
    for world, joining in chain(leaving_first, joining_first):
        assert isinstance(joining, Endpoint)
        assert here(world)
        assert world.kernel.peers[ID] == {"f"}


def test_a_network_that_does_not_come_leaves_nothing(make: Callable[[], World]) -> None:
    seen = set()
    for world, failed, error in failures(make, ensure):
        seen.add(failed)
        if failed == "Resolver.put_network":
            assert error is None, "the resolver is told again later"
            continue
        assert isinstance(error, DriverError), failed
        assert not here(world) and ID not in projection(world), failed
        world.run(ensure(world))
        assert here(world) and world.kernel.peers[ID] == {"f"}, failed
    assert seen == {"Kernel.ensure_network", "Kernel.ensure_peers", "Resolver.put_network"}


def test_what_cannot_be_cleared_is_told_and_the_network_comes_back_whole(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    endpoint = world.run(join(world))
    world.calls.broken.add("Kernel.remove_network")
    world.run(leave(world, endpoint))
    world.loop.settle()
    assert "could not remove its bridge and tunnel: Kernel.remove_network was made to fail" in caplog.text
    assert ID not in world.resolver.networks
    world.calls.broken.clear()
    world.kernel.peers.clear()
    world.run(join(world))
    assert here(world) and world.kernel.peers[ID] == {"f"}


def test_what_cannot_be_cleared_now_is_cleared_later(world: World) -> None:
    endpoint = world.run(join(world))
    world.calls.broken.add("Kernel.remove_network")
    world.run(leave(world, endpoint))
    world.loop.settle(3)
    assert ID in world.kernel.networks
    world.calls.broken.clear()
    world.loop.settle()
    assert not here(world)


# ---- what the cluster tells -----------------------------------------------------------------------------


def test_a_network_that_appears_is_found_and_one_that_is_gone_is_not(world: World) -> None:
    networks = world.daemon.networks
    assert networks.find("far").record.id == ID
    world.run(world.cluster.networks.vanish(ID))
    assert ID not in networks.live


def test_a_global_network_that_a_local_one_hides_is_told(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.run(world.daemon.networks.create(NetworkCreate(name="shop")))
    hidden: GlobalNetwork = world.cluster.networks.make_elsewhere("shop", "10.8.0.0/24")
    world.run(world.cluster.networks.refresh())
    assert "global network shop is hidden here by a local one of that name" in caplog.text
    assert world.daemon.networks.find(hidden.id).record == hidden.record, "its id finds it"
    assert world.daemon.networks.find("shop").record.scope == "local"


def test_static_records_stay_when_the_last_container_leaves_and_go_with_the_network(world: World) -> None:
    told = world.daemon.names
    endpoint = world.run(join(world))
    world.run(told.add_static(ID, PRINTER, lambda: world.daemon.networks.find(ID)))
    world.run(leave(world, endpoint))
    world.loop.settle()
    assert told.static(ID) == (PRINTER,)
    world.run(join(world))
    assert world.resolver.lines[ID] == [PRINTER.line]
    world.run(world.cluster.networks.vanish(ID))
    assert told.static(ID) == ()
    assert not world.store.under("dns")


@pytest.mark.parametrize("step", ["Kernel.put_peer", "Kernel.ensure_peers"])
def test_an_endpoint_of_another_host_that_the_kernel_refuses_is_tried_again(world: World, step: str) -> None:
    world.run(join(world))
    world.cluster.remote.records[ID].append(CACHE)
    world.calls.broken |= {"Kernel.put_peer", step}
    world.run(projection(world).endpoints_changed(ID, [CACHE], []))
    world.loop.settle(3)
    world.calls.broken.clear()
    world.loop.settle()
    assert world.kernel.peers[ID] == {"f", "g"}
    assert {name for told in world.resolver.networks[ID].values() for name in told.names} == {"db", "cache"}


def test_one_that_has_gone_and_stays_in_the_kernel_is_tried_again_too(world: World) -> None:
    world.run(join(world))
    world.cluster.remote.records[ID].clear()
    world.calls.broken.add("Kernel.remove_peer")
    world.run(projection(world).endpoints_changed(ID, [], [FAR]))
    world.calls.broken.clear()
    world.loop.settle()
    assert world.kernel.peers[ID] == set()


def test_peers_that_the_next_daemon_cannot_set_at_once_are_set_later(world: World) -> None:
    body = ContainerCreate(image="app", cmd=["serve"], host_config=HostConfig(network_mode="far"))
    container, _ = world.run(world.daemon.containers.create(body, "web"))
    world.run(world.daemon.containers.start(container))
    world.kill_daemon()
    world.cluster.remote.records[ID].append(CACHE)
    world.calls.broken.add("Kernel.ensure_peers")
    world.run(world.daemon.load())
    world.calls.broken.clear()
    world.loop.settle()
    assert world.kernel.peers[ID] == {"f", "g"}


def test_a_lost_endpoint_is_there_for_whoever_holds_it(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.daemon.tasks.cancel()  # which would take them away from there
    for lost in (FAR, CACHE):
        world.run(projection(world).endpoint_lost(lost, "its address was taken"))
    assert [projection(world).lost.get_nowait().name for _ in range(2)] == ["db", "cache"]
    assert "container db is taken from a global network: its address was taken; restart it" in caplog.text
