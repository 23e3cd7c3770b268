"""Which hosts are there: this one's leased record, and the live view of all.

A host counts as gone once its record has been absent for a while: a daemon that restarts, or that lost its
lease in an outage and takes a new one, is never gone for the others.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec
from msgspec.structs import replace

from kvstore.contract import Change, Entry, KeyExists, Lease, Store, StoreError, VersionMismatch
from netd.cluster.cache import Cache
from netd.cluster.calls import PATIENCE, follow, patiently
from netd.cluster.model import HostRecord
from netd.core.errors import Unavailable

log = logging.getLogger(__name__)

PREFIX = "hosts/"
TTL = 10.0  # seconds asked for; every store ends a lease within 25
GRACE = 2.0  # seconds a record may be absent before its host counts as gone
TICK = 0.5  # seconds between looks at the lease


@dataclass(frozen=True, slots=True)
class Happenings:
    """What sets other parts of the cluster going; each is cleared by the one that waits for it."""

    registered: asyncio.Event = field(default_factory=asyncio.Event)  # this host, anew
    moved: asyncio.Event = field(default_factory=asyncio.Event)  # another host has come or gone
    came: asyncio.Event = field(default_factory=asyncio.Event)
    went: asyncio.Event = field(default_factory=asyncio.Event)
    doubtful: asyncio.Event = field(default_factory=asyncio.Event)  # the store may get what nobody here wants any more


class Hosts:
    """The members of the cluster as this host sees them; `live` survives the store being away."""

    def __init__(
        self,
        store: Store,
        me: HostRecord,
        cache: Cache[HostRecord],
        known: Mapping[str, HostRecord],
        happenings: Happenings,
        *,
        ttl: float = TTL,
        grace: float = GRACE,
    ) -> None:
        self.me = me
        self.live: dict[str, HostRecord] = dict(known)
        self.problems: dict[str, str] = {}  # what is wrong, by the host concerned
        self.ready = asyncio.Event()  # the store has told who is there
        self._store = store
        self._cache = cache
        self._happenings = happenings
        self._ttl, self._grace = ttl, grace
        self._lease: Lease | None = None
        self._incarnation = ""
        self._absent: dict[str, asyncio.TimerHandle] = {}
        self._doubted = False  # the watch told that our record is not there; the store itself will tell
        self._wake = asyncio.Event()
        self._registered = asyncio.Event()

    # ---- this host --------------------------------------------------------------------------------------

    @property
    def incarnation(self) -> str:
        """What this host is registered as now; empty while it is not."""
        registered = self._lease is not None and self._lease.alive
        return self._incarnation if registered else ""

    async def member(self) -> str:
        """The incarnation, waited for; raises `Unavailable` if this host cannot become a member now."""
        if not self.incarnation:
            self._registered.clear()
            self._wake.set()
            try:
                async with asyncio.timeout(PATIENCE):
                    await self._registered.wait()
            except TimeoutError:
                reason = self.problems.get(self.me.name) or "this host could not register in the cluster store"
                raise Unavailable(f"{reason}; global networks cannot be changed until then") from None
        return self._incarnation

    async def confirmed(self) -> str:
        """The incarnation that the store itself has for this host now; empty if none."""
        entry = await self._store.get(PREFIX + self.me.name)
        record = _decode(entry) if entry else None
        return record.incarnation if record and record.id == self.me.id else ""

    async def keep(self) -> None:
        """Be registered, for ever; run it as a task."""
        while True:
            self._wake.clear()
            try:
                if self._doubted:
                    await self._look()
                if not self.incarnation:
                    await self._register()
            except StoreError as error:
                log.debug("not registered in the cluster store: %s", error)
            try:
                async with asyncio.timeout(TICK):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def _look(self) -> None:
        if await self.confirmed() != self._incarnation:
            self._incarnation = ""
        self._doubted = False

    async def _register(self) -> None:
        if await self._is_anothers():
            return
        lease = await self._store.lease(self._ttl)
        record = replace(self.me, incarnation=secrets.token_hex(8))
        try:
            written = await self._write(record, lease)
        except BaseException:
            await _end(lease)
            raise
        if not written:
            await _end(lease)
            return
        old, self._lease = self._lease, lease
        self._incarnation = record.incarnation
        self.problems.pop(self.me.name, None)
        log.info("registered in the cluster as %s (%s)", self.me.name, self.me.advertise)
        self._registered.set()
        self._happenings.registered.set()
        self._happenings.doubtful.set()  # an earlier daemon of this host may have been killed in the middle of anything
        if old is not None:
            await _end(old)

    async def _is_anothers(self) -> bool:
        entry = await self._store.get(PREFIX + self.me.name)
        other = _decode(entry) if entry else self.me
        if other.id == self.me.id:
            return False
        self._problem(
            self.me.name,
            f"another host of the cluster, at {other.advertise}, is named {self.me.name} too: "
            "give one of them another host name",
        )
        return True

    async def _write(self, record: HostRecord, lease: Lease) -> bool:
        """Put our record in place of whatever an earlier life of ours left; False if the name is another's."""
        key = PREFIX + record.name
        while True:
            try:
                await self._store.create(key, msgspec.json.encode(record), lease)
                return True
            except KeyExists:
                entry = await self._store.get(key)
            if entry is None:
                continue
            if _decode(entry).id != self.me.id:
                return False
            try:
                await self._store.delete(key, entry.version)
            except VersionMismatch:
                continue

    def alive(self, name: str) -> bool:
        """Whether a host holds its lease, as far as this one knows."""
        if name == self.me.name:
            return bool(self.incarnation)
        return name in self.live and name not in self._absent

    # ---- all hosts --------------------------------------------------------------------------------------

    async def watch(self) -> None:
        """Keep `live` up to date, for ever; run it as a task."""
        first = True
        async for change in follow(self._store, PREFIX, [PREFIX + name for name in self.live]):
            self._apply(change, first)
            first = False
            self.ready.set()

    def _apply(self, change: Change, first: bool) -> None:
        for key in change.deletes:
            self._vanished(key.removeprefix(PREFIX))
        for entry in change.puts.values():
            self._appeared(_decode(entry))
        if first and PREFIX + self.me.name not in change.puts:
            self._vanished(self.me.name)

    def _appeared(self, record: HostRecord) -> None:
        if timer := self._absent.pop(record.name, None):
            timer.cancel()
        is_new = record.name not in self.live
        self.live[record.name] = record
        self._cache.put(record.name, record)
        if record.name == self.me.name:
            self._doubt(record.incarnation)
            return
        self._check(record)
        if is_new:
            log.info("host %s (%s) is there", record.name, record.advertise)
            self._happenings.moved.set()
            self._happenings.came.set()

    def _vanished(self, name: str) -> None:
        if name == self.me.name:
            self._doubt("")
        elif name in self.live and name not in self._absent:
            self._absent[name] = asyncio.get_running_loop().call_later(self._grace, self._bury, name)

    def _doubt(self, told: str) -> None:
        if told != self._incarnation:
            self._doubted = True
            self._wake.set()

    def _bury(self, name: str) -> None:
        del self._absent[name]
        record = self.live.pop(name)
        self._cache.delete(name)
        self.problems.pop(name, None)
        log.warning("host %s (%s) is gone", name, record.advertise)
        self._happenings.moved.set()
        self._happenings.went.set()

    def _check(self, record: HostRecord) -> None:
        """Notice what makes two hosts incompatible."""
        if record.advertise and record.advertise == self.me.advertise:
            self._problem(
                record.name,
                f"host {record.name} advertises {record.advertise}, which is this host's address: "
                "give one of them another --cluster-advertise",
            )
        else:
            self.problems.pop(record.name, None)

    def _problem(self, host: str, sentence: str) -> None:
        if self.problems.get(host) != sentence:
            self.problems[host] = sentence
            log.error("%s", sentence)

    async def is_absent(self, name: str) -> bool:
        """Whether the store itself has no record of this host now. Raises `Unavailable`."""
        return await patiently(lambda: self._store.get(PREFIX + name)) is None

    async def close(self) -> None:
        """Look no longer; the record goes with the lease, so that a restart is not noticed."""
        for timer in self._absent.values():
            timer.cancel()
        self._absent.clear()


async def _end(lease: Lease) -> None:
    try:
        await lease.revoke()
    except (StoreError, TimeoutError) as error:
        log.debug("an old lease was not ended, it runs out: %s", error)


def _decode(entry: Entry) -> HostRecord:
    return msgspec.json.decode(entry.value, type=HostRecord)
