"""The other hosts' endpoints, of the networks that this host is on: as the store has them, and as their hosts say.

Only networks with an endpoint of this host are followed. What the store tells goes before what is heard, except for
an end: whoever is said to be gone stays so until the store says it too.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

from kvstore.contract import Change, Store
from netd.cluster.cache import Cache
from netd.cluster.calls import follow, is_gone
from netd.cluster.hosts import Hosts
from netd.cluster.model import ENDPOINTS, EndpointRecord, Listener, decode_endpoint, endpoint_key
from netd.core.locks import Locks
from netd.core.tasks import Tasks

log = logging.getLogger(__name__)

HEARSAY = 10.0  # seconds an endpoint that its host announces is believed in without the store


@dataclass(slots=True)
class Followed:
    """One network's endpoints of other hosts: as stored, and as told to the listener. `ready` once the store told."""

    stored: dict[str, EndpointRecord] = field(default_factory=dict)
    shown: dict[str, EndpointRecord] = field(default_factory=dict)
    heard: dict[str, EndpointRecord | None] = field(default_factory=dict)  # from their hosts; None: it is gone
    tasks: Tasks = field(default_factory=Tasks)
    ready: asyncio.Event = field(default_factory=asyncio.Event)


class RemoteEndpoints:
    """What is known of other hosts' endpoints, and told to the listener."""

    def __init__(
        self,
        store: Store,
        hosts: Hosts,
        listener: Listener,
        cache: Cache[EndpointRecord],
        known: Mapping[str, EndpointRecord],
    ) -> None:
        self._store = store
        self._hosts = hosts
        self._listener = listener
        self._cache = cache
        self._followed: dict[str, Followed] = {}
        self._telling = Locks()
        self._cached: dict[str, dict[str, EndpointRecord]] = defaultdict(dict)
        for record in known.values():
            self._cached[record.network_id][record.id] = record

    def on(self, network_id: str) -> list[EndpointRecord]:
        """Those on a network that this host is on, as told to the listener."""
        followed = self._followed.get(network_id)
        return list(followed.shown.values()) if followed else []

    def known(self) -> list[EndpointRecord]:
        """Those of all networks that this host is on."""
        return [e for followed in self._followed.values() for e in followed.shown.values()]

    def counts(self, record: EndpointRecord) -> bool:
        """Whether the host of an endpoint, which may be this one, is there."""
        return record.host == self._hosts.me.name or record.host in self._hosts.live

    # ---- following --------------------------------------------------------------------------------------

    def follow(self, network_id: str) -> Followed:
        """Follow a network, if it is not followed yet; what was known when the last daemon stopped counts at once."""
        if network_id not in self._followed:
            cached = self._cached.pop(network_id, {})
            followed = self._followed[network_id] = Followed(dict(cached))
            followed.shown = {id: e for id, e in cached.items() if self.counts(e)}
            watch = partial(self._watch, network_id, followed)
            followed.tasks.keep_running(watch, f"following the endpoints on network {network_id[:12]}")
        return self._followed[network_id]

    async def unfollow(self, network_id: str) -> None:
        """This host has left the network."""
        followed = self._followed.pop(network_id, None)
        if followed is None:
            return
        followed.tasks.cancel()
        for endpoint_id in followed.stored | followed.heard:
            self._cache.delete(f"{network_id}/{endpoint_id}")
        followed.stored.clear()
        followed.heard.clear()
        await self._tell(network_id, followed)

    def drop(self, network_id: str) -> None:
        """A network is gone: what was known of it when the last daemon stopped is not needed any more."""
        for endpoint_id in self._cached.pop(network_id, {}):
            self._cache.delete(f"{network_id}/{endpoint_id}")

    async def _watch(self, network_id: str, followed: Followed) -> None:
        prefix = f"{ENDPOINTS}{network_id}/"
        async for change in follow(self._store, prefix, [prefix + id for id in followed.stored]):
            self._apply(network_id, followed, change)
            await self._tell(network_id, followed)
            followed.ready.set()

    def _apply(self, network_id: str, followed: Followed, change: Change) -> None:
        for key in change.deletes:
            endpoint_id = key.rpartition("/")[2]
            followed.heard.pop(endpoint_id, None)
            if followed.stored.pop(endpoint_id, None):
                self._cache.delete(f"{network_id}/{endpoint_id}")
        for entry in change.puts.values():
            record = decode_endpoint(entry)
            if record.host != self._hosts.me.name:
                followed.stored[record.id] = record
                if followed.heard.get(record.id):
                    del followed.heard[record.id]  # but one that is said to be gone stays so until the store says it
                self._cache.put(f"{network_id}/{record.id}", record)

    async def _tell(self, network_id: str, followed: Followed) -> None:
        """Bring what the listener knows up to what is stored, of hosts that are there."""
        async with self._telling.of(network_id):
            known = followed.stored | followed.heard
            present = {id: e for id, e in known.items() if e is not None and e.host in self._hosts.live}
            put = [e for id, e in present.items() if not e.same(followed.shown.get(id))]
            gone = [e for id, e in followed.shown.items() if id not in present]
            followed.shown = present
            if not put and not gone:
                return
            try:
                await self._listener.endpoints_changed(network_id, put, gone)
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
            followed.tasks.start(self._doubt(endpoint, followed), f"doubting endpoint {endpoint.id[:12]}")
        await self._tell(endpoint.network_id, followed)

    async def _doubt(self, endpoint: EndpointRecord, followed: Followed) -> None:
        """Forget an announced endpoint if the store, once it answers, does not have it."""

        def doubtful() -> bool:
            return endpoint.id in followed.heard and endpoint.id not in followed.stored

        if await is_gone(self._store, endpoint_key(endpoint), doubtful, HEARSAY):
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
            await followed.tasks.close()
