"""Attached namespaces: each is there once, none waits for another's network, and what goes is let go."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kvstore.contract import StoreUnavailable
from netd.core.errors import Conflict, NotFound
from netd.model.networks import IPAM, IPAMConfig, NetworkCreate
from netd.sandboxes.attached import AttachRequest
from tests.fakes.consistent import complaints
from tests.fakes.points import failures, meetings, refusal
from tests.fakes.world import World

ONE, TWO = "/run/netns/one", "/run/netns/two"


@pytest.fixture
def make(tmp_path: Path) -> Callable[[], World]:
    """A host with two namespaces of somebody else, the bridge `shop` and the overlay `far`."""

    def build() -> World:
        made = World(tmp_path, clustered=True)
        made.cluster.networks.make_elsewhere("far", "10.9.0.0/24")
        pool = IPAM(config=[IPAMConfig(subnet="10.77.0.0/28")])
        made.run(made.daemon.networks.create(NetworkCreate(name="shop", ipam=pool)))
        made.namespaces.make(ONE)
        made.namespaces.make(TWO)
        return made

    return build


@pytest.fixture
def world(make: Callable[[], World]) -> Iterator[World]:
    made = make()
    yield made
    made.close()


async def attach(world: World, name: str = "one", path: str = ONE, network: str = "shop") -> object:
    return await world.daemon.attached.attach(AttachRequest(name=name, netns=path, networks=[network]))


async def detach(world: World, name: str = "one") -> None:
    await world.daemon.attached.detach(name)


def names(world: World) -> list[str]:
    return [sandbox.name for sandbox in world.daemon.attached.all()]


def wrong(world: World) -> list[str]:
    return [c.text for c in complaints(world)]


@pytest.mark.parametrize(("name", "path"), [("one", TWO), ("two", ONE)], ids=["name", "namespace"])
def test_of_two_with_one_name_or_namespace_one_is_attached(make: Callable[[], World], name: str, path: str) -> None:
    for world, one, other in meetings(make, attach, lambda w: attach(w, name, path)):
        assert isinstance(refusal(one, other), Conflict)
        assert len(names(world)) == 1
        assert not wrong(world)


def test_one_that_waits_for_the_cluster_keeps_no_other_waiting(world: World) -> None:
    world.run(attach(world, "two", TWO))
    world.cluster.away = True
    waiting = world.loop.create_task(attach(world, "one", ONE, "far"))
    world.loop.settle(0)
    assert not waiting.done()
    before = world.loop.time()
    world.run(detach(world, "two"))
    world.run(attach(world, "two", TWO))
    assert world.loop.time() == before
    world.loop.settle()
    assert waiting.exception()


def test_attaching_and_detaching_at_once_leaves_all_or_nothing(make: Callable[[], World]) -> None:
    for world, attached, detached in meetings(make, attach, detach):
        assert not isinstance(attached, Exception)
        assert names(world) == (["one"] if isinstance(detached, NotFound) else [])
        assert not wrong(world)


def test_of_two_who_detach_it_one_is_told_that_it_is_gone(make: Callable[[], World]) -> None:
    def attached() -> World:
        world = make()
        world.run(attach(world))
        return world

    for world, one, other in meetings(attached, detach, detach):
        assert isinstance(refusal(one, other), NotFound)
        assert names(world) == []
        assert not wrong(world)


def test_detaching_goes_on_whatever_fails_and_nothing_is_left_in_the_end(make: Callable[[], World]) -> None:
    def attached() -> World:
        world = make()
        world.run(attach(world))
        return world

    for world, failed, error in failures(attached, detach):
        if failed == "Store.cas":
            assert isinstance(error, StoreUnavailable), "it cannot be promised"
            assert names(world) == ["one"]
        else:
            assert error is None, failed
            assert names(world) == [], failed
        assert not wrong(world), failed


def test_one_that_was_detached_stays_so_whatever_cannot_be_removed_until_the_next_daemon(world: World) -> None:
    world.run(attach(world))
    world.calls.broken.add("Store.delete")
    world.run(detach(world))
    world.loop.settle(3)
    world.kill_daemon()
    world.run(world.daemon.load())
    assert names(world) == []
    world.calls.broken.clear()
    world.loop.settle()
    assert not world.store.under("sandboxes")
    assert not world.kernel.sandboxes
    assert not wrong(world)


def test_an_endpoint_that_is_lost_while_it_is_attached_is_taken_away(make: Callable[[], World]) -> None:
    lost: set[str] = set()

    async def lose(world: World) -> None:
        for record in list(world.cluster.endpoints.own.values()):
            lost.add(record.id)
            await world.daemon.attached.lose_endpoint(record.container_id, record.id)

    for world, _, _ in meetings(make, lambda w: attach(w, network="far"), lose):
        assert not {e.id for s in world.daemon.attached.all() for e in s.endpoints} & lost
        assert not wrong(world)
    assert lost


def test_one_that_goes_while_it_is_attached_is_refused_with_a_word_or_let_go(make: Callable[[], World]) -> None:
    async def go(world: World) -> None:
        del world.namespaces.present[ONE]

    for world, attached, _ in meetings(make, attach, go):
        if isinstance(attached, Exception):
            assert "it does not exist" in str(attached) or "it has gone meanwhile" in str(attached)
        world.run(world.daemon.attached.let_go_of_the_lost())
        assert names(world) == []
        assert not world.daemon.networks.find("shop").members


def test_one_that_goes_while_it_is_detached_is_gone(make: Callable[[], World]) -> None:
    def gone() -> World:
        world = make()
        world.run(attach(world))
        world.namespaces.make(ONE)  # another one at its path
        return world

    for world, _, _ in meetings(gone, lambda w: w.daemon.attached.let_go_of_the_lost(), detach):
        assert names(world) == []
        assert not world.daemon.networks.find("shop").members
