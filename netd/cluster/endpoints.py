"""This host's endpoints of global networks, in the store.

They are desired state: a change that cannot be written now is written once the store answers again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

import msgspec
from msgspec.structs import replace

from kvstore.contract import KeyExists, Store, VersionMismatch
from netd.cluster.addresses import Addresses
from netd.cluster.calls import doubting, in_time, patiently, unavailable
from netd.cluster.hosts import Hosts
from netd.cluster.model import ENDPOINTS, EndpointRecord, Listener, decode_endpoint, endpoint_key
from netd.cluster.networks import Networks
from netd.cluster.remote_endpoints import Followed, RemoteEndpoints
from netd.core.errors import Forbidden, NetdError, Unavailable
from netd.core.locks import Locks
from netd.core.tasks import both

log = logging.getLogger(__name__)

PARALLEL = 16  # endpoints brought back at a time
REPLAY = 0.5  # seconds between tries to write what is still to be written
FIRST_LOOK = 2.0  # seconds the first container on a network waits for what the other hosts have there


class Endpoints:
    """All endpoints that concern this host."""

    def __init__(
        self,
        store: Store,
        hosts: Hosts,
        networks: Networks,
        addresses: Addresses,
        remote: RemoteEndpoints,
        listener: Listener,
        announce: Callable[[EndpointRecord, bool], None],
        doubtful: asyncio.Event,
    ) -> None:
        self.own: dict[str, EndpointRecord] = {}
        self._listener = listener
        self._announce = announce
        self._store = store
        self._hosts = hosts
        self._networks = networks
        self._addresses = addresses
        self._remote = remote
        self._doubtful = doubtful
        self._joining: Counter[str] = Counter()  # networks on which an endpoint is being put
        self._unwritten: dict[str, EndpointRecord] = {}  # to be put, or removed if no longer among `own`
        self._changing = Locks()
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

    async def _join(self, endpoint: EndpointRecord, following: Followed) -> None:
        before = self.own.get(endpoint.id)
        endpoint = self._completed(endpoint)
        try:
            async with doubting(self._doubtful), in_time():
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
        self._announce(endpoint, False)
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

    async def _look_first(self, network_id: str, followed: Followed) -> None:
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
        self._announce(endpoint, True)
        try:
            if away is not None:
                raise away
            async with doubting(self._doubtful), in_time():
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
        async with self._changing.of(endpoint.id):
            if endpoint.id in self.own:
                await self._write(self.own[endpoint.id])
            else:
                await patiently(lambda: self._store.delete(endpoint_key(endpoint)))
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
            confirmed, _ = await both(patiently(self._hosts.confirmed), joinable)
            if confirmed == incarnation:
                return
            await asyncio.sleep(0.05)

    async def _put(self, record: EndpointRecord) -> None:
        value = msgspec.json.encode(record)
        while True:
            try:
                await self._store.create(endpoint_key(record), value)
                return
            except KeyExists:
                entry = await self._store.get(endpoint_key(record))
            if entry is None:
                continue
            try:
                # a new version also if it is the same: who decided from the one before that it may go will fail to
                await self._store.cas(endpoint_key(record), value, entry.version)
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
            self._remote.follow(endpoint.network_id)

    async def resync(self) -> None:
        """Make the store agree with what this host has: after each registration. Raises `Unavailable`."""
        limit = asyncio.Semaphore(PARALLEL)
        away = asyncio.Event()
        back = (self._bring_back(endpoint, limit, away) for endpoint in list(self.own.values()))
        outcomes = await asyncio.gather(*back, return_exceptions=True)
        if failed := [outcome for outcome in outcomes if outcome is not None]:
            raise failed[0]
        await self._addresses.renew_rest()

    async def _bring_back(self, endpoint: EndpointRecord, limit: asyncio.Semaphore, away: asyncio.Event) -> None:
        """Once the store is known to be `away`, nothing more is begun."""
        async with limit:
            if away.is_set():
                return
            try:
                await self._settle(endpoint)
            except Unavailable:
                away.set()
                raise
            except NetdError as error:
                await self._lose(endpoint, str(error))

    async def _lose(self, endpoint: EndpointRecord, reason: str) -> None:
        log.error("%s; it is cut off from network %s: restart it", reason, endpoint.network_id[:12])
        await self._withdraw(endpoint)
        try:
            await self._listener.endpoint_lost(endpoint, reason)
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
                    self._doubtful.set()  # a name or an address may be claimed for what was not to be
            self._wake.clear()

    def wants(self, key: str, owner: str) -> bool:
        """Whether a record or claim in this host's name is for something that it has, or is about to have."""
        if key.startswith(ENDPOINTS):
            return key.rpartition("/")[2] in self.own
        return self._addresses.wants(key, owner)

    # ---- all hosts' endpoints ---------------------------------------------------------------------------

    def known(self) -> list[EndpointRecord]:
        """All endpoints of the networks that this host is on."""
        return [*self.own.values(), *self._remote.known()]

    async def listed(self, network_id: str = "") -> list[EndpointRecord]:
        """All endpoints, of one network or of all, of hosts that are there, as the store has them now.

        Raises `Unavailable`.
        """
        prefix = f"{ENDPOINTS}{network_id}/" if network_id else ENDPOINTS
        try:
            async with asyncio.timeout(FIRST_LOOK):
                entries = await patiently(lambda: self._store.list(prefix))
        except TimeoutError as error:
            raise unavailable(error) from error
        return [record for entry in entries if self._remote.counts(record := decode_endpoint(entry))]

    @asynccontextmanager
    async def _following(self, network_id: str) -> AsyncIterator[Followed]:
        """Whatever else leaves the network meanwhile, it is followed without a break."""
        self._joining[network_id] += 1
        try:
            yield self._remote.follow(network_id)
        finally:
            self._joining[network_id] -= 1
            await self._unfollow_if_unused(network_id)

    async def _unfollow_if_unused(self, network_id: str) -> None:
        if self._joining[network_id] or any(e.network_id == network_id for e in self.own.values()):
            return
        del self._joining[network_id]
        self._addresses.forget(network_id)
        await self._remote.unfollow(network_id)
