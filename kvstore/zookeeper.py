"""The ZooKeeper backend, over kazoo.

Every write also touches the directory of its key, in the same transaction. That gives the write a version (the
transaction's number, which never comes back, unlike a node's own version) and guards `cas` and `delete` against
a node that was removed and made again meanwhile. A directory that stays empty is removed in the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

from kazoo.exceptions import (  # type: ignore[import-untyped]
    BadVersionError,
    NoAuthError,
    NodeExistsError,
    NoNodeError,
    NotEmptyError,
    RolledBackError,
    RuntimeInconsistency,
)

from kvstore import contract
from kvstore.cluster import RELIST, TIMEOUT, Closing, Cluster, backoff
from kvstore.contract import Entry, KeyExists, LeaseLost, StoreError, StoreUnavailable, VersionMismatch, difference
from kvstore.limits import check_size
from kvstore.zookeeper_session import Session
from kvstore.zookeeper_tree import Layout, Subtree

log = logging.getLogger(__name__)

# seconds until an empty directory is removed: longer than any write lasts, because its guard is the directory's
# version, which starts again when the directory is made again
EMPTY = 60.0


class ZooKeeperLease:
    """A session of its own: its keys are ephemeral nodes of it."""

    def __init__(self, session: Session, forget: Callable[[ZooKeeperLease], None]) -> None:
        self.session = session
        self._forget = forget

    @property
    def alive(self) -> bool:
        return self.session.alive

    async def revoke(self) -> None:
        self._forget(self)
        await self.session.end()


class ZooKeeperStore:
    """`kvstore.contract.Store` on a ZooKeeper ensemble. `kv.user` and `kv.passwordfile` are digest credentials."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._closing = Closing()
        self._layout = Layout(cluster.path)
        self._session = Session(cluster, self._closing)
        self._leases: set[ZooKeeperLease] = set()
        self._ending: set[asyncio.Future[None]] = set()  # lost ones
        self._known: set[str] = set()  # directories that were there
        self._pruning: dict[str, asyncio.Task[None]] = {}

    # ---- the contract ----------------------------------------------------------------------------------

    async def get(self, key: str) -> Entry | None:
        node = self._layout.node(key)
        await self._sync()
        found = await self._session.call(lambda zk: zk.get_async(node), absent=None)
        return Entry(key, found[0], found[1].mzxid) if found else None

    async def list(self, prefix: str) -> list[Entry]:
        await self._sync()
        subtree = Subtree(self._session, self._layout, prefix)
        await subtree.refresh()
        for directory, version in subtree.empty.items():
            self._prune_later(directory, version)
        return sorted(subtree.nodes.values(), key=lambda entry: entry.key)

    async def create(self, key: str, value: bytes, lease: contract.Lease | None = None) -> Entry:
        check_size(key, value)
        session, node = self._session, self._layout.node(key)
        if lease is not None:
            if not isinstance(lease, ZooKeeperLease):
                raise TypeError(f"not a lease of this store: {lease!r}")
            if not lease.alive:
                raise LeaseLost(f"key {key!r} cannot be created: its lease has ended")
            session = lease.session
        while True:
            try:
                await self._make_directory(key)
                version = await self._transact(
                    session, key, lambda t: t.create(node, value, ephemeral=lease is not None)
                )
                return Entry(key, value, version)
            except NodeExistsError as error:
                raise KeyExists(f"key {key!r} exists already") from error
            except NoNodeError:
                self._known.clear()  # an empty directory was removed

    async def cas(self, key: str, value: bytes, version: int) -> Entry:
        check_size(key, value)
        node = self._layout.node(key)
        new = await self._at_version(key, version, lambda t, at: t.set_data(node, value, at))
        return Entry(key, value, new)

    async def delete(self, key: str, version: int | None = None) -> None:
        node = self._layout.node(key)
        if version is not None:
            await self._at_version(key, version, lambda t, at: t.delete(node, at))
            return
        with contextlib.suppress(NoNodeError):
            await self._transact(self._session, key, lambda t: t.delete(node))

    async def watch(self, prefix: str) -> AsyncIterator[contract.Change]:
        seen: dict[str, int] = {}
        told, attempt = False, 0
        subtree = Subtree(self._session, self._layout, prefix, watched=True)
        while not self._closing:
            try:
                await subtree.refresh()
                change = difference(seen, None, subtree.nodes.values())
                if change.puts or change.deletes or not told:
                    yield change
                told, attempt = True, 0
                try:
                    async with asyncio.timeout(RELIST):
                        await self._closing.wait_for(subtree.changed())
                except TimeoutError:
                    subtree.forget()
            except StoreUnavailable:
                await self._closing.pause(backoff(attempt))
                attempt += 1

    async def lease(self, ttl: float) -> contract.Lease:
        self._closing.check()
        self._let_go_of_the_lost()
        await self._session.connected()
        session = Session(self._cluster, self._closing, max(ttl, self._cluster.min_ttl), once=True)
        try:
            await session.connected(TIMEOUT)
        except BaseException:
            await session.end()
            raise
        lease = ZooKeeperLease(session, self._leases.discard)
        self._leases.add(lease)
        return lease

    def _let_go_of_the_lost(self) -> None:
        """End the threads of sessions that are over, which kazoo may take as long for as the session lasted: nobody
        waits for that, least of all a host that is to be a member again."""
        for lost in [lease for lease in self._leases if lease.session.over]:
            ending = asyncio.ensure_future(lost.revoke())
            self._ending.add(ending)
            ending.add_done_callback(self._ended)

    def _ended(self, ending: asyncio.Future[None]) -> None:
        self._ending.discard(ending)
        if not ending.cancelled() and (error := ending.exception()) is not None:
            log.info("a lost session could not be closed: %s", error)

    async def close(self) -> None:
        if self._closing:
            return
        self._closing.set()
        leaving = [lease.session.leave() for lease in self._leases]
        await asyncio.gather(*leaving, self._session.end(), *self._pruning.values())
        await asyncio.gather(*self._ending, return_exceptions=True)

    # ---- for `netd store check` ------------------------------------------------------------------------

    async def time(self) -> float:
        """What the leader's clock says, in seconds since the epoch: that of a write made now."""
        await self._session.call(lambda zk: zk.ensure_path_async(self._layout.root))
        stat = await self._session.call(lambda zk: zk.set_async(self._layout.root, b""))
        return float(stat.mtime) / 1000

    # ---- directories -----------------------------------------------------------------------------------

    async def _sync(self) -> None:
        await self._session.call(lambda zk: zk.sync_async(self._layout.root), absent=None)

    async def _make_directory(self, key: str) -> None:
        directory = self._layout.directory(key)
        if directory not in self._known:
            await self._session.call(lambda zk: zk.ensure_path_async(directory))
            self._known.add(directory)

    def _prune_later(self, directory: str, version: int) -> None:
        if directory != self._layout.root and directory not in self._pruning:
            self._pruning[directory] = asyncio.create_task(self._prune(directory, version), name="prune")

    async def _prune(self, directory: str, version: int) -> None:
        """Remove a directory if it is empty and nothing was written to it for a while."""
        try:
            await self._closing.pause(EMPTY)
            await self._session.call(lambda zk: zk.delete_async(directory, version), absent=None)
        except (StoreError, BadVersionError, NotEmptyError):
            return  # in use; or it is found empty again another time
        finally:
            del self._pruning[directory]

    # ---- transactions ----------------------------------------------------------------------------------

    async def _at_version(self, key: str, version: int, change: Callable[[Any, int], None]) -> int:
        """Carry out `change` if the key still has this version; the new version."""
        node, directory = self._layout.node(key), self._layout.directory(key)
        while True:
            above = await self._session.call(lambda zk: zk.exists_async(directory))
            stat = await self._session.call(lambda zk: zk.exists_async(node)) if above else None
            if stat is None or stat.mzxid != version:
                raise VersionMismatch(f"key {key!r} is no longer at version {version}")
            guard, at = above.version, stat.version

            def guarded(transaction: Any, guard: int = guard, at: int = at) -> None:
                transaction.check(directory, guard)
                change(transaction, at)

            try:
                return await self._transact(self._session, key, guarded)
            except (BadVersionError, NoNodeError):
                continue  # something in the directory changed; perhaps not this key

    async def _transact(self, session: Session, key: str, change: Callable[[Any], None]) -> int:
        """Commit `change` and touch the key's directory; the transaction's number."""

        def commit(zk: Any) -> Any:
            transaction = zk.transaction()
            change(transaction)
            transaction.set_data(self._layout.directory(key), b"")
            return transaction.commit_async()

        results = await session.call(commit)
        for result in results:
            if isinstance(result, NoAuthError):
                raise session.denied(result)
            if isinstance(result, Exception) and not isinstance(result, RolledBackError | RuntimeInconsistency):
                raise result
        return int(results[-1].mzxid)
