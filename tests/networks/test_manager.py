"""The network manager over fakes: what can fail at each step, and meet at each await."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from netd.core.errors import Conflict, Forbidden, NotFound
from netd.core.filters import Filters
from netd.model.networks import IPAM, EndpointSettings, IPAMConfig, NetworkCreate
from netd.model.sandboxes import Sandbox
from netd.networks.endpoints import EndpointRequest
from tests.fakes.consistent import complaints
from tests.fakes.points import failures, meetings, refusal
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


# ---- failing half-way -----------------------------------------------------------------------------------


def test_creating_leaves_nothing_whichever_step_fails(make: Callable[[], World]) -> None:
    steps = []
    for world, failed, error in failures(make, create):
        if failed.startswith("Resolver"):
            assert error is None, "the resolver is told again later"
            continue
        steps.append(failed)
        assert error is not None, failed
        assert names(world) == ["shop", "back"], failed
        world.run(create(world))  # the name is free, and so is the subnet
        assert not wrong(world), failed
    assert steps == ["Kernel.host_routes", "Kernel.ensure_network", "Store.create"]


def test_removing_leaves_a_network_whole_or_nothing_of_it(make: Callable[[], World]) -> None:
    outcomes = {}
    for world, failed, error in failures(make, remove_shop):
        outcomes[failed] = error is None
        assert names(world) == (["back"] if error is None else ["shop", "back"])
        if error is not None:
            assert not wrong(world), failed
            world.run(remove_shop(world))
        world.restart_daemon()
        world.run(create(world, SHOP))
        assert not wrong(world), failed
    assert outcomes.pop("Store.delete") is False
    assert set(outcomes.values()) == {True}, "once the record is gone there is no way back"


# ---- two things at once ---------------------------------------------------------------------------------


def test_of_two_networks_of_one_name_one_is_made(make: Callable[[], World]) -> None:
    for world, one, other in meetings(make, create, create):
        refused = refusal(one, other)
        assert isinstance(refused, Conflict) and str(refused) == "network with name new already exists"
        assert not wrong(world)


def test_a_name_is_free_again_once_its_network_is_gone(make: Callable[[], World]) -> None:
    for world, removed, made in meetings(make, remove_shop, lambda world: create(world, SHOP)):
        assert removed is None
        assert isinstance(made, str | Conflict)
        assert names(world) == (["back"] if isinstance(made, Conflict) else ["back", "shop"])
        assert not wrong(world)


def test_two_networks_with_one_device_are_not_both_made(make: Callable[[], World]) -> None:
    device = {"com.docker.network.bridge.name": "br-shop"}
    one, other = (NetworkCreate(name=name, options=device, ipam=NEW.ipam) for name in ("one", "other"))
    for world, first, second in meetings(make, lambda w: create(w, one), lambda w: create(w, other)):
        assert "br-shop is taken" in str(refusal(first, second))
        assert not wrong(world)


def test_whoever_joins_a_network_that_is_being_removed_is_told_that_it_is_gone(make: Callable[[], World]) -> None:
    for world, removed, joined in meetings(make, remove_shop, join_shop):
        if removed is None:
            assert isinstance(joined, NotFound), "from the first await of the removal on"
            assert names(world) == ["back"]
        else:
            assert isinstance(removed, Forbidden) and isinstance(joined, str)
            assert list(world.daemon.networks.find("shop").members) == [joined]


def test_a_network_that_somebody_has_joined_is_not_removed(world: World) -> None:
    world.run(join_shop(world))
    with pytest.raises(Forbidden, match=r'network shop has active endpoints \(name:"web" id:"\w{12}"\)'):
        world.run(remove_shop(world))


def test_a_network_whose_removal_failed_can_be_joined(make: Callable[[], World]) -> None:
    for world, failed, error in failures(make, remove_shop):
        if error is not None:
            assert world.run(join_shop(world)), failed


# ---- prune ----------------------------------------------------------------------------------------------


def test_pruning_goes_on_when_a_network_goes_meanwhile(make: Callable[[], World]) -> None:
    for world, pruned, removed in meetings(make, prune, remove_shop):
        assert names(world) == [], "whoever removed it"
        assert isinstance(pruned, list) and "back" in pruned
        assert ("shop" in pruned) == isinstance(removed, NotFound)


def test_pruning_goes_on_after_an_error(make: Callable[[], World]) -> None:
    for world, failed, error in failures(make, prune):
        assert error is None, failed
        assert len(names(world)) == (1 if failed == "Store.delete" else 0)


def test_pruning_leaves_networks_that_somebody_is_on(make: Callable[[], World]) -> None:
    for world, pruned, joined in meetings(make, prune, join_shop):
        assert ("shop" in names(world)) == isinstance(joined, str)
        assert ("shop" in pruned) == isinstance(joined, NotFound)
