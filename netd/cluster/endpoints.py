"""Endpoints of global networks: this host's in the store, the other hosts' as this one needs them.

This host's endpoints are desired state: a change that cannot be written now is written once the store answers
again. Of the others only those are followed that share a network with one of ours.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import msgspec
from msgspec.structs import replace

from kvstore.contract import Change, Entry, KeyExists, Store, StoreError, VersionMismatch
from netd.cluster.addresses import Addresses
from netd.cluster.cache import Cache
from netd.cluster.hosts import Hosts
from netd.cluster.model import EndpointRecord, Listener
from netd.cluster.networks import Networks
from netd.errors import Forbidden, NetdError, Unavailable
from netd.storecalls import follow, in_time, patiently, unavailable

log = logging.getLogger(__name__)

PREFIX = "ep/"
PARALLEL = 16  # endpoints brought back at a time
REPLAY = 0.5  # seconds between tries to write what is still to be written
HEARSAY = 10.0  # seconds an endpoint that its host announces is believed in without the store
FIRST_LOOK = 2.0  # seconds the first container on a network waits for what the other hosts have there


@dataclass(slots=True)
class _Followed:
    """One network's endpoints of other hosts: as stored, and as told to the listener."""

    stored: dict[str, EndpointRecord] = field(default_factory=dict)
    shown: dict[str, EndpointRecord] = field(default_factory=dict)
    heard: dict[str, EndpointRecord | None] = field(default_factory=dict)  # from their hosts; None: it is gone
    doubts: set[asyncio.Task[None]] = field(default_factory=set)
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None

    def stop(self) -> None:
        for task in (*self.doubts, *((self.task,) if self.task else ())):
            task.cancel()


class Endpoints:
    """All endpoints that concern this host."""

    def __init__(
        self,
        store: Store,
        hosts: Hosts,
        networks: Networks,
        addresses: Addresses,
        cache: Cache[EndpointRecord],
        known: Mapping[str, EndpointRecord],
    ) -> None:
        self.own: dict[str, EndpointRecord] = {}
        self.listener: Listener
        self.announce: Callable[[EndpointRecord, bool], None] = lambda endpoint, gone: None
        self._store = store
        self._hosts = hosts
        self._networks = networks
        self._addresses = addresses
        self._cache = cache
        self._followed: dict[str, _Followed] = {}
        self._joining: Counter[str] = Counter()  # networks on which an endpoint is being put
        self._telling: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._cached: dict[str, dict[str, EndpointRecord]] = defaultdict(dict)
        for record in known.values():
            self._cached[record.network_id][record.id] = record
        self._unwritten: dict[str, EndpointRecord] = {}  # to be put, or removed if no longer among `own`
        self._changing: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._away = False
        self._wake = asyncio.Event()

    # ---- this host's endpoints --------------------------------------------------------------------------

    async def put(self, endpoint: EndpointRecord) -> None:
        """Add an endpoint of this host, or change it; its addresses are allocated.

        A new one is there for every host when this returns, or raises `Unavailable`, `NotFound`, `Conflict`
        (the network is being removed) or `Forbidden` (name or address); then nothing is left of it. A change of
        one that is there already is written later if the store is away, unless it is another name.
        """
        if not self._hosts.me.advertise:
            raise Forbidden("this host cannot join a global network: its daemon runs without --cluster-advertise")
        async with self._following(endpoint.network_id) as following:
            await self._join(endpoint, following)

    async def _join(self, endpoint: EndpointRecord, following: _Followed) -> None:
        before = self.own.get(endpoint.id)
        endpoint = self._completed(endpoint)
        try:
            async with in_time():
                await self._claim_name(endpoint)
                self.own[endpoint.id] = endpoint
                await self._settle(endpoint)
        except BaseException as error:
            away = error if isinstance(error, Unavailable) else None
            if before is None:
                await self._withdraw(endpoint, away)
                raise
            if away is None or self.own[endpoint.id].name != endpoint.name:
                self._as_before(before)
                raise
            self.own[endpoint.id] = endpoint
            self._later(endpoint, away)
        self.announce(endpoint, False)
        with contextlib.suppress(Unavailable):  # given back once the store answers
            await self._addresses.release(endpoint.network_id, endpoint.id, name=endpoint.name)
        if before is None:
            await self._look_first(endpoint.network_id, following)

    def _as_before(self, before: EndpointRecord) -> None:
        """Undo a change that was refused. The store may have its claim or its record all the same."""
        self.own[before.id] = before
        self._addresses.disown(before.network_id, before.id, name=before.name)
        self._unwritten[before.id] = before
        self._wake.set()

    async def _look_first(self, network_id: str, followed: _Followed) -> None:
        """Wait for what the other hosts have on the network."""
        try:
            async with asyncio.timeout(FIRST_LOOK):
                await self._hosts.ready.wait()
                await followed.ready.wait()
        except TimeoutError:
            log.warning("endpoints of other hosts on network %s are not known yet", network_id[:12])

    async def remove(self, endpoint_id: str) -> None:
        """Take an endpoint of this host away, with its name and the addresses that are its own.

        Never fails: what the store cannot be told now, it is told when it answers again.
        """
        endpoint = self.own.get(endpoint_id)
        if endpoint is not None:
            await self._withdraw(endpoint, Unavailable("it did not answer before") if self._away else None)

    async def _withdraw(self, endpoint: EndpointRecord, away: Unavailable | None = None) -> None:
        """Undo `put`; the store is told later if it is known to be `away`."""
        self.own.pop(endpoint.id, None)
        # at once: its container may be started again before the store knows of its end
        claimed = self._addresses.disown(endpoint.network_id, endpoint.id)
        self.announce(endpoint, True)
        try:
            if away is not None:
                raise away
            async with in_time():
                await self._settle(endpoint)
                await self._addresses.give_back(claimed, endpoint.id)
        except Unavailable as error:
            self._later(endpoint, error)
        await self._unfollow_if_unused(endpoint.network_id)

    def _completed(self, endpoint: EndpointRecord) -> EndpointRecord:
        return replace(endpoint, host=self._hosts.me.name, vtep=self._hosts.me.advertise)

    def _later(self, endpoint: EndpointRecord, error: Exception) -> None:
        log.warning("endpoint %s will be told to the other hosts later: %s", endpoint.id[:12], error)
        self._unwritten[endpoint.id] = endpoint
        self._away = True
        self._wake.set()

    async def _claim_name(self, endpoint: EndpointRecord) -> None:
        if endpoint.anonymous or not endpoint.name:
            return
        network = await self._networks.get(endpoint.network_id)
        await self._addresses.take_name(network, endpoint.id, endpoint.name)

    async def _settle(self, endpoint: EndpointRecord) -> None:
        """Make the store agree with `own` about one endpoint."""
        async with self._changing[endpoint.id]:
            if endpoint.id in self.own:
                await self._write(self.own[endpoint.id])
            else:
                await patiently(lambda: self._store.delete(_key(endpoint)))
                self._changing.pop(endpoint.id, None)
            self._unwritten.pop(endpoint.id, None)
            self._away = False

    async def _write(self, endpoint: EndpointRecord) -> None:
        """Put a record, and make sure that this host was a member all the while and the network is there."""
        while True:
            incarnation = await self._hosts.member()
            if taken := await self._addresses.renew(endpoint.network_id, endpoint.id, endpoint.addresses):
                told = ", ".join(f"{claim.owner} is taken by host {claim.host}" for claim in taken)
                raise Forbidden(f"endpoint {endpoint.name} cannot have what it had: {told}")
            record = replace(endpoint, incarnation=incarnation)
            await patiently(lambda record=record: self._put(record))  # type: ignore[misc]
            joinable = patiently(lambda: self._networks.check_joinable(endpoint.network_id))
            confirmed, _ = await asyncio.gather(patiently(self._hosts.confirmed), joinable)
            if confirmed == incarnation:
                return
            await asyncio.sleep(0.05)

    async def _put(self, record: EndpointRecord) -> None:
        value = msgspec.json.encode(record)
        while True:
            try:
                await self._store.create(_key(record), value)
                return
            except KeyExists:
                entry = await self._store.get(_key(record))
            if entry is None:
                continue
            if entry.value == value:
                return
            try:
                await self._store.cas(_key(record), value, entry.version)
                return
            except VersionMismatch:
                continue

    # ---- after the store or this host was away ----------------------------------------------------------

    def adopt(self, endpoints: Iterable[EndpointRecord]) -> None:
        """Count the endpoints that this host has from an earlier daemon; `resync` tells the store."""
        for endpoint in map(self._completed, endpoints):
            self.own[endpoint.id] = endpoint
            name = "" if endpoint.anonymous else endpoint.name
            self._addresses.adopt(endpoint.network_id, endpoint.id, endpoint.addresses, name)
            self._follow(endpoint.network_id)

    async def resync(self) -> None:
        """Make the store agree with what this host has: after each registration. Raises `Unavailable`."""
        limit = asyncio.Semaphore(PARALLEL)
        await asyncio.gather(*(self._bring_back(endpoint, limit) for endpoint in list(self.own.values())))
        await self._addresses.renew_rest()
        for entry in await patiently(lambda: self._store.list(PREFIX)):
            record = decode(entry)
            if record.host == self._hosts.me.name and record.id not in self.own:
                log.info("endpoint %s (%s) of an earlier time is removed", record.id[:12], record.name)
                with contextlib.suppress(VersionMismatch):  # it is back
                    await patiently(lambda entry=entry: self._store.delete(entry.key, entry.version))  # type: ignore[misc]
        await self._addresses.sweep()

    async def _bring_back(self, endpoint: EndpointRecord, limit: asyncio.Semaphore) -> None:
        async with limit:
            try:
                await self._settle(endpoint)
            except Unavailable:
                raise
            except NetdError as error:
                await self._lose(endpoint, str(error))

    async def _lose(self, endpoint: EndpointRecord, reason: str) -> None:
        log.error("%s; it is cut off from network %s: restart it", reason, endpoint.network_id[:12])
        await self._withdraw(endpoint)
        try:
            await self.listener.endpoint_lost(endpoint, reason)
        except Exception:
            log.exception("the loss of endpoint %s could not be dealt with", endpoint.id[:12])

    async def replay(self) -> None:
        """Write what could not be written, for ever; run it as a task."""
        while True:
            await self._wake.wait()
            while self._unwritten:
                await asyncio.sleep(REPLAY)
                for endpoint in list(self._unwritten.values()):
                    try:
                        await self._settle(endpoint)
                    except Unavailable:
                        break
                    except NetdError as error:
                        self._unwritten.pop(endpoint.id, None)
                        await self._lose(endpoint, str(error))
                else:
                    await self._sweep_claims()
            self._wake.clear()

    async def _sweep_claims(self) -> None:
        try:
            await self._addresses.sweep()
        except Unavailable as error:
            log.info("%s; what is left there is given back later", error)

    # ---- other hosts' endpoints -------------------------------------------------------------------------

    def on(self, network_id: str) -> list[EndpointRecord]:
        """Endpoints of other hosts on a network that this host is on, as told to the listener."""
        followed = self._followed.get(network_id)
        return list(followed.shown.values()) if followed else []

    def known(self) -> list[EndpointRecord]:
        """All endpoints of the networks that this host is on."""
        return [*self.own.values(), *(e for followed in self._followed.values() for e in followed.shown.values())]

    async def listed(self, network_id: str = "") -> list[EndpointRecord]:
        """All endpoints, of one network or of all, of hosts that are there, as the store has them now.

        Raises `Unavailable`.
        """
        prefix = f"{PREFIX}{network_id}/" if network_id else PREFIX
        try:
            async with asyncio.timeout(FIRST_LOOK):
                entries = await patiently(lambda: self._store.list(prefix))
        except TimeoutError as error:
            raise unavailable(error) from error
        return [record for entry in entries if self._counts(record := decode(entry))]

    def _counts(self, record: EndpointRecord) -> bool:
        return record.host == self._hosts.me.name or record.host in self._hosts.live

    def _follow(self, network_id: str) -> _Followed:
        if network_id not in self._followed:
            cached = self._cached.pop(network_id, {})
            followed = self._followed[network_id] = _Followed(dict(cached))
            followed.shown = {id: e for id, e in cached.items() if self._counts(e)}
            followed.task = asyncio.create_task(self._watch(network_id, followed), name=f"endpoints {network_id[:12]}")
        return self._followed[network_id]

    @asynccontextmanager
    async def _following(self, network_id: str) -> AsyncIterator[_Followed]:
        """Whatever else leaves the network meanwhile, it is followed without a break."""
        self._joining[network_id] += 1
        try:
            yield self._follow(network_id)
        finally:
            self._joining[network_id] -= 1
            await self._unfollow_if_unused(network_id)

    async def _unfollow_if_unused(self, network_id: str) -> None:
        if self._joining[network_id] or any(e.network_id == network_id for e in self.own.values()):
            return
        del self._joining[network_id]
        followed = self._followed.pop(network_id, None)
        if followed is None:
            return
        followed.stop()
        for endpoint_id in followed.stored | followed.heard:
            self._cache.delete(f"{network_id}/{endpoint_id}")
        followed.stored.clear()
        followed.heard.clear()
        self._addresses.forget(network_id)
        await self._tell(network_id, followed)

    async def _watch(self, network_id: str, followed: _Followed) -> None:
        prefix = f"{PREFIX}{network_id}/"
        async for change in follow(self._store, prefix, [prefix + id for id in followed.stored]):
            self._apply(network_id, followed, change)
            await self._tell(network_id, followed)
            followed.ready.set()

    def _apply(self, network_id: str, followed: _Followed, change: Change) -> None:
        for key in change.deletes:
            endpoint_id = key.rpartition("/")[2]
            followed.heard.pop(endpoint_id, None)
            if followed.stored.pop(endpoint_id, None):
                self._cache.delete(f"{network_id}/{endpoint_id}")
        for entry in change.puts.values():
            record = decode(entry)
            if record.host != self._hosts.me.name:
                followed.stored[record.id] = record
                if followed.heard.get(record.id):
                    del followed.heard[record.id]  # but one that is said to be gone stays so until the store says it
                self._cache.put(f"{network_id}/{record.id}", record)

    async def _tell(self, network_id: str, followed: _Followed) -> None:
        """Bring what the listener knows up to what is stored, of hosts that are there."""
        async with self._telling[network_id]:
            known = followed.stored | followed.heard
            present = {id: e for id, e in known.items() if e is not None and e.host in self._hosts.live}
            put = [e for id, e in present.items() if not e.same(followed.shown.get(id))]
            gone = [e for id, e in followed.shown.items() if id not in present]
            followed.shown = present
            if not put and not gone:
                return
            try:
                await self.listener.endpoints_changed(network_id, put, gone)
            except Exception:
                log.exception("endpoints of other hosts on network %s could not be followed", network_id[:12])

    async def hear(self, endpoint: EndpointRecord, gone: bool) -> None:
        """News from the host of an endpoint itself, ahead of the store or while it is away."""
        followed = self._followed.get(endpoint.network_id)
        if followed is None or endpoint.host == self._hosts.me.name:
            return
        if followed.heard.get(endpoint.id, endpoint) is None and not gone:
            return  # news overtaken by its end
        followed.heard[endpoint.id] = None if gone else endpoint
        if endpoint.id not in followed.stored and not gone:
            self._cache.put(f"{endpoint.network_id}/{endpoint.id}", endpoint)
            doubt = asyncio.create_task(self._doubt(endpoint, followed))
            followed.doubts.add(doubt)
            doubt.add_done_callback(followed.doubts.discard)
        await self._tell(endpoint.network_id, followed)

    async def _doubt(self, endpoint: EndpointRecord, followed: _Followed) -> None:
        """Forget an announced endpoint if the store, once it answers, does not have it."""
        while endpoint.id in followed.heard and endpoint.id not in followed.stored:
            await asyncio.sleep(HEARSAY)
            with contextlib.suppress(StoreError):
                if await self._store.get(_key(endpoint)) is None:
                    followed.heard.pop(endpoint.id, None)
                    if endpoint.id not in followed.stored:
                        self._cache.delete(f"{endpoint.network_id}/{endpoint.id}")
                    await self._tell(endpoint.network_id, followed)

    async def reconsider(self) -> None:
        """A host has come or gone: its endpoints with it."""
        for network_id, followed in list(self._followed.items()):
            await self._tell(network_id, followed)

    async def close(self) -> None:
        for followed in self._followed.values():
            followed.stop()


def decode(entry: Entry) -> EndpointRecord:
    return msgspec.json.decode(entry.value, type=EndpointRecord)


def _key(endpoint: EndpointRecord) -> str:
    return f"{PREFIX}{endpoint.network_id}/{endpoint.id}"
