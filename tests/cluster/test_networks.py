"""Global networks in the cluster's store: what a removal leaves, and for how long it is remembered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from netd.cluster import networks as module
from netd.cluster.addresses import Addresses
from netd.cluster.cache import Cache
from netd.cluster.model import GlobalNetwork
from netd.cluster.networks import Networks
from netd.core.errors import Unavailable
from netd.ipam.validate import PoolRequest
from netd.model.networks import Network
from tests.fakes.calls import Calls
from tests.fakes.loop import Loop
from tests.fakes.store import FakeStore


class Hosts:
    """This host, a member of the cluster."""

    me = SimpleNamespace(name="here")

    async def member(self) -> str:
        return "incarnation"


class Heard:
    def __init__(self) -> None:
        self.there: set[str] = set()

    async def network_appeared(self, network: GlobalNetwork) -> None:
        self.there.add(network.record.name)

    async def network_gone(self, network: GlobalNetwork) -> None:
        self.there.discard(network.record.name)


class Place:
    """Networks over a store in memory."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.loop.enter()
        self.calls = Calls()
        self.store = FakeStore(self.calls)
        self.heard = Heard()
        hosts = cast(Any, Hosts())
        addresses = Addresses(cast(Any, self.store), hosts, asyncio.Event())
        cache = Cache(cast(Any, FakeStore(Calls())), "networks", GlobalNetwork)
        remote = cast(Any, SimpleNamespace(drop=lambda network_id: None))
        self.networks = Networks(
            cast(Any, self.store), hosts, addresses, remote, cast(Any, self.heard), cache, {}
        )  # fmt: skip

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run(work)

    def create(self, name: str) -> GlobalNetwork:
        wanted = Network(name=name, id=name * 8, created="", scope="global", driver="overlay")
        return cast(GlobalNetwork, self.run(self.networks.create(wanted, [PoolRequest(None)])))

    def without_store(self, work: Coroutine[Any, Any, Any], when: Callable[[], bool] = lambda: True) -> Any:
        """Run something while no call to the store succeeds, from a moment on; its error, if it has one."""
        task = self.loop.create_task(work)
        while not task.done():
            for call in self.calls.waiting:
                call.fails = when()
            if self.loop.step() is None and not self.loop.pass_time(self.loop.time() + 90):
                break
        assert task.done(), "it waits for ever"
        return task.exception()


@pytest.fixture
def place() -> Iterator[Place]:
    made = Place()
    yield made
    made.loop.drain()
    made.loop.leave()


def test_a_network_takes_all_it_has_claimed_with_it(place: Place) -> None:
    shop = place.create("shop")
    assert place.heard.there == {"shop"}
    place.run(place.networks.remove(shop.id))
    assert not place.heard.there
    assert not place.store.entries


def test_a_removal_goes_on_when_the_store_goes_away_behind_it(place: Place) -> None:
    shop = place.create("shop")
    is_gone = lambda: not place.store.under("networks")  # noqa: E731
    assert place.without_store(place.networks.remove(shop.id), is_gone) is None, "the network itself is gone"
    assert not place.heard.there
    place.loop.settle()
    assert not place.store.entries, "what it had is given back once the store answers"


def test_a_removal_that_cannot_begin_changes_nothing(place: Place) -> None:
    shop = place.create("shop")
    assert isinstance(place.without_store(place.networks.remove(shop.id)), Unavailable)
    assert place.heard.there == {"shop"}


def test_removed_networks_are_not_remembered_for_ever(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REMOVED", 3)
    for number in range(6):
        place.run(place.networks.remove(place.create(f"n{number}").id))
    assert len(place.networks._removed) == 3
