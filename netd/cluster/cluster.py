"""The cluster as one thing: what opens the store, keeps everything going, and closes it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Network, IPv6Network
from typing import NamedTuple

from kvstore.contract import Store, StoreError
from kvstore.open import open_store
from netd import __version__
from netd.cluster.addresses import Addresses
from netd.cluster.cache import Cache
from netd.cluster.channel import Channel
from netd.cluster.endpoints import Endpoints
from netd.cluster.hosts import GRACE, TTL, Happenings, Hosts
from netd.cluster.model import EndpointRecord, GlobalNetwork, HostRecord, Listener
from netd.cluster.networks import Networks
from netd.cluster.remote_endpoints import RemoteEndpoints
from netd.cluster.sweep import UNDECIDED, Sweeper
from netd.config.cluster import CONTROL_PORT, lease_seconds
from netd.core.errors import InvalidParameter, Unavailable
from netd.core.tasks import Tasks

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
        channel: Channel | None,
        sweeper: Sweeper,
        caches: Iterable[Cache[HostRecord] | Cache[GlobalNetwork] | Cache[EndpointRecord]],
        happenings: Happenings,
    ) -> None:
        self.store = store
        self.hosts = hosts
        self.networks = networks
        self.addresses = addresses
        self.endpoints = endpoints
        self.remote = remote
        self._channel = channel
        self._caches = tuple(caches)
        self._sweeper = sweeper
        self._happenings = happenings
        self._tasks = Tasks()

    @classmethod
    async def open(
        cls,
        url: str,
        options: Mapping[str, str],
        advertise: str,
        data_store: Store,
        listener: Listener,
        *,
        host: str,
        host_id: str,
        timing: Timing | None = None,
    ) -> Cluster:
        """Open the store at `url` (`--cluster-store`, `--cluster-store-opt`), which may be away.

        `advertise` is this host's address (empty: it may not join global networks), `host_id` the daemon's own
        id. What was known when the last daemon stopped is there at once; nothing happens before `start`. The
        listener is told what differs from `networks.items` and, after `start`, from `remote.on`.
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
        on = Happenings()
        hosts = Hosts(store, me, host_cache, await host_cache.load(), on, ttl=timing.ttl, grace=timing.grace)
        addresses = Addresses(store, hosts, on.doubtful)
        remote = RemoteEndpoints(store, hosts, listener, endpoint_cache, await endpoint_cache.load())
        networks = Networks(store, hosts, addresses, remote, listener, network_cache, await network_cache.load())
        channel = Channel(me, lambda: hosts.live, remote.hear, wake=on.came) if advertise else None
        announce = channel.announce if channel else _nobody
        endpoints = Endpoints(store, hosts, networks, addresses, remote, listener, announce, on.doubtful)
        sweeper = Sweeper(store, hosts, networks, endpoints.wants, on, undecided=timing.undecided)
        caches = (host_cache, network_cache, endpoint_cache)
        return cls(store, hosts, networks, addresses, endpoints, remote, channel, sweeper, caches, on)

    @property
    def channel(self) -> Channel | None:
        """The control channel to other hosts, if there is one."""
        return self._channel if self._channel is not None and self._channel.is_open else None

    async def start(
        self,
        own: Iterable[EndpointRecord] = (),
        kept: Iterable[Kept] = (),
        *,
        probes: bool = True,
    ) -> None:
        """Become a member, and go on with the endpoints and addresses that this host has from before.

        Does not wait for the store. Without `probes` the overlay's path to other hosts is not checked.
        """
        for item in kept:
            self.addresses.adopt(item.network_id, item.container_id, [item.address])
        self.endpoints.adopt(own)
        await self._open_channel(probes)
        for job, name in (
            (self.hosts.keep, "being a member of the cluster"),
            (self.hosts.watch, "watching the cluster's hosts"),
            (self.networks.watch, "watching global networks"),
            (self.endpoints.replay, "telling the cluster what it has missed"),
            (self._sweeper.run, "sweeping the cluster store"),
            (self._sweeper.settle_doubts, "giving back what was claimed in vain"),
            (self._resync, "telling the cluster this host's endpoints"),
            (self._reconsider, "following hosts that come and go"),
            *((cache.write, "keeping what is known of the cluster") for cache in self._caches),
        ):
            self._tasks.keep_running(job, name)

    async def _open_channel(self, probes: bool) -> None:
        me = self.hosts.me
        if self._channel is None:
            return
        try:
            await self._channel.open(probes=probes)
        except OSError as error:
            # networks work without it: the store tells everything, if a little later
            log.error("no control channel with other hosts on %s port %d: %s", me.advertise, CONTROL_PORT, error)
            return
        self._tasks.keep_running(self._channel.watch_paths, "checking the ways to other hosts")

    async def close(self) -> None:
        """Leave everything as it is: the host stays a member until its lease runs out."""
        await self._tasks.close()
        if self.channel is not None:
            await self.channel.close()
        for part in (self.remote, self.addresses, self.networks, self.hosts):
            await part.close()
        for cache in self._caches:
            await cache.flush()
        await self.store.close()

    async def _resync(self) -> None:
        returned = self._happenings.registered
        while True:
            await returned.wait()
            returned.clear()
            try:
                await self.endpoints.resync()
            except Unavailable as error:
                log.info("%s; this host's endpoints are told again", error)
                returned.set()
                await asyncio.sleep(0.5)
            except BaseException:
                returned.set()
                raise

    async def _reconsider(self) -> None:
        while True:
            await self._happenings.moved.wait()
            self._happenings.moved.clear()
            await self.remote.reconsider()


def _nobody(endpoint: EndpointRecord, gone: bool) -> None:
    """Whom a host tells of its endpoints that the others know no way to."""
