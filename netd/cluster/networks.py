"""Global networks: made and removed by any host, without a lock.

Creating claims the name, the subnets and the VNI and then writes the network, which exists from then on.
Removing first marks it, so that nobody joins any more, looks for endpoints, deletes it and gives back the
claims. Whatever a crash leaves half done is either marked as being removed or a claim without its network.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network

import msgspec
from msgspec.structs import replace

from kvstore.contract import Entry, KeyExists, Store, VersionMismatch
from netd.cluster.addresses import Addresses
from netd.cluster.cache import Cache
from netd.cluster.calls import follow, in_time, is_gone, patiently
from netd.cluster.claims import Claims
from netd.cluster.hosts import Hosts
from netd.cluster.model import ENDPOINTS, EndpointRecord, GlobalNetwork, Listener, decode_endpoint
from netd.cluster.remote_endpoints import RemoteEndpoints
from netd.cluster.spaces import allocate_vni
from netd.core.errors import Conflict, Forbidden, InvalidParameter, NotFound, Unavailable
from netd.core.tasks import Tasks
from netd.ipam.pools import GLOBAL_POOLS, PoolAllocator
from netd.ipam.validate import PoolRequest, is_any, reserved_by_subnet
from netd.model.networks import IPAMConfig, Network

log = logging.getLogger(__name__)

PREFIX = "networks/"
DOUBT = 1.0  # seconds between two looks whether a network still exists of which the watch has told nothing
FLICKER = 2.0  # seconds a joining host waits for a removal that may still be refused
REMOVED = 1024  # networks removed here that are remembered
VXLANID_LISTS = ("com.docker.network.driver.overlay.vxlanid_list", "vxlanid_list")
Prefix = IPv4Network | IPv6Network


class Networks:
    """All global networks; `items` survives the store being away."""

    def __init__(
        self,
        store: Store,
        hosts: Hosts,
        addresses: Addresses,
        remote: RemoteEndpoints,
        listener: Listener,
        cache: Cache[GlobalNetwork],
        known: Mapping[str, GlobalNetwork],
    ) -> None:
        host = hosts.me.name
        self.items: dict[str, GlobalNetwork] = dict(known)
        self._store = store
        self._hosts = hosts
        self._addresses = addresses
        self._remote = remote
        self._listener = listener
        self._cache = cache
        self._versions: dict[str, int] = {}
        self._removed: dict[str, None] = {}  # here, lately: a watch that lags behind may still tell of them
        self._names = Claims(store, "names", host)
        self._vnis = Claims(store, "vni", host)
        self._subnets = Claims(store, "subnets", host)
        self._watched: set[str] = set()  # the watch has told of them, and will tell of their end
        self._tasks = Tasks()
        self._telling = asyncio.Lock()

    # ---- creating ---------------------------------------------------------------------------------------

    async def create(
        self, wanted: Network, pools: Sequence[PoolRequest], avoid: Iterable[Prefix] = ()
    ) -> GlobalNetwork:
        """Make a network for all hosts; its id is new. `avoid` are subnets that this host reaches otherwise.

        Raises `Conflict` (the name), `Forbidden` (VNIs), `InvalidParameter` or `Unavailable`; then nothing is
        left of it, as soon as the store answers.
        """
        count = max(1, sum(not pool.v6 for pool in pools))
        asked = vnis_asked(wanted.options, count)
        await self._hosts.member()
        try:
            async with in_time():
                if not await self._names.take(wanted.name, wanted.id):
                    raise Conflict(f"network with name {wanted.name} already exists")
                config = [await self._pool(pool, wanted.id, avoid) for pool in pools]
                vnis = await self._vnis_for(wanted.id, count, asked)
                record = msgspec.structs.replace(
                    wanted, scope="global", ipam=msgspec.structs.replace(wanted.ipam, config=config)
                )
                network = GlobalNetwork(record=record, vnis=vnis, host=self._hosts.me.name)
                entry = await patiently(lambda: self._write(network))
        except BaseException:
            self._tasks.start(self._undo(wanted.id), f"undo network {wanted.name}")
            raise
        await self._learn(entry)
        return network

    async def _write(self, network: GlobalNetwork) -> Entry:
        key = PREFIX + network.id
        try:
            return await self._store.create(key, msgspec.json.encode(network))
        except KeyExists:
            if (entry := await self._store.get(key)) is None:
                raise
            return entry  # written by the try before, whose answer was lost

    async def _pool(self, pool: PoolRequest, network_id: str, avoid: Iterable[Prefix]) -> IPAMConfig:
        subnet = pool.subnet
        if subnet is None or is_any(subnet):
            subnet = await self._free_subnet(pool, network_id, avoid)
        inside = (a for a in pool.ip_range or subnet if a not in reserved_by_subnet(subnet))
        gateway = pool.gateway or next(a for a in inside if a not in pool.aux.values())
        return IPAMConfig(
            subnet=str(subnet),
            ip_range=str(pool.ip_range) if pool.ip_range else "",
            gateway=str(gateway),
            auxiliary_addresses={name: str(a) for name, a in pool.aux.items()} or None,
        )

    async def _vnis_for(self, network_id: str, count: int, asked: Sequence[int]) -> tuple[int, ...]:
        taken: list[int] = []
        for _ in range(count):
            left = [vni for vni in asked if vni not in taken]
            taken.append(await allocate_vni(self._store, self._hosts.me.name, network_id, left))
        return tuple(taken)

    async def _free_subnet(self, pool: PoolRequest, network_id: str, avoid: Iterable[Prefix]) -> Prefix:
        """The lowest subnet that no network of the cluster has, claimed."""
        await self._subnets.refresh()
        # every network has a unique-local block of its own (RFC 4193), so v6 subnets never clash
        lowest = PoolAllocator(GLOBAL_POOLS, host_id=network_id)
        claimed = (_subnet(name) for name in self._subnets.held)
        used = {*self.subnets(), *claimed, *avoid}
        while True:
            subnet = await lowest.request(pool.subnet, v6=pool.v6, avoid=used)
            if await self._subnets.take(_subnet_name(subnet), network_id):
                return subnet

    def subnets(self) -> list[Prefix]:
        """Of all global networks, as far as this host knows."""
        return [ip_network(c.subnet) for n in self.items.values() for c in n.record.ipam.config or ()]

    # ---- removing ---------------------------------------------------------------------------------------

    async def remove(self, network_id: str) -> None:
        """Remove a network that has no endpoint on any host.

        Raises `NotFound`, `Forbidden` (endpoints) or `Unavailable`; a removal that was interrupted is finished
        by whichever host looks next.
        """
        await self._hosts.member()
        removed = False
        try:
            async with in_time():
                await patiently(lambda: self._remove(network_id))
                removed = True
                self._passed_over(network_id)
                await self.release_claims(network_id)
        except Unavailable:
            if not removed:
                raise
            # the network is gone: what it has claimed is given back once the store answers
            self._tasks.start(self._undo(network_id), f"give back what network {network_id[:12]} had")
        await self._delete(network_id)

    def _passed_over(self, network_id: str) -> None:
        """Whatever a watch may still tell of a network, it is gone."""
        self._removed[network_id] = None
        while len(self._removed) > REMOVED:
            del self._removed[next(iter(self._removed))]

    async def _remove(self, network_id: str) -> None:
        while True:
            entry = await self._store.get(PREFIX + network_id)
            if entry is None:
                if network_id in self.items:
                    return  # removed by the try before, or by another host
                raise NotFound(f"network {network_id} not found")
            network = decode(entry)
            try:
                marked = await self._mark(entry, network, removing=True)
                if present := await self._endpoints(network_id):
                    await self._mark(marked, network, removing=False)
                    raise Forbidden(_in_use(network, present))
                await self._store.delete(marked.key, marked.version)
                return
            except VersionMismatch:
                continue

    async def _mark(self, entry: Entry, network: GlobalNetwork, *, removing: bool) -> Entry:
        """Also when it is so already: under the new version no removal begun before goes on."""
        value = msgspec.json.encode(replace(network, removing=removing))
        return await self._store.cas(entry.key, value, entry.version)

    async def _endpoints(self, network_id: str) -> list[EndpointRecord]:
        """The endpoints of hosts that are there; what others left is removed on the way."""
        present = []
        for entry in await self._store.list(f"{ENDPOINTS}{network_id}/"):
            endpoint = decode_endpoint(entry)
            if await self._hosts.is_absent(endpoint.host):
                await self._store.delete(entry.key, entry.version)
            else:
                present.append(endpoint)
        return present

    async def release_claims(self, network_id: str) -> None:
        """Give back all that a network has claimed. It must not exist any more."""
        for claims in (self._names, self._subnets, self._vnis):
            await claims.refresh()
            for name in [n for n, claim in claims.held.items() if claim.owner == network_id]:
                await claims.release(name, network_id)
        for prefix in (f"ipam/{network_id}/", f"epname/{network_id}/"):
            for entry in await patiently(lambda prefix=prefix: self._store.list(prefix)):  # type: ignore[misc]
                await patiently(lambda key=entry.key: self._store.delete(key))  # type: ignore[misc]

    async def _undo(self, network_id: str) -> None:
        """Leave nothing of a creation that failed, however long the store is away."""
        while True:
            try:
                await patiently(lambda: self._store.delete(PREFIX + network_id))
                return await self.release_claims(network_id)
            except Unavailable:
                await asyncio.sleep(1)

    # ---- joining ----------------------------------------------------------------------------------------

    async def check_joinable(self, network_id: str) -> None:
        """Raise `NotFound` or `Conflict` unless the store itself has this network, and not being removed.

        Ask after an endpoint's record is written: either this sees the removal, or the removal the endpoint.
        """
        until = asyncio.get_running_loop().time() + FLICKER
        while True:
            entry = await self._store.get(PREFIX + network_id)
            if entry is None:
                raise NotFound(f"network {network_id} not found")
            network = decode(entry)
            if not network.removing:
                return
            if asyncio.get_running_loop().time() > until:
                raise Conflict(f"network {network.record.name} is being removed")
            await asyncio.sleep(0.05)

    # ---- knowing ----------------------------------------------------------------------------------------

    async def get(self, network_id: str) -> GlobalNetwork:
        """A network by its id, also one made elsewhere a moment ago. Raises `NotFound` or `Unavailable`."""
        if network_id not in self.items:
            entry = await patiently(lambda: self._store.get(PREFIX + network_id))
            if entry is None:
                raise NotFound(f"network {network_id} not found")
            await self._learn(entry)
        return self.items[network_id]

    async def refresh(self) -> None:
        """Learn of the networks that were made elsewhere a moment ago. Raises `Unavailable`."""
        for entry in await patiently(lambda: self._store.list(PREFIX)):
            if entry.key.removeprefix(PREFIX) not in self.items:
                await self._learn(entry)

    async def watch(self) -> None:
        """Keep `items` up to date and tell the listener, for ever; run it as a task."""
        async for change in follow(self._store, PREFIX, [PREFIX + id for id in self.items]):
            for key in change.deletes:
                await self._delete(key.removeprefix(PREFIX))
                self._removed.pop(key.removeprefix(PREFIX), None)
            for entry in change.puts.values():
                self._watched.add(entry.key.removeprefix(PREFIX))
                await self._put(entry)

    async def _learn(self, entry: Entry) -> None:
        """Take up a network ahead of the watch."""
        await self._put(entry)
        network_id = entry.key.removeprefix(PREFIX)
        self._tasks.start(self._doubt(network_id), f"doubting network {network_id[:12]}")

    async def _doubt(self, network_id: str) -> None:
        """The watch never tells of a network that came and went between two of its looks."""

        def doubtful() -> bool:
            return network_id in self.items and network_id not in self._watched

        if await is_gone(self._store, PREFIX + network_id, doubtful, DOUBT):
            await self._delete(network_id)

    async def _put(self, entry: Entry) -> None:
        network = decode(entry)
        async with self._telling:
            if self._versions.get(network.id) == entry.version or network.id in self._removed:
                return
            self._versions[network.id] = entry.version
            before, self.items[network.id] = self.items.get(network.id), network
            self._cache.put(network.id, network)
            if before is None or before.record != network.record:
                await _told(self._listener.network_appeared(network))

    async def _delete(self, network_id: str) -> None:
        async with self._telling:
            network = self.items.pop(network_id, None)
            self._versions.pop(network_id, None)
            self._watched.discard(network_id)
            self._cache.delete(network_id)
            if network is not None:
                self._addresses.drop(network_id)
                self._remote.drop(network_id)
                await _told(self._listener.network_gone(network))

    async def close(self) -> None:
        await self._tasks.close()


def vnis_asked(options: Mapping[str, str], subnets: int) -> list[int]:
    """The option `vxlanid_list`; `InvalidParameter` if it is malformed or shorter than there are subnets."""
    text = next((options[name] for name in VXLANID_LISTS if options.get(name)), "")
    if not text:
        return []
    vnis = []
    for item in text.split(","):
        if not item.strip().isdecimal() or not 0 < int(item) < 1 << 24:
            raise InvalidParameter(f'invalid vxlan id value "{item.strip()}" passed')
        vnis.append(int(item))
    if len(vnis) < subnets:
        raise InvalidParameter(f"insufficient vnis({len(vnis)}) passed to overlay")
    return vnis


def decode(entry: Entry) -> GlobalNetwork:
    return msgspec.json.decode(entry.value, type=GlobalNetwork)


async def _told(telling: Awaitable[None]) -> None:
    try:
        await telling
    except Exception:
        log.exception("a change of a global network could not be followed")


def _in_use(network: GlobalNetwork, endpoints: Iterable[EndpointRecord]) -> str:
    told = ", ".join(f'name:"{e.name}" id:"{e.id[:12]}" on host {e.host}' for e in endpoints)
    name = network.record.name
    return f"error while removing network: network {name} id {network.id} has active endpoints ({told})"


def _subnet_name(subnet: Prefix) -> str:
    return str(subnet).replace("/", "_")


def _subnet(name: str) -> Prefix:
    return ip_network(name.replace("_", "/"))
