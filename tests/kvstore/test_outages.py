"""Servers that are killed, frozen and restarted, sessions that expire: what a store says then, and how it recovers."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from kazoo.client import KazooClient

from kvstore.consul import ConsulStore
from kvstore.contract import Lease, LeaseLost, Store, StoreError, StoreUnavailable, VersionMismatch
from kvstore.etcd import EtcdStore
from kvstore.open import open_store
from kvstore.zookeeper import ZooKeeperLease, ZooKeeperStore
from kvstore.zookeeper_session import SESSION, Request, Session
from tests.kvstore.conftest import RECOVERY, Backend, Mirror, opened, started, until_it_works
from tests.kvstore.servers import Etcd, Server

ANSWER = 8.0  # seconds in which every call must come to an end, whatever the server does


async def until(condition: Callable[[], bool], patience: float) -> None:
    give_up = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < give_up, "it took too long"
        await asyncio.sleep(0.05)


def test_a_watch_and_acknowledged_writes_survive_a_killed_server(own_server: Server) -> None:
    async def main() -> None:
        async with opened(lambda: open_store(own_server.url)) as store:
            mirror = Mirror(store, "n/")
            kept = await store.create("n/kept", b"1")
            await store.create("n/removed", b"1")
            await mirror.becomes({"n/kept": b"1", "n/removed": b"1"})
            await asyncio.to_thread(own_server.restart)
            await until_it_works(lambda: store.get("n/kept"))
            assert await store.get("n/kept") == kept
            await until_it_works(lambda: store.delete("n/removed"))
            await store.cas("n/kept", b"2", kept.version)
            await mirror.becomes({"n/kept": b"2"}, patience=RECOVERY)
            await store.create("n/new", b"3")
            await mirror.becomes({"n/kept": b"2", "n/new": b"3"})
            await mirror.stop()

    asyncio.run(main())


def test_a_store_that_is_away_says_so_soon_and_blocks_nothing_else(own_server: Server) -> None:
    async def main() -> None:
        async with opened(lambda: open_store(own_server.url)) as store:
            await store.create("n/a", b"1")
            own_server.kill()
            ticks = asyncio.create_task(count_ticks())
            for call in (store.get("n/a"), store.create("n/b", b""), store.list("n/"), store.lease(10)):
                begun = time.monotonic()
                with pytest.raises(StoreUnavailable, match=own_server.url):
                    await call
                assert time.monotonic() - begun < ANSWER
            ticks.cancel()
            own_server.start()
            await until_it_works(lambda: store.get("n/a"))

    async def count_ticks() -> None:
        while True:
            begun = time.monotonic()
            await asyncio.sleep(0.01)
            assert time.monotonic() - begun < 1, "the event loop was blocked"

    asyncio.run(main())


def test_a_frozen_server_is_an_unavailable_one(own_server: Server) -> None:
    async def main() -> None:
        async with opened(lambda: open_store(own_server.url)) as store:
            await store.create("n/a", b"1")
            own_server.freeze()
            begun = time.monotonic()
            with pytest.raises(StoreUnavailable):
                await store.get("n/a")
            assert time.monotonic() - begun < ANSWER
            own_server.thaw()
            await until_it_works(lambda: store.get("n/a"))

    asyncio.run(main())


def test_a_cluster_that_is_away_can_be_opened_and_used_once_it_is_there(own_server: Server) -> None:
    async def main() -> None:
        own_server.kill()
        async with opened(lambda: open_store(own_server.url)) as store:
            mirror = Mirror(store, "n/")
            with pytest.raises(StoreUnavailable):
                await store.get("n/a")
            await asyncio.to_thread(own_server.start)
            await until_it_works(lambda: store.create("n/a", b"1"))
            await mirror.becomes({"n/a": b"1"}, patience=RECOVERY)
            await mirror.stop()

    asyncio.run(main())


def test_a_kept_lease_survives_a_short_outage(own_server: Server) -> None:
    async def main() -> None:
        async with opened(lambda: open_store(own_server.url)) as store:
            lease = await store.lease(10)
            await store.create("hosts/a", b"", lease=lease)
            await asyncio.to_thread(own_server.restart)
            await until_it_works(lambda: store.get("hosts/a"))
            await until(lambda: lease.alive, RECOVERY)
            assert await store.get("hosts/a")

    asyncio.run(main())


async def drop(store: Store, lease: Lease) -> None:
    """What a server does to a lease that nobody keeps, now."""
    if isinstance(lease, ZooKeeperLease):
        # a second client with the same session that says good-bye ends the session of both
        client = lease.session.client
        host, port = client.hosts[0]
        other = KazooClient(f"{host}:{port}", client_id=client.client_id)
        for step in (other.start, other.stop, other.close):
            await asyncio.to_thread(step)
    elif isinstance(store, EtcdStore):
        await store._revoke(lease.id)  # type: ignore[attr-defined]
    elif isinstance(store, ConsulStore):
        await store._destroy(lease.id)  # type: ignore[attr-defined]
    else:
        await store._end_lease(int(lease.id))  # type: ignore[attr-defined]


def test_a_lease_that_the_store_dropped_is_known_to_be_lost(opener: Backend) -> None:
    async def main() -> None:
        async with opened(opener) as store, opened(opener) as other:
            lease = await store.lease(opener.lease_ttl)
            await store.create("hosts/a", b"", lease=lease)
            await drop(other, lease)
            await until(lambda: not lease.alive, opener.lease_ttl)
            assert await other.get("hosts/a") is None
            with pytest.raises((LeaseLost, StoreUnavailable)):
                await store.create("hosts/a", b"", lease=lease)
            await store.create("hosts/a", b"", lease=await store.lease(opener.lease_ttl))

    asyncio.run(main())


INCREMENT = """
import asyncio, sys
from kvstore.contract import VersionMismatch
from kvstore.open import open_store

async def main():
    store = await open_store(sys.argv[1])
    for _ in range(20):
        while True:
            entry = await store.get("counter")
            try:
                await store.cas("counter", str(int(entry.value) + 1).encode(), entry.version)
                break
            except VersionMismatch:
                pass
    await store.close()

asyncio.run(main())
"""


def test_no_compare_and_swap_is_lost_between_processes(opener: Backend) -> None:
    async def main() -> None:
        async with opened(opener) as store:
            await store.create("counter", b"0")
            mirror = Mirror(store, "counter")
            command = [sys.executable, "-c", INCREMENT, opener.url]
            root = Path(__file__).parents[2]
            workers = [await asyncio.create_subprocess_exec(*command, cwd=root) for _ in range(3)]
            assert [await worker.wait() for worker in workers] == [0, 0, 0]
            await mirror.becomes({"counter": b"60"})
            await mirror.stop()

    asyncio.run(main())


def test_writers_and_a_watcher_agree_after_three_kills(own_server: Server) -> None:
    """Creates, updates and deletes go on while the server dies: the mirror ends up as the store is."""
    stop = asyncio.Event()

    async def write(store: Store, number: int) -> None:
        round_ = 0
        while not stop.is_set():
            round_ += 1
            key = f"n/{number}/{round_ % 7}"
            with contextlib.suppress(StoreError):
                entry = await store.get(key)
                if entry is None:
                    await store.create(key, str(round_).encode())
                elif round_ % 3:
                    await store.cas(key, str(round_).encode(), entry.version)
                else:
                    await store.delete(key, entry.version)
            await asyncio.sleep(0.01)

    async def main() -> None:
        async with opened(lambda: open_store(own_server.url)) as one, opened(lambda: open_store(own_server.url)) as two:
            mirror = Mirror(one, "n/")
            writers = [asyncio.create_task(write(store, n)) for n, store in enumerate((one, two))]
            for _ in range(3):
                await asyncio.sleep(0.5)
                await asyncio.to_thread(own_server.restart)
            await until_it_works(lambda: two.get("n/"))
            await asyncio.sleep(0.5)
            stop.set()
            await asyncio.gather(*writers)
            await until_it_works(lambda: two.list("n/"))
            await mirror.becomes({e.key: e.value for e in await two.list("n/")}, patience=RECOVERY)
            await mirror.stop()

    asyncio.run(main())


# ---- what only one of them does ----------------------------------------------------------------------------


def test_a_watch_goes_on_after_its_revision_was_compacted_away(tmp_path: Path) -> None:
    server = started("etcd", tmp_path / "etcd")
    assert isinstance(server, Etcd)

    async def main() -> None:
        async with opened(lambda: open_store(server.url)) as store:
            assert isinstance(store, EtcdStore)
            entry = await store.create("n/a", b"0")
            for number in range(1, 20):
                entry = await store.cas("n/a", str(number).encode(), entry.version)
            server.ctl("compact", str(entry.version))
            # it ends rather than raises or hangs: the watch lists again
            assert [change async for change in store._events("n/", 1)] == []
            mirror = Mirror(store, "n/")
            await mirror.becomes({"n/a": b"19"})
            await store.delete("n/a", entry.version)
            await mirror.becomes({})
            await mirror.stop()

    try:
        asyncio.run(main())
    finally:
        server.stop()


def test_a_silent_watch_is_opened_anew_and_misses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kvstore.etcd.WATCH_SILENCE", 0.1)
    server = started("etcd", tmp_path / "etcd")

    async def main() -> None:
        async with opened(lambda: open_store(server.url)) as here, opened(lambda: open_store(server.url)) as there:
            mirror = Mirror(here, "n/")
            for number in range(10):
                await there.create(f"n/{number}", b"")
                await asyncio.sleep(0.07)
            await mirror.becomes({f"n/{number}": b"" for number in range(10)})
            await mirror.stop()

    try:
        asyncio.run(main())
    finally:
        server.stop()


def test_a_consul_index_that_went_back_starts_the_watch_anew(tmp_path: Path) -> None:
    """The server comes back without its data, as after the restore of an old snapshot."""
    server = started("consul", tmp_path / "consul")

    async def main() -> None:
        async with opened(lambda: open_store(server.url)) as store:
            mirror = Mirror(store, "n/")
            for number in range(20):
                await store.create(f"n/{number}", b"")
            await mirror.becomes({f"n/{number}": b"" for number in range(20)})
            server.kill()
            await asyncio.to_thread(subprocess.run, ["rm", "-rf", str(server.root / "data")], check=True)
            await asyncio.to_thread(server.start)
            await until_it_works(lambda: store.create("n/fresh", b""))
            await mirror.becomes({"n/fresh": b""}, patience=RECOVERY)
            await mirror.stop()

    try:
        asyncio.run(main())
    finally:
        server.stop()


def test_a_node_removed_and_made_again_is_not_mistaken_for_the_old_one(own_server: Server) -> None:
    """ZooKeeper's own node versions start at 0 again; ours must not."""

    async def main() -> None:
        async with (
            opened(lambda: open_store(own_server.url)) as mine,
            opened(lambda: open_store(own_server.url)) as other,
        ):
            old = await mine.create("ip/10.0.0.2", b"mine")
            await other.delete("ip/10.0.0.2")
            new = await other.create("ip/10.0.0.2", b"theirs")
            with pytest.raises(VersionMismatch):
                await mine.delete("ip/10.0.0.2", old.version)
            assert await mine.get("ip/10.0.0.2") == new

    asyncio.run(main())


def test_an_empty_directory_of_zookeeper_goes_in_the_end_and_comes_back_when_needed(
    servers: Callable[[str], Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kvstore.zookeeper.EMPTY", 0.1)
    url = f"{servers('zookeeper').url}/{tmp_path.name}"

    async def main() -> None:
        async with opened(lambda: open_store(url)) as here, opened(lambda: open_store(url)) as there:
            assert isinstance(here, ZooKeeperStore)
            directory, zookeeper = here._layout.directory("n/deep/a"), here._session.client
            mirror = Mirror(here, "n/")
            await there.create("n/deep/a", b"1")
            await there.create("n/b", b"")
            await mirror.becomes({"n/deep/a": b"1", "n/b": b""})
            assert await asyncio.to_thread(zookeeper.exists, directory)
            await here.delete("n/deep/a")
            async with asyncio.timeout(RECOVERY):
                while await asyncio.to_thread(zookeeper.exists, directory):
                    assert [entry.key for entry in await here.list("n/")] == ["n/b"]
            await there.create("n/deep/a", b"2")
            await mirror.becomes({"n/deep/a": b"2", "n/b": b""})
            await mirror.stop()

    asyncio.run(main())


def test_a_zookeeper_server_that_took_a_connection_when_it_was_just_starting_and_never_answers_is_asked_again(
    servers: Callable[[str], Server],
) -> None:
    address = servers("zookeeper").url.removeprefix("zk://").rpartition(":")

    async def main() -> None:
        taken: list[asyncio.StreamWriter] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            taken.append(writer)
            if len(taken) == 1:
                await reader.read()
                writer.close()
            else:
                there = await asyncio.open_connection(address[0], int(address[2]))
                await asyncio.gather(copy(reader, there[1]), copy(there[0], writer), return_exceptions=True)

        async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while data := await reader.read(65536):
                writer.write(data)
            writer.close()

        async with await asyncio.start_server(serve, "127.0.0.1") as server:
            port = server.sockets[0].getsockname()[1]
            async with opened(lambda: open_store(f"zk://127.0.0.1:{port}")) as store:
                begun = time.monotonic()
                await until_it_works(lambda: store.get("n/a"))
                assert time.monotonic() - begun < SESSION / 2
                assert len(taken) > 1

    asyncio.run(main())


def test_a_change_among_many_keys_of_zookeeper_is_read_alone(
    servers: Callable[[str], Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"{servers('zookeeper').url}/{tmp_path.name}"
    requests = 0
    calls = Session.calls

    async def counted(session: Session, wanted: Sequence[Request], **default: object) -> list[object]:
        nonlocal requests
        requests += len(wanted)
        return await calls(session, wanted, **default)

    async def main() -> None:
        async with opened(lambda: open_store(url)) as here, opened(lambda: open_store(url)) as there:
            keys = [f"n/{number}" for number in range(200)]
            await asyncio.gather(*(there.create(key, b"") for key in keys))
            mirror = Mirror(here, "n/")
            await mirror.becomes(dict.fromkeys(keys, b""))
            monkeypatch.setattr(Session, "calls", counted)
            await there.create("n/more", b"")
            await mirror.becomes(dict.fromkeys([*keys, "n/more"], b""))
            assert requests < 20
            await mirror.stop()

    asyncio.run(main())
