"""What only the embedded store promises: durability of the file, shared commits, who may read it."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kvstore.contract import KeyExists, StoreUnavailable
from kvstore.open import open_store
from kvstore.sqlite import SqliteStore
from tests.kvstore.conftest import opened

WRITE_FOR_EVER = """
import asyncio, sys
from kvstore.open import open_store

async def main():
    store = await open_store(sys.argv[1])
    number = 0
    while True:
        await store.create(f"n/{number}", b"x" * 100)
        print(number, flush=True)
        number += 1

asyncio.run(main())
"""


def test_no_acknowledged_write_is_lost_when_the_process_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    command = [sys.executable, "-c", WRITE_FOR_EVER, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]) as writer:
        assert writer.stdout is not None
        for _ in range(200):
            writer.stdout.readline()
        writer.send_signal(signal.SIGKILL)
        acknowledged = 199 + len(writer.stdout.read().splitlines())

    async def main() -> None:
        async with opened(lambda: open_store(path)) as store:
            entries = await store.list("n/")
            assert len(entries) in (acknowledged + 1, acknowledged + 2)

    asyncio.run(main())


def test_concurrent_writes_share_a_commit(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(lambda: open_store(tmp_path / "store.db")) as store:
            assert isinstance(store, SqliteStore)
            commits = 0
            transact = store._transact

            def counted(jobs: list[object]) -> object:
                nonlocal commits
                commits += 1
                return transact(jobs)  # type: ignore[arg-type]

            store._transact = counted  # type: ignore[assignment, method-assign]
            results = await asyncio.gather(
                *(store.create(f"n/{number % 50}", b"") for number in range(100)), return_exceptions=True
            )
            assert commits <= 3
            assert sum(isinstance(result, KeyExists) for result in results) == 50
            assert len(await store.list("n/")) == 50

    asyncio.run(main())


def test_only_its_owner_may_read_the_file(tmp_path: Path) -> None:
    path = tmp_path / "store.db"

    async def main() -> None:
        async with opened(lambda: open_store(path)) as store:
            await store.create("n/a", b"secret")
            modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in os.scandir(tmp_path)}
            assert modes == {"store.db": 0o600, "store.db-wal": 0o600, "store.db-shm": 0o600}

    asyncio.run(main())


def test_a_file_that_is_no_store_is_refused_in_words(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    path.write_bytes(b"this is not a database" * 100)
    with pytest.raises(StoreUnavailable, match=f"cannot open the store {path}: file is not a database"):
        asyncio.run(open_store(path))


def test_a_lock_held_by_another_process_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "store.db"

    async def main() -> None:
        async with opened(lambda: open_store(path)) as store:
            other = sqlite3.connect(path, isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            write = asyncio.create_task(store.create("n/a", b""))
            await asyncio.sleep(0.2)
            assert not write.done()
            other.execute("COMMIT")
            other.close()
            await asyncio.wait_for(write, 10)

    asyncio.run(main())


def test_a_reboot_ends_every_lease(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(lambda: open_store(tmp_path / "store.db")) as store:
            await store.create("hosts/a", b"", lease=await store.lease(3600))
        async with opened(lambda: open_store(tmp_path / "store.db")) as store:
            assert isinstance(store, SqliteStore)
            assert await store.get("hosts/a")
            store._boot = "another boot"
            assert await store.get("hosts/a") is None

    asyncio.run(main())


def test_the_event_loop_never_waits_for_the_disk(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(lambda: open_store(tmp_path / "store.db")) as store:
            slowest = 0.0

            async def tick() -> None:
                nonlocal slowest
                while True:
                    begun = time.monotonic()
                    await asyncio.sleep(0)
                    slowest = max(slowest, time.monotonic() - begun)

            ticker = asyncio.create_task(tick())
            for number in range(5):
                await store.create(f"n/{number}", os.urandom(300_000))
            ticker.cancel()
            assert slowest < 0.5

    asyncio.run(main())
