"""Every backend, as a factory of stores that all open the same place; the conformance suite runs on each."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest

from kvstore.contract import Change, Store, StoreUnavailable
from kvstore.open import open_store
from tests.kvstore.servers import Consul, Etcd, Server, ZooKeeper

T = TypeVar("T")

PATIENCE = 10.0  # seconds until something that must happen is given up on
RECOVERY = 20.0  # seconds after which a store must work again once its server does
KINDS: dict[str, type[Server]] = {"etcd": Etcd, "consul": Consul, "zookeeper": ZooKeeper}


@dataclass(frozen=True)
class Backend:
    """Call and await it for a store; every call opens the same, freshly made place."""

    url: str
    lease_ttl: float  # seconds, the least it grants
    gone_after: float  # seconds, the most until a lease that is not kept has ended

    async def __call__(self) -> Store:
        return await open_store(self.url)


class Mirror:
    """A watcher's picture of a prefix, kept by applying every change."""

    def __init__(self, store: Store, prefix: str) -> None:
        self.state: dict[str, bytes] = {}
        self.changes: list[Change] = []
        self._changed = asyncio.Event()
        self._task = asyncio.create_task(self._follow(store, prefix))

    async def _follow(self, store: Store, prefix: str) -> None:
        async for change in store.watch(prefix):
            self.changes.append(change)
            for key in change.deletes:
                del self.state[key]
            self.state |= {key: entry.value for key, entry in change.puts.items()}
            self._changed.set()

    async def becomes(self, state: dict[str, bytes], patience: float = PATIENCE) -> None:
        async with asyncio.timeout(patience):
            while self.state != state or not self.changes:
                self._changed.clear()
                await self._changed.wait()

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.wait({self._task})


@asynccontextmanager
async def opened(opener: Callable[[], Awaitable[Store]]) -> AsyncIterator[Store]:
    store = await opener()
    try:
        yield store
    finally:
        await store.close()


async def until_it_works(call: Callable[[], Awaitable[T]]) -> T:
    async with asyncio.timeout(RECOVERY):
        while True:
            try:
                return await call()
            except StoreUnavailable:
                await asyncio.sleep(0.1)


LEASES = {"sqlite": (3.0, 6.0), "etcd": (2.0, 4.0), "consul": (10.0, 25.0), "zookeeper": (4.0, 8.0)}


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Server]]:
    """The shared server of a kind, started when first asked for."""
    running: dict[str, Server] = {}

    def get(kind: str) -> Server:
        if kind not in running:
            running[kind] = started(kind, tmp_path_factory.mktemp(kind))
        return running[kind]

    yield get
    for server in running.values():
        server.stop()


def started(kind: str, root: Path) -> Server:
    """A running server of this kind."""
    server = KINDS[kind](root)
    try:
        server.start()
    except BaseException:
        server.stop()
        raise
    return server


@pytest.fixture(params=list(LEASES))
def opener(request: pytest.FixtureRequest, tmp_path: Path, servers: Callable[[str], Server]) -> Backend:
    kind: str = request.param
    if kind == "sqlite":
        return Backend(f"sqlite:{tmp_path}/state/store.db", *LEASES[kind])
    return Backend(f"{servers(kind).url}/{uuid.uuid4().hex}", *LEASES[kind])


@pytest.fixture(params=list(KINDS))
def own_server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    """A server of this test alone, which it may kill and restart."""
    server = started(request.param, tmp_path / "server")
    yield server
    server.stop()
