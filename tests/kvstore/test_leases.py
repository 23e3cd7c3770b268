"""Leases as a store keeps them alive in the background, and forgets them."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from types import SimpleNamespace
from typing import Any

from kvstore.cluster import parse
from kvstore.contract import StoreUnavailable, now
from kvstore.leases import Leases
from kvstore.zookeeper import ZooKeeperLease, ZooKeeperStore


class Backend:
    """What keeps leases, unless it is told not to."""

    def __init__(self) -> None:
        self.leases = Leases()
        self.renewed = asyncio.Event()
        self.has_it = True
        self.away = False
        self.ended = 0

    async def renew(self) -> bool:
        self.renewed.set()
        if self.away:
            raise StoreUnavailable("it does not answer")
        return self.has_it

    async def end(self) -> None:
        self.ended += 1
        if self.away:
            raise StoreUnavailable("it does not answer")

    def lease(self, ttl: float = 0.03) -> Any:
        return self.leases.keep("1", ttl, now(), self.renew, self.end)


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 10))


def test_a_revoked_lease_is_ended_and_forgotten() -> None:
    async def scenario() -> None:
        backend = Backend()
        kept = backend.lease()
        for _ in range(100):
            lease = backend.lease()
            assert lease.alive
            await lease.revoke()
            assert not lease.alive
        assert (backend.ended, len(backend.leases)) == (100, 1)
        assert kept.alive
        backend.leases.stop()

    run(scenario())


def test_a_revoked_lease_is_forgotten_even_if_the_store_does_not_answer() -> None:
    async def scenario() -> None:
        backend = Backend()
        backend.away = True
        lease = backend.lease()
        try:
            await lease.revoke()
        except StoreUnavailable:
            assert len(backend.leases) == 0
        else:
            raise AssertionError("the store was away")

    run(scenario())


def test_a_lease_that_the_store_has_dropped_is_forgotten() -> None:
    async def scenario() -> None:
        backend = Backend()
        backend.has_it = False
        lease = backend.lease()
        await backend.renewed.wait()
        await asyncio.sleep(0)
        assert not lease.alive
        assert len(backend.leases) == 0

    run(scenario())


def test_stopping_keeps_none_and_ends_none() -> None:
    async def scenario() -> None:
        backend = Backend()
        leases = [backend.lease() for _ in range(3)]
        backend.leases.stop()
        assert (len(backend.leases), backend.ended) == (0, 0)
        assert not any(lease.alive for lease in leases)

    run(scenario())


def test_nobody_waits_for_the_end_of_a_zookeeper_session_that_is_over() -> None:
    async def main() -> None:
        store = ZooKeeperStore(parse("zk://127.0.0.1:1", {}, 2181))
        ended = asyncio.Event()
        session: Any = SimpleNamespace(over=True, end=ended.wait)
        store._leases.add(ZooKeeperLease(session, store._leases.discard))
        store._let_go_of_the_lost()
        await asyncio.sleep(0)
        assert not store._leases
        assert len(store._ending) == 1, "it goes on ending"
        ended.set()
        await store.close()
        assert not store._ending

    asyncio.run(main())
