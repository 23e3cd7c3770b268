"""The global scope over a fake of the cluster: what waits for its store, and what is left when something fails."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from netd.core.errors import Conflict, Forbidden, NotFound, Unavailable
from netd.core.filters import Filters
from netd.model.networks import (
    IPAM,
    ConfigReference,
    EndpointIPAMConfig,
    EndpointSettings,
    IPAMConfig,
    NetworkCreate,
)
from netd.networks.endpoints import EndpointRequest
from netd.overlays.scope import Overlays
from tests.fakes.points import failures, meetings, refusal
from tests.fakes.world import World
from tests.overlays.conftest import WEB, here, join, leave

LOCAL = NetworkCreate(name="local", ipam=IPAM(config=[IPAMConfig(subnet="10.77.0.0/28")]))
GLOBAL = NetworkCreate(name="global", driver="overlay")


def test_there_is_one_global_scope_and_it_may_lose_endpoints(world: World) -> None:
    scope = world.daemon.networks._scopes.everywhere
    assert isinstance(scope, Overlays)
    assert scope.loses


# ---- the store is away ----------------------------------------------------------------------------------


def test_local_networks_do_not_wait_for_the_clusters_store(world: World) -> None:
    world.cluster.away = True
    waiting = world.loop.create_task(world.daemon.networks.create(GLOBAL))
    world.loop.settle(0)
    assert not waiting.done()
    before = world.loop.time()
    world.run(world.daemon.networks.create(LOCAL))
    world.run(world.daemon.networks.remove("local"))
    assert world.loop.time() == before
    world.loop.settle()
    assert isinstance(waiting.exception(), Unavailable)


def test_a_name_is_taken_whatever_the_scope_and_free_again_after_a_failure(world: World) -> None:
    world.cluster.away = True
    waiting = world.loop.create_task(world.daemon.networks.create(GLOBAL))
    world.loop.step()
    same = replace(LOCAL, name="global")
    with pytest.raises(Conflict, match="network with name global already exists"):
        world.run(world.daemon.networks.create(same))
    world.loop.settle()
    assert waiting.exception()
    assert world.run(world.daemon.networks.create(same))


def test_pruning_removes_local_networks_while_the_store_is_away(world: World) -> None:
    world.run(world.daemon.networks.create(LOCAL))
    world.cluster.away = True
    assert world.run(world.daemon.networks.prune(Filters())) == ["local"]


def test_a_network_made_elsewhere_a_moment_ago_is_found(world: World) -> None:
    made = world.cluster.networks.make_elsewhere("new", "10.8.0.0/24")
    with pytest.raises(NotFound):
        world.daemon.networks.find("new")
    assert world.run(world.daemon.networks.find_anywhere("new")).record == made.record


# ---- joining and leaving --------------------------------------------------------------------------------


def test_a_join_that_fails_leaves_nothing(make: Callable[[], World]) -> None:
    seen = set()
    for world, failed, error in failures(make, join):
        seen.add(failed)
        if failed.startswith("Resolver"):
            assert error is None, "the resolver is told again later"
            continue
        assert error is not None, failed
        assert not here(world), failed
        assert not world.cluster.endpoints.own and not world.cluster.addresses.held, failed
        assert not world.daemon.networks.find("far").members, failed
        assert world.run(join(world)), failed
    assert {"Addresses.allocate", "Endpoints.put", "Kernel.ensure_network", "Kernel.ensure_peers"} <= seen


def test_a_network_that_goes_while_it_is_joined_leaves_nothing(make: Callable[[], World]) -> None:
    async def vanish(world: World) -> bool:
        counted = bool(world.daemon.networks.find("far").members)
        await world.cluster.networks.vanish("far" * 8)
        return counted

    for world, joined, counted in meetings(make, join, vanish):
        if counted:
            world.run(leave(world, joined))
            world.loop.settle()
        else:
            assert isinstance(joined, NotFound)
        assert not here(world)
        assert not world.cluster.endpoints.own and not world.cluster.addresses.held


def test_a_mistake_in_the_settings_takes_no_address(world: World) -> None:
    for settings in (
        EndpointSettings(mac_address="no"),
        EndpointSettings(driver_opts={"com.docker.network.endpoint.sysctls": "no"}),
    ):
        for network in ("far", "bridge"):
            live = world.daemon.networks.find(network)
            with pytest.raises(Exception, match=r"invalid MAC address|unrecognised network interface sysctl"):
                world.run(world.daemon.networks.join(live, WEB, EndpointRequest(settings, "eth0")))
    assert not world.cluster.addresses.held
    assert world.run(join(world)).ipv4 == "10.9.0.2/24"
    bridge = world.daemon.networks.find("bridge")
    assert world.run(world.daemon.networks.join(bridge, WEB, EndpointRequest(EndpointSettings(), "eth1"))).ipv4 == (
        "172.17.0.2/28"
    )


def test_a_static_address_is_the_containers_and_not_its_endpoints(world: World) -> None:
    settings = EndpointSettings(ipam_config=EndpointIPAMConfig(ipv4_address="10.9.0.7"))
    endpoint = world.run(join(world, WEB, settings))
    world.run(leave(world, endpoint))
    world.loop.settle()
    assert world.cluster.addresses.held == {("far" * 8, "10.9.0.7"): WEB.container_id}
    world.daemon.networks.unreserve(WEB.container_id)
    world.loop.settle()
    assert not world.cluster.addresses.held


def test_a_configuration_network_stays_while_an_overlay_is_made_from_it(make: Callable[[], World]) -> None:
    def with_template() -> World:
        world = make()
        world.run(world.daemon.networks.create(NetworkCreate(name="template", config_only=True)))
        return world

    async def create(world: World) -> str:
        template = ConfigReference(network="template")
        return (await world.daemon.networks.create(replace(GLOBAL, config_from=template)))[0]

    for _, made, removed in meetings(with_template, create, lambda w: w.daemon.networks.remove("template")):
        assert isinstance(made, str) == isinstance(removed, Forbidden)


# ---- removing -------------------------------------------------------------------------------------------


def test_of_two_removals_of_one_network_one_is_told_that_it_is_gone(make: Callable[[], World]) -> None:
    async def remove(world: World) -> None:
        await world.daemon.networks.remove("far")

    for _, one, other in meetings(make, remove, remove):
        assert isinstance(refusal(one, other), NotFound)


def test_a_network_stays_whole_when_its_removal_fails(make: Callable[[], World]) -> None:
    for world, failed, error in failures(make, lambda w: w.daemon.networks.remove("far")):
        assert (failed, type(error)) == ("Networks.remove", Unavailable)
        assert world.run(join(world))


# ---- names ----------------------------------------------------------------------------------------------


def test_a_rename_that_one_network_refuses_changes_none(world: World) -> None:
    near = world.cluster.networks.make_elsewhere("near", "10.8.0.0/24")
    world.run(world.cluster.networks.refresh())
    networks = world.daemon.networks
    sandbox = WEB
    for name in ("near", "far"):
        request = EndpointRequest(EndpointSettings(), "eth0", names=("web",))
        sandbox = sandbox.with_endpoint(world.run(networks.join(networks.find(name), sandbox, request)))
    renamed = replace(sandbox, name="db")  # which there is on `far`
    with pytest.raises(Forbidden):
        world.run(networks.rename(sandbox, renamed))
    assert {e.name for e in world.cluster.endpoints.own.values()} == {"web"}
    assert len([e for e in world.cluster.endpoints.own.values() if e.network_id == near.id]) == 1
