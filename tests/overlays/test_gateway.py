"""The gateway network: made when it is needed first, whoever else makes or removes it then."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from netd.core.errors import Forbidden, NotFound
from netd.core.filters import Filters
from netd.model.networks import IPAM, IPAMConfig, NetworkCreate
from netd.model.sandboxes import Endpoint, Sandbox
from netd.overlays.gateway import NETWORK, Gateway
from tests.fakes.points import failures, meetings
from tests.fakes.world import World

OVERLAY = Endpoint(id="e", network_id="n", network="far", ifname="eth0", ipv4="10.9.0.2/24", scope="global")
INTERNAL = replace(OVERLAY, internal=True)
BRIDGE = Endpoint(id="b", network_id="m", network="shop", ifname="eth1", ipv4="10.77.0.2/28", gateway4="10.77.0.1")


def sandbox(*endpoints: Endpoint) -> Sandbox:
    return Sandbox(id="5", container_id="c", name="web", netns="/n", endpoints=endpoints)


@pytest.fixture
def make(tmp_path: Path) -> Callable[[], World]:
    return lambda: World(tmp_path)


async def added(world: World, endpoints: tuple[Endpoint, ...] = (OVERLAY,)) -> Sandbox:
    return await world.daemon.joining._gateway.added(sandbox(*endpoints))


async def made_by_hand(world: World) -> None:
    pool = IPAM(config=[IPAMConfig(subnet="10.66.0.0/28")])
    await world.daemon.networks.create(NetworkCreate(name=NETWORK, ipam=pool))


@pytest.mark.parametrize(
    ("endpoints", "needed"), [((OVERLAY,), True), ((OVERLAY, BRIDGE), False), ((INTERNAL,), False), ((BRIDGE,), False)]
)
def test_who_needs_a_gateway_endpoint(make: Callable[[], World], endpoints: tuple[Endpoint, ...], needed: bool) -> None:
    world = make()
    found = world.run(added(world, endpoints))
    assert [e.network for e in found.endpoints[len(endpoints) :]] == ([NETWORK] if needed else [])
    assert Gateway.needless(found) is None
    world.close()


def test_it_is_needless_once_another_network_leads_out(make: Callable[[], World]) -> None:
    world = make()
    found = world.run(added(world))
    gateway = found.endpoints[-1]
    assert Gateway.needless(found.with_endpoint(BRIDGE)) == gateway
    assert Gateway.needless(found.without_endpoint(OVERLAY.id)) == gateway
    world.close()


def test_two_sandboxes_that_need_it_at_once_share_it(make: Callable[[], World]) -> None:
    for world, one, other in meetings(make, added, added):
        networks = {found.endpoints[-1].network_id for found in (one, other)}
        assert networks == {n.record.id for n in world.daemon.networks.live.values() if not n.predefined}


def test_a_user_who_makes_it_at_the_same_time_does_not_fail_a_start(make: Callable[[], World]) -> None:
    for world, _, found in meetings(make, made_by_hand, added):
        assert found.endpoints[-1].network_id == world.daemon.networks.by_name(NETWORK).record.id
    for world, found, _ in meetings(make, added, made_by_hand):
        assert found.endpoints[-1].network_id == world.daemon.networks.by_name(NETWORK).record.id


def test_removing_it_at_the_same_time_does_not_fail_a_start(make: Callable[[], World]) -> None:
    def there() -> World:
        world = make()
        world.run(made_by_hand(world))
        return world

    async def remove(world: World) -> None:
        await world.daemon.networks.remove(NETWORK)

    async def prune(world: World) -> object:
        return await world.daemon.networks.prune(Filters())

    for removal in (remove, prune):
        for world, gone, found in meetings(there, removal, added):
            assert found.endpoints[-1].network_id == world.daemon.networks.by_name(NETWORK).record.id
            assert not isinstance(gone, Exception) or isinstance(gone, Forbidden | NotFound)


def test_it_is_made_by_the_next_one_if_making_it_failed(make: Callable[[], World]) -> None:
    for world, failed, error in failures(make, added):
        if error is not None:
            assert world.run(added(world)).gateway4, failed
