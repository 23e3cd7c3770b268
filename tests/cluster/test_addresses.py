"""Addresses of the cluster, when the store loses its answers: nothing is kept that nobody has."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from kvstore.contract import Change, Entry, StoreUnavailable
from netd.cluster.addresses import Addresses
from netd.cluster.calls import LIMIT
from netd.cluster.hosts import Happenings
from netd.cluster.model import GlobalNetwork
from netd.cluster.sweep import Sweeper
from netd.core.errors import Unavailable
from netd.core.tasks import Tasks
from netd.model.networks import IPAM, IPAMConfig, Network
from tests.fakes.calls import Calls
from tests.fakes.loop import Loop
from tests.fakes.store import FakeStore

SHOP = GlobalNetwork(
    record=Network(
        name="shop",
        id="n" * 64,
        created="",
        scope="global",
        driver="overlay",
        ipam=IPAM(config=[IPAMConfig(subnet="10.0.0.0/28", gateway="10.0.0.1")]),
    ),
    vnis=(4096,),
    host="one",
)


class Forgetful(FakeStore):
    """While it is `away` it applies what it is told, and never says so."""

    away = False

    async def create(self, key: str, value: bytes, lease: Any = None) -> Entry:
        entry = await super().create(key, value)
        if self.away:
            raise StoreUnavailable("the connection was lost")
        return entry

    async def get(self, key: str) -> Entry | None:
        if self.away:
            raise StoreUnavailable("the connection was lost")
        return await super().get(key)

    async def list(self, prefix: str) -> list[Entry]:
        if self.away:
            raise StoreUnavailable("the connection was lost")
        return await super().list(prefix)

    async def watch(self, prefix: str) -> AsyncIterator[Change]:
        await asyncio.Event().wait()
        yield Change({}, frozenset())


async def _member() -> str:
    return "1"


class Host:
    """What a host's claims go through: `addresses`, and the sweeper, which gives back what nobody has."""

    def __init__(self, store: FakeStore) -> None:
        hosts: Any = SimpleNamespace(member=_member, me=SimpleNamespace(name="one"))
        happenings = Happenings()
        self.addresses = Addresses(store, hosts, happenings.doubtful)  # type: ignore[arg-type]
        sweeper = Sweeper(store, hosts, cast(Any, None), self.addresses.wants, happenings)  # type: ignore[arg-type]
        self._tasks = Tasks()
        self._tasks.keep_running(sweeper.settle_doubts, "giving back what was claimed in vain")


def test_a_claim_whose_answer_was_lost_is_given_back_when_the_store_answers_again() -> None:
    with Loop() as loop:
        store = Forgetful(Calls())
        host = Host(store)
        store.away = True
        with pytest.raises(Unavailable):
            loop.run(host.addresses.allocate(SHOP, "endpoint"))
        assert len(store.under("ipam")) == 1
        store.away = False
        loop.settle(4 * LIMIT)
        assert store.under("ipam") == {}


def test_a_claim_that_somebody_gave_up_waiting_for_is_given_back_also_if_it_arrives_late() -> None:
    with Loop() as loop:
        store = Forgetful(Calls())
        host = Host(store)
        store.away = True
        waiting = loop.create_task(host.addresses.allocate(SHOP, "endpoint"))
        loop.settle()
        waiting.cancel()
        loop.settle()
        (late,) = store.entries.values()
        store.away = False
        for _ in range(2):
            loop.settle(LIMIT)
            assert store.under("ipam") == {}
            store.entries[late.key] = late
        loop.settle(LIMIT)
        assert store.under("ipam") == {}


def test_what_somebody_has_is_left_alone() -> None:
    with Loop() as loop:
        store = Forgetful(Calls())
        host = Host(store)
        had = loop.run(host.addresses.allocate(SHOP, "endpoint"))
        store.away = True
        with pytest.raises(Unavailable):
            loop.run(host.addresses.allocate(SHOP, "another"))
        store.away = False
        loop.settle(4 * LIMIT)
        assert [key.rpartition("/")[2] for key in store.under("ipam")] == [str(had.ip)]
