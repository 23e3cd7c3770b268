"""Networks of this host alone: bridges, and the predefined ones. Nothing here waits for a cluster's store."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address

from msgspec.structs import replace

from drivers import spec
from drivers.kernel import Kernel
from netd.config.values import Config
from netd.core.records import Records
from netd.core.teardown import Teardown
from netd.ipam.pools import PoolAllocator
from netd.ipam.validate import PoolRequest, is_any
from netd.model.networks import Network
from netd.model.sandboxes import Endpoint, Sandbox
from netd.names.resolver import Names
from netd.networks.endpoints import EndpointRequest, local_endpoint
from netd.networks.live import LiveNetwork, LiveNetworks, Member
from netd.networks.pools import Addresses, resolved
from netd.networks.predefined import Predefined
from netd.networks.request import PREDEFINED
from netd.networks.spec import network_spec

log = logging.getLogger(__name__)


class LocalScope:
    """The local `Scope`."""

    loses = False

    def __init__(
        self,
        table: LiveNetworks,
        records: Records[Network],
        pools: PoolAllocator,
        kernel: Kernel,
        names: Names,
        config: Config,
    ) -> None:
        self._table = table
        self._records = records
        self._pools = pools
        self._kernel = kernel
        self._names = names
        self._config = config
        self._left: set[str] = set()  # networks that are gone, though the kernel may still have something of them
        self._changing = asyncio.Lock()  # of what two networks may not both have: devices, subnets

    # ---- networks ---------------------------------------------------------------------------------------

    async def load(self) -> None:
        """Bring the stored networks back to life and make the three predefined ones if they are missing."""
        await self._records.load()
        present = {}
        for key, record in sorted(self._records.items.items(), key=lambda item: item[1].created):
            try:
                await self._bring_back(record)
                present[record.name] = record
            except Exception as error:
                log.error("the record of network %s makes no sense, it is left alone: %s", record.name, error)
                self._records.disbelieve(key)
        predefined = Predefined(self._records, self._pools, self._kernel)
        for name in PREDEFINED:
            if name not in present:
                self._show(await predefined.make(name, self._config))
        if "bridge" in present:
            self._show(await predefined.readdressed(present["bridge"], self._config))

    async def _bring_back(self, record: Network) -> None:
        """A stored network, with its subnets; if this fails, none of them is taken."""
        subnets = () if record.config_only else network_spec(record).subnets
        if record.name == "bridge" and not subnets:
            raise ValueError("it has no subnet")
        taken: list[IPv4Network | IPv6Network] = []
        try:
            for subnet in subnets:
                pool = await self._pools.request(subnet=subnet.pool)
                taken.append(pool)
            self._show(record)
        except BaseException:
            for pool in taken:
                self._pools.release(pool)
            raise

    def _show(self, record: Network) -> None:
        self._table.put(LiveNetwork(record, Addresses() if record.config_only else Addresses.of(record)))

    async def start(self, members: Iterable[Member]) -> None:
        """They are there since `load`."""

    async def refresh(self) -> None:
        """Nobody else makes any."""

    def specs(self) -> list[spec.Network]:
        return [
            network_spec(record)
            for record in self._records.items.values()
            if record.driver == "bridge" and not record.config_only
        ]

    async def create(self, record: Network, pools: Sequence[PoolRequest]) -> None:
        async with self._changing:
            if record.config_only:
                await self._records.add(record.id, record)
            else:
                record = await self._create_bridge(record, pools)
            self._show(record)
            if not record.config_only:
                await self._names.put_network(record)

    async def _create_bridge(self, record: Network, pools: Sequence[PoolRequest]) -> Network:
        taken: list[IPv4Network | IPv6Network] = []
        try:
            existing = self.specs()
            options_only = dataclasses.replace(network_spec(record), subnets=())
            self._kernel.validate_network(options_only, existing)
            config = []
            for pool in pools:
                subnet = await self._take_pool(pool)
                taken.append(subnet)
                config.append(resolved(pool, subnet))
            record = replace(record, ipam=replace(record.ipam, config=config))
            wanted = network_spec(record)
            self._kernel.validate_network(wanted, existing)
            await self._kernel.ensure_network(wanted)
            await self._records.add(record.id, record)
            return record
        except BaseException:
            teardown = Teardown(f"network {record.name}")
            with teardown.step("record"):
                await self._records.delete(record.id)
            await self._clear(record, taken, teardown)
            raise

    async def _take_pool(self, pool: PoolRequest) -> IPv4Network | IPv6Network:
        automatic = pool.subnet is None or is_any(pool.subnet)
        avoid = await self._kernel.host_routes() if automatic else ()
        return await self._pools.request(subnet=pool.subnet, v6=pool.v6, avoid=avoid)

    async def remove(self, live: LiveNetwork) -> None:
        """Once the record is gone so is the network: what cannot be cleared after that is told in the log."""
        async with live.changing, self._changing:
            self._table.removable(live)
            live.removing = True  # from here on nobody joins
            try:
                await self._records.delete(live.record.id)
            except BaseException:
                live.removing = False
                raise
            self._table.hide(live.record.id)
            if not live.record.config_only:
                await self._clear(
                    live.record,
                    [space.pool for space in live.addresses.spaces],
                    Teardown(f"network {live.record.name}"),
                )

    async def _clear(self, record: Network, subnets: Iterable[IPv4Network | IPv6Network], teardown: Teardown) -> None:
        """Leave nothing of a network that has no record, in whatever state it is: now, or as soon as it can be."""
        self._left.add(record.id)
        with teardown.step("bridge and rules"):
            await self.settle(record.id)
        with teardown.step("names"):
            await self._names.delete_network(record.id)
        with teardown.step("static DNS records"):
            await self._names.drop_static(record.id)
        for subnet in subnets:
            self._pools.release(subnet)
        teardown.tell()
        if teardown.errors:
            self._names.dirty.mark_network(record.id)

    async def settle(self, network_id: str) -> None:
        if network_id in self._left:
            await self._kernel.remove_network(network_id)
            self._left.discard(network_id)

    # ---- endpoints --------------------------------------------------------------------------------------

    async def join(self, live: LiveNetwork, sandbox: Sandbox, request: EndpointRequest) -> Endpoint:
        """Awaits nothing: it is there, with its network, or it is not."""
        self._table.joinable(live)
        endpoint = local_endpoint(live, request)
        live.members[endpoint.id] = Member(sandbox.container_id, sandbox.name, endpoint)
        return endpoint

    def adopt(self, live: LiveNetwork, member: Member) -> None:
        live.members[member.endpoint.id] = member
        for text in member.endpoint.addresses:
            live.addresses.claim(ip_address(text))

    def left(self, endpoint: Endpoint) -> None:
        live = self._table.items.get(endpoint.network_id)
        if live is not None and live.members.pop(endpoint.id, None) is not None:
            for text in endpoint.addresses:
                live.addresses.release(ip_address(text))

    async def rename(self, endpoint: Endpoint, sandbox: Sandbox) -> None:
        """Nobody else knows them."""

    # ---- static addresses -------------------------------------------------------------------------------

    async def keep(self, live: LiveNetwork, addresses: Iterable[str], owner: str) -> None:
        self.remember(live, addresses, owner)

    def remember(self, live: LiveNetwork, addresses: Iterable[str], owner: str) -> None:
        for text in filter(None, addresses):
            live.addresses.keep(ip_address(text), owner)

    def let_go(self, owner: str, network_id: str | None = None) -> None:
        for live in self._table.items.values():
            if network_id in (None, live.record.id):
                live.addresses.let_go(owner)

    # ---- telling ----------------------------------------------------------------------------------------

    async def members(self, live: LiveNetwork) -> Sequence[Member]:
        return tuple(live.members.values())

    def endpoints(self, live: LiveNetwork) -> Sequence[Endpoint]:
        return [member.endpoint for member in live.members.values()]
