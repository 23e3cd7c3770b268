"""Endpoints of sandboxes, with the gateway endpoint that follows from them: all of it, or nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from netd.core.errors import NetdError
from netd.model.containers import ContainerCreate, HostConfig
from netd.model.networks import IPAM, EndpointSettings, IPAMConfig, NetworkConnect, NetworkCreate, NetworkDisconnect
from netd.model.sandboxes import Sandbox
from netd.networks.endpoints import EndpointRequest
from netd.overlays.gateway import NETWORK
from netd.overlays.gateway import NETWORK as GATEWAY
from netd.sandboxes.attached import AttachRequest
from netd.sandboxes.joining import Joining
from tests.fakes.points import failures
from tests.fakes.world import World

NETNS = "/run/netns/build"


@pytest.fixture
def make(tmp_path: Path) -> Callable[[], World]:
    """A host with the overlay `far`, the bridge `shop`, and somebody else's namespace."""

    def build() -> World:
        made = World(tmp_path, clustered=True)
        made.cluster.networks.make_elsewhere("far", "10.9.0.0/24")
        made.run(made.cluster.networks.refresh())
        made.run(
            made.daemon.networks.create(
                NetworkCreate(name="shop", ipam=IPAM(config=[IPAMConfig(subnet="10.77.0.0/28")]))
            )
        )
        made.namespaces.make(NETNS)
        return made

    return build


@pytest.fixture
def world(make: Callable[[], World]) -> Iterator[World]:
    made = make()
    yield made
    made.close()


async def attach(world: World, *networks: str) -> None:
    await world.daemon.attached.attach(AttachRequest(name="build", netns=NETNS, networks=list(networks)))


async def run(world: World, network: str) -> str:
    body = ContainerCreate(image="app", cmd=["serve"], host_config=HostConfig(network_mode=network))
    container, _ = await world.daemon.containers.create(body, "web")
    await world.daemon.containers.start(container)
    return container


def the(world: World, name: str) -> Sandbox:
    return next(s for s in world.daemon.sandboxes.all() if s.name == name)


def networks(world: World, name: str) -> list[str]:
    """On which networks a sandbox is, as its record and the kernel say."""
    sandbox = the(world, name)
    assert {e.id for e in world.kernel.sandboxes[sandbox.id].endpoints} == {e.id for e in sandbox.endpoints}
    return [endpoint.network for endpoint in sandbox.endpoints]


def networks_of(world: World, name: str) -> list[str]:
    """The same, as the record says."""
    return [endpoint.network for endpoint in the(world, name).endpoints]


def interfaces(world: World, name: str) -> list[str]:
    return [endpoint.ifname for endpoint in the(world, name).endpoints]


def addresses(world: World) -> set[str]:
    """All that are taken by endpoints."""
    local = {a for n in world.daemon.networks.live.values() for m in n.members.values() for a in m.endpoint.addresses}
    return local | {address for _, address in world.cluster.addresses.held}


def test_what_was_planned_is_given_back_with_what_followed_from_it(world: World) -> None:
    joining: Joining = world.daemon.joining
    bare = Sandbox(id="5", container_id="c", name="web", netns="/n")
    wanted = [(world.daemon.networks.find("far"), EndpointRequest(EndpointSettings(), names=("web",)))]
    planned = world.run(joining.added(bare, wanted))
    assert [endpoint.network for endpoint in planned.endpoints] == ["far", GATEWAY]
    joining.give_back(bare, planned)
    world.loop.settle()
    assert addresses(world) == set()


@pytest.mark.parametrize("kind", ["container", "attached namespace"])
def test_on_an_overlay_alone_there_is_a_gateway_endpoint(world: World, kind: str) -> None:
    name, prefix = ("web", "eth") if kind == "container" else ("build", "netd")
    world.run(run(world, "far") if kind == "container" else attach(world, "far"))
    assert networks(world, name) == ["far", NETWORK]
    assert interfaces(world, name) == [f"{prefix}0", f"{prefix}1"]
    assert the(world, name).gateway4


@pytest.mark.parametrize("kind", ["container", "attached namespace"])
def test_the_gateway_endpoint_goes_with_the_last_global_one_that_is_lost(world: World, kind: str) -> None:
    if kind == "container":
        container = world.run(run(world, "far"))
        world.run(world.daemon.containers.lose_endpoint(container, the(world, "web").endpoints[0].id))
        assert networks(world, "web") == []
    else:
        world.run(attach(world, "far"))
        sandbox = the(world, "build")
        world.run(world.daemon.attached.lose_endpoint(sandbox.id, sandbox.endpoints[0].id))
        assert networks(world, "build") == []
    world.loop.settle()
    assert not addresses(world)


def test_a_bridge_that_leads_out_takes_the_place_of_the_gateway_endpoint_and_gives_it_back(world: World) -> None:
    container = world.run(run(world, "far"))
    world.run(world.daemon.containers.connect("shop", NetworkConnect(container=container)))
    assert sorted(networks(world, "web")) == ["far", "shop"]
    world.run(world.daemon.containers.disconnect("shop", NetworkDisconnect(container=container)))
    assert networks(world, "web") == ["far", NETWORK]


@pytest.mark.parametrize("step", ["Store.cas", "Kernel.ensure_sandbox"])
def test_a_gateway_endpoint_that_cannot_be_made_with_the_disconnection_is_made_later(world: World, step: str) -> None:
    container = world.run(run(world, "far"))
    world.run(world.daemon.containers.connect("shop", NetworkConnect(container=container)))
    disconnecting = world.daemon.containers.disconnect("shop", NetworkDisconnect(container=container))
    task = world.loop.create_task(disconnecting)
    while networks_of(world, "web") != ["far"]:
        world.loop.step()
    world.calls.broken.add(step)
    world.loop.settle(3)
    assert task.done() and task.exception() is None
    assert networks_of(world, "web") == ["far"]
    world.calls.broken.clear()
    world.loop.settle()
    assert networks(world, "web") == ["far", NETWORK]


def test_a_gateway_endpoint_that_is_needless_goes_later_if_it_cannot_go_now(world: World) -> None:
    container = world.run(run(world, "far"))
    connecting = world.daemon.containers.connect("shop", NetworkConnect(container=container))
    task = world.loop.create_task(connecting)
    while "shop" not in networks_of(world, "web"):
        world.loop.step()
    world.calls.broken.add("Store.cas")
    world.loop.settle(3)
    assert task.done() and task.exception() is None
    assert NETWORK in networks_of(world, "web")
    world.calls.broken.clear()
    world.loop.settle()
    assert sorted(networks(world, "web")) == ["far", "shop"]


@pytest.mark.parametrize("kind", ["container", "attached namespace"])
def test_an_endpoint_that_is_lost_goes_once_the_store_takes_it(world: World, kind: str) -> None:
    world.run(run(world, "far") if kind == "container" else attach(world, "far"))
    (record,) = world.cluster.endpoints.own.values()
    world.calls.broken.add("Store.cas")
    world.run(world.daemon.projection.endpoint_lost(record, "its address was taken"))
    world.loop.settle(3)
    world.calls.broken.clear()
    world.loop.settle()
    assert networks(world, "web" if kind == "container" else "build") == []
    assert not addresses(world)


def test_what_a_killed_daemon_left_undone_is_done_by_the_next_one(world: World) -> None:
    container = world.run(run(world, "far"))
    disconnecting = world.daemon.containers.disconnect("far", NetworkDisconnect(container=container))
    world.loop.create_task(disconnecting)
    while "far" in [endpoint.network for endpoint in the(world, "web").endpoints]:
        world.loop.step()
    assert [endpoint.network for endpoint in the(world, "web").endpoints] == [NETWORK]
    world.restart_daemon()
    assert networks(world, "web") == []
    assert not addresses(world)


def test_a_namespace_is_attached_to_an_overlay_that_another_host_has_just_made(world: World) -> None:
    world.cluster.networks.make_elsewhere("new", "10.8.0.0/24")
    world.run(attach(world, "new"))
    assert networks(world, "build") == ["new", NETWORK]


def test_a_container_is_connected_to_an_overlay_that_another_host_has_just_made(world: World) -> None:
    container = world.run(run(world, "shop"))
    world.cluster.networks.make_elsewhere("new", "10.8.0.0/24")
    world.run(world.daemon.containers.connect("new", NetworkConnect(container=container)))
    assert networks(world, "web") == ["shop", "new"]


def test_an_attachment_that_fails_gives_everything_back(make: Callable[[], World]) -> None:
    steps = 0
    for world, failed, error in failures(make, lambda w: attach(w, "shop", "far")):
        if error is None:
            assert failed.startswith("Resolver"), failed
            continue
        steps += 1
        world.loop.settle()
        assert not addresses(world), failed
        assert not list(world.daemon.sandboxes.all()) and not world.kernel.sandboxes, failed
        world.run(attach(world, "shop", "far"))
    assert steps > 5


def test_a_refused_network_gives_back_what_the_ones_before_it_gave(world: World) -> None:
    with pytest.raises(NetdError):
        world.run(attach(world, "shop", "far", "host"))
    world.loop.settle()
    assert not addresses(world)
