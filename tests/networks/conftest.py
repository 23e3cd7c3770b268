"""A machine of fakes with two networks, and words for what tests do with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from netd.core.filters import Filters
from netd.model.networks import IPAM, EndpointSettings, IPAMConfig, NetworkCreate
from netd.model.sandboxes import Sandbox
from netd.networks.endpoints import EndpointRequest
from netd.networks.local import LocalScope
from tests.fakes.consistent import complaints
from tests.fakes.world import World

SHOP = NetworkCreate(name="shop", ipam=IPAM(config=[IPAMConfig(subnet="10.77.0.0/28")]))
BACK = NetworkCreate(name="back", ipam=IPAM(config=[IPAMConfig(subnet="10.78.0.0/28")]))
NEW = NetworkCreate(name="new", ipam=IPAM(config=[IPAMConfig(subnet="0.0.0.0/28")]))  # whichever is free
WEB = Sandbox(id="5", container_id="c", name="web", netns="/n")


@pytest.fixture
def make(tmp_path: Path) -> Callable[[], World]:
    """A machine with networks `shop` and `back`."""

    def build() -> World:
        made = World(tmp_path)
        made.run(made.daemon.networks.create(SHOP))
        made.run(made.daemon.networks.create(BACK))
        return made

    return build


@pytest.fixture
def world(make: Callable[[], World]) -> Iterator[World]:
    made = make()
    yield made
    made.close()


def names(world: World) -> list[str]:
    return [live.record.name for live in world.daemon.networks.live.values() if not live.predefined]


def wrong(world: World) -> list[str]:
    """What memory, store, kernel and resolver tell differently, now and after a restart."""
    found = [c.text for c in complaints(world)]
    before = names(world)
    world.restart_daemon()
    if sorted(names(world)) != sorted(before):
        found.append(f"after a restart there are {names(world)}, and there were {before}")
    return found


async def create(world: World, request: NetworkCreate = NEW) -> str:
    return (await world.daemon.networks.create(request))[0]


async def remove_shop(world: World) -> None:
    await world.daemon.networks.remove("shop")


async def prune(world: World) -> object:
    return await world.daemon.networks.prune(Filters())


async def join_shop(world: World) -> str:
    live = world.daemon.networks.find("shop")
    endpoint = await world.daemon.networks.join(live, WEB, EndpointRequest(EndpointSettings(), "eth0"))
    return endpoint.id


def local(world: World) -> LocalScope:
    """What the networks of this host are kept by."""
    found = world.daemon.networks._scopes.local
    assert isinstance(found, LocalScope)
    return found
