"""The cluster as one thing: what opens the store, keeps everything going, and closes it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from ipaddress import IPv4Network, IPv6Network
from typing import NamedTuple

from kvstore.contract import Store, StoreError
from kvstore.open import open_store
from netd import __version__
from netd.cluster.addresses import Addresses
from netd.cluster.cache import Cache
from netd.cluster.channel import Channel
from netd.cluster.endpoints import Endpoints
from netd.cluster.hosts import GRACE, TTL, Hosts
from netd.cluster.model import EndpointRecord, GlobalNetwork, HostRecord, Listener
from netd.cluster.networks import Networks
from netd.cluster.options import CONTROL_PORT, lease_seconds
from netd.cluster.remote_endpoints import RemoteEndpoints
from netd.cluster.sweep import UNDECIDED, Sweeper
from netd.errors import InvalidParameter, Unavailable

log = logging.getLogger(__name__)

Prefix = IPv4Network | IPv6Network


class Kept(NamedTuple):
    """An address that is kept for a container while it is stopped."""

    network_id: str
    container_id: str
    address: str


class Timing(NamedTuple):
    """Seconds that tests shorten: a lease, a host's absence, a claim's time without its network."""

    ttl: float = TTL
    grace: float = GRACE
    undecided: float = UNDECIDED


class Cluster:
    """What this host shares with others. Everything known survives the store being away, and a restart."""

    def __init__(
        self,
        store: Store,
        hosts: Hosts,
        networks: Networks,
        addresses: Addresses,
        endpoints: Endpoints,
        remote: RemoteEndpoints,
        caches: Iterable[Cache[HostRecord] | Cache[GlobalNetwork] | Cache[EndpointRecord]],
        timing: Timing,
    ) -> None:
        self.store = store
        self.hosts = hosts
        self.networks = networks
        self.addresses = addresses
        self.endpoints = endpoints
        self.remote = remote
        self.channel: Channel | None = None
        self._caches = tuple(caches)
        self._sweeper = Sweeper(store, hosts, networks, undecided=timing.undecided)
        self._returned, self._moved = asyncio.Event(), asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    @classmethod
    async def open(
        cls,
        url: str,
        options: Mapping[str, str],
        advertise: str,
        data_store: Store,
        *,
        host: str,
        host_id: str,
        timing: Timing | None = None,
    ) -> Cluster:
        """Open the store at `url` (`--cluster-store`, `--cluster-store-opt`), which may be away.

        `advertise` is this host's address (empty: it may not join global networks), `host_id` the daemon's own
        id. What was known when the last daemon stopped is there at once; nothing happens before `start`.
        Raises `InvalidParameter` for what cannot be a store.
        """
        timing = timing or Timing(ttl=lease_seconds(options, TTL))
        try:
            store = await open_store(url, **{k: v for k, v in options.items() if k.startswith("kv.")})
        except (ValueError, OSError, StoreError) as error:
            raise InvalidParameter(f"cannot use the cluster store {url}: {error}") from error
        me = HostRecord(
            name=host,
            id=host_id,
            advertise=advertise,
            version=__version__,
            started=time.time(),
            lease=timing.ttl,
        )
        host_cache = Cache(data_store, "hosts", HostRecord)
        network_cache = Cache(data_store, "networks", GlobalNetwork)
        endpoint_cache = Cache(data_store, "endpoints", EndpointRecord)
        hosts = Hosts(store, me, host_cache, await host_cache.load(), ttl=timing.ttl, grace=timing.grace)
        networks = Networks(store, hosts, network_cache, await network_cache.load())
        addresses = Addresses(store, hosts)
        remote = RemoteEndpoints(store, hosts, endpoint_cache, await endpoint_cache.load())
        endpoints = Endpoints(store, hosts, networks, addresses, remote)
        caches = (host_cache, network_cache, endpoint_cache)
        return cls(store, hosts, networks, addresses, endpoints, remote, caches, timing)

    async def start(
        self,
        listener: Listener,
        own: Iterable[EndpointRecord] = (),
        kept: Iterable[Kept] = (),
        *,
        probes: bool = True,
    ) -> None:
        """Become a member, and go on with the endpoints and addresses that this host has from before.

        Does not wait for the store. The listener is told what differs from `networks.items` and, after this,
        from `remote.on`. Without `probes` the overlay's path to other hosts is not checked.
        """
        self.networks.listener = self.endpoints.listener = self.remote.listener = listener
        for item in kept:
            self.addresses.adopt(item.network_id, item.container_id, [item.address])
        self.endpoints.adopt(own)
        self.hosts.on_registered = self._returned.set
        self.hosts.on_back = self._found
        self.hosts.on_gone = self._lost
        await self._open_channel(probes)
        for job in (
            self.hosts.keep,
            self.hosts.watch,
            self.networks.watch,
            self.endpoints.replay,
            self._sweeper.run,
            self._resync,
            self._reconsider,
            *(cache.write for cache in self._caches),
        ):
            self._begin(job)

    def _begin(self, job: Callable[[], Awaitable[None]]) -> None:
        self._tasks.append(asyncio.create_task(_for_ever(job), name="cluster"))

    async def _open_channel(self, probes: bool) -> None:
        me = self.hosts.me
        if not me.advertise:
            return
        channel = Channel(me, lambda: self.hosts.live, self.remote.hear, probes=probes)
        try:
            await channel.open()
        except OSError as error:
            # networks work without it: the store tells everything, if a little later
            log.error("no control channel with other hosts on %s port %d: %s", me.advertise, CONTROL_PORT, error)
            return
        self.channel = channel
        self.endpoints.announce = channel.announce
        self._begin(channel.watch_paths)

    async def close(self) -> None:
        """Leave everything as it is: the host stays a member until its lease runs out."""
        running = set(self._tasks)
        while running:
            for task in running:
                task.cancel()
            # a library may swallow a cancellation: ask again
            _, running = await asyncio.wait(running, timeout=1)
        if self.channel is not None:
            await self.channel.close()
        for part in (self.remote, self.addresses, self.networks, self.hosts):
            await part.close()
        for cache in self._caches:
            await cache.flush()
        await self.store.close()

    def _found(self, host: str) -> None:
        self._moved.set()
        if self.channel is not None:
            self.channel.soon()

    def _lost(self, host: str) -> None:
        self._moved.set()
        self._sweeper.soon()

    async def _resync(self) -> None:
        while True:
            await self._returned.wait()
            self._returned.clear()
            try:
                await self.endpoints.resync()
            except Unavailable as error:
                log.info("%s; this host's endpoints are told again", error)
                self._returned.set()
                await asyncio.sleep(0.5)
            except BaseException:
                self._returned.set()
                raise

    async def _reconsider(self) -> None:
        while True:
            await self._moved.wait()
            self._moved.clear()
            await self.remote.reconsider()


async def _for_ever(job: Callable[[], Awaitable[None]]) -> None:
    """Run a job that should never end, again if it fails."""
    while True:
        try:
            return await job()
        except Exception:
            log.exception("a part of the cluster failed and is begun again")
            await asyncio.sleep(1)
