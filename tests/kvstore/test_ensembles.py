"""Three members, and one of them dies, leads and dies, is lost without a word, or restarts: nothing is lost."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from kvstore.consul import ConsulStore
from kvstore.contract import KeyExists, Store, StoreUnavailable, VersionMismatch
from kvstore.etcd import EtcdStore
from kvstore.open import open_store
from kvstore.zookeeper import ZooKeeperStore
from netd.cluster.calls import PATIENCE, patiently
from netd.core.errors import Unavailable
from tests.cluster.test_spaces import Host
from tests.kvstore.conftest import KINDS, RECOVERY, Mirror, opened, until_it_works
from tests.kvstore.ensembles import Ensemble, Member

pytestmark = pytest.mark.root


@pytest.fixture(scope="module", params=list(KINDS))
def shared_ensemble(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ensemble]:
    ensemble = Ensemble(request.param, tmp_path_factory.mktemp(request.param))
    try:
        ensemble.start()
        yield ensemble
    finally:
        ensemble.stop()


@pytest.fixture
def ensemble(shared_ensemble: Ensemble) -> Ensemble:
    shared_ensemble.settle()
    return shared_ensemble


@pytest.fixture
def path() -> str:
    """A part of the store that this test has for itself."""
    return f"/{uuid.uuid4().hex}"


async def put(store: Store, key: str, value: bytes = b"") -> None:
    """Create a key of ours, which an attempt whose answer was lost may have done already."""
    try:
        await store.create(key, value)
    except KeyExists:
        return


def asked(store: Store) -> str:
    """The address of the member that this store talks to."""
    match store:
        case EtcdStore():
            return str(urlsplit(store._servers.best).hostname)
        case ConsulStore():
            return str(store._agents.best.http.host)
        case ZooKeeperStore():
            connection = store._session._threads.connection
            assert connection is not None
            return str(connection.getpeername()[0])
    raise TypeError(store)


def test_a_member_lost_without_a_word_is_soon_done_without(ensemble: Ensemble, path: str) -> None:
    """Its power fails: nothing refuses or resets a connection. netd's patience with one change is 4 s."""
    followers = [member for member in ensemble.members if member is not ensemble.leader]

    async def main() -> None:
        async with opened(lambda: open_store(ensemble.url(*followers) + path)) as store:
            lease = await until_it_works(lambda: store.lease(10))
            await store.create("hosts/me", b"", lease=lease)
            await put(store, "n/before")
            mirror = Mirror(store, "n/")
            await mirror.becomes({"n/before": b""})
            next(member for member in followers if member.address == asked(store)).cut()
            begun = time.monotonic()
            for number in range(5):
                await patiently(lambda number=number: put(store, f"n/{number}"))  # type: ignore[misc]
            assert time.monotonic() - begun < PATIENCE + 1, "only the first waits for the lost member"
            await mirror.becomes({"n/before": b""} | {f"n/{number}": b"" for number in range(5)}, patience=RECOVERY)
            await until_it_works(lambda: store.get("hosts/me"))
            assert await store.get("hosts/me"), "the lease is kept through another member"
            await mirror.stop()

    asyncio.run(main())


def test_nothing_acknowledged_is_lost_or_given_twice_when_the_leader_dies(ensemble: Ensemble, path: str) -> None:
    async def take(host: Host, number: int) -> str:
        while True:
            try:
                return str(await host.space.allocate(f"{host.space.claims._host}-{number}"))
            except Unavailable:
                continue  # the same endpoint asks again

    async def count(store: Store, done: asyncio.Event) -> tuple[int, int]:
        """Increments that were acknowledged, and those of which nobody knows."""
        acknowledged = doubtful = 0
        while not done.is_set():
            try:
                entry = await store.get("counter")
                assert entry
            except StoreUnavailable:
                continue
            try:
                await store.cas("counter", b"%d" % (int(entry.value) + 1), entry.version)
                acknowledged += 1
            except VersionMismatch:
                continue
            except StoreUnavailable:
                doubtful += 1
        return acknowledged, doubtful

    async def main() -> None:
        stores = [await open_store(ensemble.url(*_from(ensemble, n)) + path) for n in range(3)]
        hosts = [Host(store, name) for store, name in zip(stores, "abc", strict=True)]
        try:
            await until_it_works(lambda: put(stores[0], "counter", b"0"))
            done = asyncio.Event()
            counting = asyncio.gather(*(count(store, done) for store in stores))
            taken = [await take(host, number) for number in range(10) for host in hosts]
            await asyncio.to_thread(ensemble.leader.kill)
            for number in range(10, 30):
                taken += await asyncio.gather(*(take(host, number) for host in hosts))
            done.set()
            acknowledged, doubtful = map(sum, zip(*await counting, strict=True))
            entry = await until_it_works(lambda: stores[1].get("counter"))
            assert entry
            assert acknowledged <= int(entry.value) <= acknowledged + doubtful
            stored = {entry.key.rpartition("/")[2] for entry in await stores[2].list("ipam/net/ip/")}
            assert len(taken) == len(set(taken)) == 90
            assert stored == set(taken)
        finally:
            for host in hosts:
                host.follower.cancel()
            for store in stores:
                await store.close()

    asyncio.run(main())


def _from(ensemble: Ensemble, first: int) -> list[Member]:
    return [*ensemble.members[first:], *ensemble.members[:first]]


def test_a_watch_tells_everything_once_while_every_member_restarts_in_turn(ensemble: Ensemble, path: str) -> None:
    async def main() -> None:
        async with opened(lambda: open_store(ensemble.url() + path)) as store:
            mirror = Mirror(store, "n/")
            old = {f"n/old/{number}": b"" for number in range(3)}
            for key in old:
                await until_it_works(lambda key=key: put(store, key))  # type: ignore[misc]
            await mirror.becomes(old)
            new: dict[str, bytes] = {}

            async def write(number: int) -> None:
                key, value = f"n/new/{len(new)}", b"%d" % number
                new[key] = value
                await until_it_works(lambda: put(store, key, value))

            for number, member in enumerate(ensemble.members):
                await asyncio.to_thread(member.kill)
                await write(number)
                await until_it_works(lambda number=number: store.delete(f"n/old/{number}"))  # type: ignore[misc]
                await asyncio.to_thread(ensemble.settle)
                await write(number)
            await mirror.becomes(new, patience=RECOVERY)
            told = Counter((entry.key, entry.version) for change in mirror.changes for entry in change.puts.values())
            gone = Counter(key for change in mirror.changes for key in change.deletes)
            assert Counter(key for key, _ in told) == Counter([*old, *new])
            assert gone == Counter([*old])
            await mirror.stop()

    asyncio.run(main())
