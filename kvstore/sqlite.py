"""The embedded backend: one SQLite file (WAL, synchronous=FULL), for one host and any number of processes.

Everything that touches the file happens in one thread of the store. Operations that arrive while that
thread is busy are committed together, so that concurrent writers share one fdatasync.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from kvstore.contract import (
    Change,
    Entry,
    KeyExists,
    Lease,
    LeaseLost,
    StoreDenied,
    StoreUnavailable,
    VersionMismatch,
    difference,
    now,
)
from kvstore.leases import Leases, lease_id_of
from kvstore.limits import check_size

T = TypeVar("T")
Op = Callable[[sqlite3.Connection], Any]

POLL = 0.1  # seconds between looks for what other processes wrote, while somebody watches or holds a lease
LAST = "\U0010ffff"  # sorts after every key that starts with the same prefix

SCHEMA = """
CREATE TABLE IF NOT EXISTS kv (
    key TEXT PRIMARY KEY, value BLOB NOT NULL, version INTEGER NOT NULL, lease INTEGER
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS meta (revision INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS leases (id INTEGER PRIMARY KEY AUTOINCREMENT, boot TEXT NOT NULL, expires REAL NOT NULL);
INSERT INTO meta SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM meta);
"""


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@dataclass(slots=True)
class _Job:
    op: Op
    writes: bool
    future: asyncio.Future[Any]


@dataclass(slots=True, eq=False)
class _Watch:
    """What one watch has to look at again: some keys, or (None) everything under its prefix."""

    prefix: str
    dirty: set[str] | None = None
    wake: asyncio.Event = field(default_factory=asyncio.Event)

    def touch(self, keys: set[str] | None) -> None:
        if keys is None:
            self.dirty = None
        elif mine := {key for key in keys if key.startswith(self.prefix)}:
            if self.dirty is not None:
                self.dirty |= mine
        else:
            return
        self.wake.set()

    def take(self) -> set[str] | None:
        dirty, self.dirty = self.dirty, set()
        self.wake.clear()
        return dirty


class SqliteStore:
    """`kvstore.contract.Store` on one file. Open it with `await SqliteStore.open(path)`."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "kvstore-sqlite")
        self._boot = _boot_id()
        self._db: sqlite3.Connection
        self._data_version = 0
        self._changed: set[str] = set()
        self._jobs: list[_Job] = []
        self._drainer: asyncio.Task[None] | None = None
        self._poller: asyncio.Task[None] | None = None
        self._watches: set[_Watch] = set()
        self._leases = Leases()
        self._closed = False

    @classmethod
    async def open(cls, path: str | Path) -> SqliteStore:
        """Open the file, making it (mode 0600) and its directory if they are absent."""
        store = cls()
        try:
            await asyncio.get_running_loop().run_in_executor(store._thread, store._connect, Path(path))
        except BaseException:
            store._thread.shutdown(wait=False)
            raise
        return store

    # ---- the contract ----------------------------------------------------------------------------------

    async def get(self, key: str) -> Entry | None:
        return await self._do(partial(_get, key=key))

    async def list(self, prefix: str) -> list[Entry]:
        return await self._do(partial(_list, prefix=prefix))

    async def create(self, key: str, value: bytes, lease: Lease | None = None) -> Entry:
        check_size(key, value)
        lease_id = int(lease_id_of(lease)) if lease else None

        def op(db: sqlite3.Connection) -> Entry:
            if db.execute("SELECT 1 FROM kv WHERE key = ?", (key,)).fetchone():
                raise KeyExists(f"key {key!r} exists already")
            if lease_id is not None and not _has_lease(db, lease_id):
                raise LeaseLost(f"key {key!r} cannot be created: its lease has ended")
            version = _next_revision(db)
            db.execute("INSERT INTO kv VALUES (?, ?, ?, ?)", (key, value, version, lease_id))
            self._changed.add(key)
            return Entry(key, value, version)

        return await self._do(op, writes=True)

    async def cas(self, key: str, value: bytes, version: int) -> Entry:
        check_size(key, value)

        def op(db: sqlite3.Connection) -> Entry:
            new = _next_revision(db)
            done = db.execute(
                "UPDATE kv SET value = ?, version = ? WHERE key = ? AND version = ?",
                (value, new, key, version),
            )
            if not done.rowcount:
                raise VersionMismatch(f"key {key!r} is no longer at version {version}")
            self._changed.add(key)
            return Entry(key, value, new)

        return await self._do(op, writes=True)

    async def delete(self, key: str, version: int | None = None) -> None:
        def op(db: sqlite3.Connection) -> None:
            done = db.execute("DELETE FROM kv WHERE key = ?1 AND version = ifnull(?2, version)", (key, version))
            if done.rowcount:
                self._changed.add(key)
            elif version is not None:
                raise VersionMismatch(f"key {key!r} is no longer at version {version}")

        await self._do(op, writes=True)

    async def watch(self, prefix: str) -> AsyncIterator[Change]:
        self._check_open()
        watch = _Watch(prefix)
        self._watches.add(watch)
        self._start_polling()
        seen: dict[str, int] = {}
        first = True
        try:
            while not self._closed:
                keys = watch.take()
                change = difference(seen, keys, await self._do(partial(_read, prefix=prefix, keys=keys)))
                if first or change.puts or change.deletes:
                    yield change
                first = False
                await watch.wake.wait()
        finally:
            self._watches.discard(watch)

    async def lease(self, ttl: float) -> Lease:
        since = now()
        insert = "INSERT INTO leases (boot, expires) VALUES (?, ?)"
        id = await self._do(lambda db: int(db.execute(insert, (self._boot, since + ttl)).lastrowid or 0), writes=True)
        lease = self._leases.keep(
            str(id), ttl, since, partial(self._extend_lease, id, ttl), partial(self._end_lease, id)
        )
        self._start_polling()
        return lease

    async def close(self) -> None:
        """Leases are no longer kept; their keys go when they expire."""
        if self._closed:
            return
        self._closed = True
        self._leases.stop()
        for task in (self._poller, self._drainer):
            if task is not None:
                await asyncio.wait({task})
        await asyncio.get_running_loop().run_in_executor(self._thread, self._db.close)
        self._thread.shutdown()
        for watch in self._watches:
            watch.wake.set()

    # ---- leases ----------------------------------------------------------------------------------------

    async def _extend_lease(self, id: int, ttl: float) -> bool:
        update = "UPDATE leases SET expires = ? WHERE id = ?"
        return await self._do(lambda db: db.execute(update, (now() + ttl, id)).rowcount > 0, writes=True)

    async def _end_lease(self, id: int) -> None:
        await self._do(partial(self._drop_leases, ids=[id]), writes=True)

    def _drop_leases(self, db: sqlite3.Connection, ids: Sequence[int]) -> None:
        for id in ids:
            db.execute("DELETE FROM leases WHERE id = ?", (id,))
            self._changed.update(key for (key,) in db.execute("DELETE FROM kv WHERE lease = ? RETURNING key", (id,)))

    # ---- the loop's side: queue, batches, watches ------------------------------------------------------

    def _check_open(self) -> None:
        if self._closed:
            raise StoreUnavailable("the store is closed")

    async def _do(self, op: Callable[[sqlite3.Connection], T], writes: bool = False) -> T:
        self._check_open()
        job = _Job(op, writes, asyncio.get_running_loop().create_future())
        self._jobs.append(job)
        if self._drainer is None or self._drainer.done():
            self._drainer = asyncio.create_task(self._drain(), name="kvstore-sqlite")
        result: T = await job.future
        return result

    async def _drain(self) -> None:
        while self._jobs:
            jobs, self._jobs = self._jobs, []
            await self._run_batch(jobs)

    async def _run_batch(self, jobs: Sequence[_Job]) -> None:
        loop = asyncio.get_running_loop()
        outcomes, changed = await loop.run_in_executor(self._thread, self._transact, jobs)
        for job, outcome in zip(jobs, outcomes, strict=True):
            if job.future.done():
                continue
            if isinstance(outcome, BaseException):
                job.future.set_exception(outcome)
            else:
                job.future.set_result(outcome)
        if changed is None or changed:
            for watch in self._watches:
                watch.touch(changed)

    def _start_polling(self) -> None:
        if self._poller is None:
            self._poller = asyncio.create_task(self._poll(), name="kvstore-sqlite-poll")

    async def _poll(self) -> None:
        while not self._closed:
            if self._watches or self._leases:
                await self._run_batch([])
            await asyncio.sleep(POLL)

    # ---- the thread's side -----------------------------------------------------------------------------

    def _connect(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
            self._db = sqlite3.connect(path, timeout=10, isolation_level=None)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.executescript(f"BEGIN IMMEDIATE;{SCHEMA}COMMIT;")
        except PermissionError as error:
            raise StoreDenied(f"cannot open the store {path}: {error.strerror}") from error
        except (OSError, sqlite3.Error) as error:
            raise StoreUnavailable(f"cannot open the store {path}: {error}") from error

    def _transact(self, jobs: Sequence[_Job]) -> tuple[Sequence[Any], set[str] | None]:
        """Run the jobs in one transaction: their results (or errors), and the keys changed (None: any)."""
        self._changed = set()
        try:
            (data_version,) = self._db.execute("PRAGMA data_version").fetchone()
            foreign, self._data_version = data_version != self._data_version, data_version
            expired = self._expired_leases()
            self._db.execute("BEGIN IMMEDIATE" if expired or any(job.writes for job in jobs) else "BEGIN")
            try:
                self._drop_leases(self._db, expired)
                outcomes = [self._attempt(job) for job in jobs]
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            return [StoreUnavailable(f"the store's file failed: {error}")] * len(jobs), None
        return outcomes, None if foreign else self._changed

    def _attempt(self, job: _Job) -> Any:
        try:
            return job.op(self._db)
        except sqlite3.Error:
            raise
        except Exception as error:
            return error

    def _expired_leases(self) -> Sequence[int]:
        query = "SELECT id FROM leases WHERE expires < ? OR boot != ?"
        return [id for (id,) in self._db.execute(query, (now(), self._boot))]


def _has_lease(db: sqlite3.Connection, id: int) -> bool:
    return db.execute("SELECT 1 FROM leases WHERE id = ?", (id,)).fetchone() is not None


def _next_revision(db: sqlite3.Connection) -> int:
    (revision,) = db.execute("UPDATE meta SET revision = revision + 1 RETURNING revision").fetchone()
    return int(revision)


def _get(db: sqlite3.Connection, key: str) -> Entry | None:
    row = db.execute("SELECT key, value, version FROM kv WHERE key = ?", (key,)).fetchone()
    return Entry(*row) if row else None


def _list(db: sqlite3.Connection, prefix: str) -> list[Entry]:
    query = "SELECT key, value, version FROM kv WHERE key >= ? AND key < ? ORDER BY key"
    return [Entry(*row) for row in db.execute(query, (prefix, prefix + LAST))]


def _read(db: sqlite3.Connection, prefix: str, keys: set[str] | None) -> list[Entry]:
    if keys is None:
        return _list(db, prefix)
    return [entry for key in keys if (entry := _get(db, key))]
