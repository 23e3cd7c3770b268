"""Networks: creating, finding, showing and removing them; who is on them; their address spaces."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING, Any

import msgspec

from drivers import spec
from drivers.kernel import Kernel
from netd import network_view
from netd.config import Config
from netd.errors import Forbidden, NotFound, Unavailable
from netd.events import EventBus
from netd.filters import Filters
from netd.ipam.addresses import AddressSpace
from netd.ipam.pools import PoolAllocator
from netd.ipam.validate import PoolRequest, is_any
from netd.lookup import by_reference
from netd.model import ConfigReference, Network, NetworkCreate
from netd.names import Names
from netd.network_pools import address_space, resolved
from netd.network_request import PREDEFINED, plan
from netd.predefined import Predefined
from netd.records import Records
from netd.sandbox import Endpoint
from netd.times import timestamp

if TYPE_CHECKING:
    from netd.overlay import Overlays

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Member:
    """An endpoint on a network, and the container that holds it, which may be on another host of the cluster."""

    container_id: str
    container: str
    endpoint: Endpoint
    host: str = ""  # of global networks
    vtep: str = ""


@dataclass(slots=True)
class LiveNetwork:
    """A network with what is only in memory: free addresses and members."""

    record: Network
    spaces: tuple[AddressSpace, ...] = ()
    members: dict[str, Member] = field(default_factory=dict)  # by endpoint id
    # static addresses of containers, kept for them while they are stopped
    reserved: dict[IPv4Address | IPv6Address, str] = field(default_factory=dict)

    def space(self, version: int) -> AddressSpace | None:
        return next((s for s in self.spaces if s.pool.version == version), None)

    def in_use(self, address: IPv4Address | IPv6Address) -> bool:
        """Whether a member has this address now."""
        return any(str(address) in m.endpoint.addresses for m in self.members.values())

    @property
    def predefined(self) -> bool:
        return self.record.name in PREDEFINED


class NetworkManager:
    """All networks of this host."""

    def __init__(
        self,
        records: Records[Network],
        pools: PoolAllocator,
        kernel: Kernel,
        names: Names,
        events: EventBus,
    ) -> None:
        self.live: dict[str, LiveNetwork] = {}
        self._records = records
        self._pools = pools
        self._kernel = kernel
        self._names = names
        self._events = events
        self.overlays: Overlays | None = None  # set where there is a cluster
        self._changing = asyncio.Lock()

    # ---- start ------------------------------------------------------------------------------------------

    async def load(self, config: Config) -> None:
        """Bring the stored networks back to life and make the three predefined ones if they are missing."""
        await self._records.load()
        stored = sorted(self._records.items.values(), key=lambda n: n.created)
        for record in stored:
            for item in record.ipam.config or ():
                if not record.config_only:
                    await self._pools.request(subnet=ip_network(item.subnet))
            self._enliven(record)
        predefined = Predefined(self._records, self._pools, self._kernel)
        present = {record.name: record for record in stored}
        for name in PREDEFINED:
            if name not in present:
                self._enliven(await predefined.make(name, config))
        if "bridge" in present:
            self._enliven(await predefined.readdressed(present["bridge"], config))

    def specs(self) -> list[spec.Network]:
        """Every network that has something in the kernel."""
        return [
            network_spec(n.record)
            for n in self.live.values()
            if n.record.driver == "bridge" and not n.record.config_only
        ] + (self.overlays.specs() if self.overlays else [])

    def _enliven(self, record: Network) -> LiveNetwork:
        # addresses of global networks are the cluster's to give
        pools = () if record.config_only or record.scope == "global" else record.ipam.config or ()
        live = LiveNetwork(record, tuple(address_space(item, f"{record.name} ({record.id})") for item in pools))
        self.live[record.id] = live
        return live

    def show(self, record: Network) -> None:
        """A global network is there, or has changed."""
        live = self.live.get(record.id)
        if live is None:
            self._enliven(record)
        else:
            live.record = record

    def hide(self, record: Network) -> None:
        """A global network is gone."""
        self.live.pop(record.id, None)

    # ---- finding ----------------------------------------------------------------------------------------

    def find(self, ref: str) -> LiveNetwork:
        """By full id, exact name or unique id prefix, in this order (fact 2.67)."""
        return by_reference(ref, self.live, lambda n: n.record.name, "network")

    def by_name(self, name: str) -> LiveNetwork:
        for live in self.live.values():
            if live.record.name == name:
                return live
        raise NotFound(f"network {name} not found")

    async def inspect(self, ref: str, *, scope: str = "") -> dict[str, Any]:
        """One network as Docker shows it, with its members on all hosts."""
        live = self.find(ref)
        if scope and live.record.scope != scope:
            raise NotFound(f"network {ref} not found")
        if live.record.scope == "global" and self.overlays is not None:
            return network_view.inspect(live, await self.overlays.everywhere(live))
        return network_view.inspect(live, live.members.values())

    def list(self, filters: Filters) -> list[dict[str, Any]]:
        """The networks that pass the filters (fact 2.84)."""
        network_view.check_filters(filters)
        return [network_view.inspect(n) for n in self.live.values() if network_view.passes(n, filters)]

    # ---- changing ---------------------------------------------------------------------------------------

    async def create(self, request: NetworkCreate) -> tuple[str, str]:
        """Make a network; returns its id and a warning. Nothing is changed if it fails."""
        async with self._changing:
            known = {n.record.name: n.record for n in self.live.values()}
            planned = plan(request, known, cluster=self.overlays is not None)
            record = Network(
                name=request.name,
                id=_new_id(),
                created=timestamp(),
                scope="local",
                driver=planned.driver,
                enable_ipv6=planned.enable_ipv6,
                enable_ipv4=planned.enable_ipv4,
                internal=request.internal,
                attachable=request.attachable,
                config_only=request.config_only,
                config_from=request.config_from or ConfigReference(),
                options=planned.options,
                labels=planned.labels,
                ipam=planned.ipam,
            )
            if record.config_only:
                await self._records.add(record.id, record)
                self._enliven(record)
            elif record.driver == "overlay":
                await self.cluster().create(record, planned.pools)
            else:
                await self._create_bridge(record, planned.pools)
            self._publish("create", record)
            return record.id, ""

    async def _create_bridge(self, record: Network, pools: Iterable[PoolRequest]) -> None:
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
            record = msgspec.structs.replace(record, ipam=msgspec.structs.replace(record.ipam, config=config))
            wanted = network_spec(record)
            self._kernel.validate_network(wanted, existing)
            await self._kernel.ensure_network(wanted)
            await self._names.put_network(record)
            await self._records.add(record.id, record)
        except BaseException:
            for subnet in taken:
                self._pools.release(subnet)
            await self._names.delete_network(record.id)
            await self._kernel.remove_network(record.id)
            raise
        self._enliven(record)

    async def _take_pool(self, pool: PoolRequest) -> IPv4Network | IPv6Network:
        automatic = pool.subnet is None or is_any(pool.subnet)
        avoid = await self._kernel.host_routes() if automatic else ()
        return await self._pools.request(subnet=pool.subnet, v6=pool.v6, avoid=avoid)

    async def remove(self, ref: str) -> None:
        """Remove a network that nobody is on (facts 2.71 to 2.73)."""
        async with self._changing:
            live = self.find(ref)
            record = live.record
            if live.predefined:
                raise Forbidden(f"{record.name} is a pre-defined network and cannot be removed")
            if live.members:
                raise Forbidden(
                    f"error while removing network: network {record.name} has active endpoints ({_told(live)})"
                )
            if any(n.record.config_from.network == record.name for n in self.live.values()):
                raise Forbidden(f'configuration network "{record.name}" is in use')
            await self._remove(live)

    def cluster(self) -> Overlays:
        """What this host shares with others; `Unavailable` if that is nothing."""
        if self.overlays is None:
            raise Unavailable("this daemon runs without --cluster-store: it has no global networks")
        return self.overlays

    async def _remove(self, live: LiveNetwork) -> None:
        record = live.record
        if record.scope == "global":
            await self.cluster().remove(record.id)
            self._publish("destroy", record)
            return
        del self.live[record.id]  # from here on nobody joins
        try:
            await self._records.delete(record.id)
        except BaseException:
            self.live[record.id] = live
            raise
        for space in live.spaces:
            self._pools.release(space.pool)
        if not record.config_only:
            await self._kernel.remove_network(record.id)
            await self._names.delete_network(record.id)
            await self._names.drop_static(record.id)
            self._publish("destroy", record)

    async def prune(self, filters: Filters) -> Sequence[str]:
        """Remove the networks nobody is on; returns their names (fact 2.75)."""
        filters.check("label", "label!", "until")
        async with self._changing:
            gone = []
            for live in list(self.live.values()):
                record = live.record
                if live.predefined or live.members or record.config_only or not filters.labels(record.labels):
                    continue
                if not filters.until(record.created):
                    continue
                with contextlib.suppress(Forbidden):  # another host is on it
                    await self._remove(live)
                    gone.append(record.name)
            return gone

    def endpoints(self, live: LiveNetwork) -> Sequence[Endpoint]:
        """All endpoints of a network, those on other hosts included."""
        remote = self.overlays.remote(live.record.id) if self.overlays else ()
        return [*(member.endpoint for member in live.members.values()), *remote]

    # ---- members ----------------------------------------------------------------------------------------

    def join(self, member: Member) -> None:
        """Count an endpoint among its network's members: from now on the network cannot be removed."""
        self.live[member.endpoint.network_id].members[member.endpoint.id] = member

    def adopt(self, member: Member) -> None:
        """Count a member that an earlier daemon left, and take its addresses again."""
        live = self.live.get(member.endpoint.network_id)
        if live is None:
            return
        for text in member.endpoint.addresses:
            address = ip_address(text)
            space = live.space(address.version)
            if space is not None and address in space.pool:
                space.claim(address)
        live.members[member.endpoint.id] = member

    def leave(self, endpoint: Endpoint) -> None:
        """Give an endpoint's addresses back and forget it; an unknown one is fine."""
        live = self.live.get(endpoint.network_id)
        member = live.members.pop(endpoint.id, None) if live is not None else None
        if endpoint.scope == "global" and self.overlays is not None:
            self.overlays.left(endpoint, member.container_id if member else "")
        if endpoint.scope == "global" or live is None:
            return
        for text in endpoint.addresses:
            address = ip_address(text)
            space = live.space(address.version)
            if space is not None and address not in live.reserved:
                space.release(address)

    async def reserve(self, network: str, addresses: Iterable[str], owner: str) -> None:
        """Keep static addresses for a container that is not running; one that is taken already is skipped."""
        live = next((n for n in self.live.values() if n.record.name == network), None)
        if live is not None and live.record.scope == "global" and self.overlays is not None:
            await self.overlays.keep(live, addresses, owner)
        else:
            self.reserve_again(network, addresses, owner)

    def reserve_again(self, network: str, addresses: Iterable[str], owner: str) -> None:
        """The same after a restart, where the cluster is told of all at once."""
        live = next((n for n in self.live.values() if n.record.name == network), None)
        for address in map(ip_address, filter(None, addresses)):
            if live is None or address in live.reserved:
                continue
            space = live.space(address.version)
            if live.record.scope == "global":
                live.reserved[address] = owner
            elif space is not None and address in space.pool and not space.in_use(address):
                space.allocate(address)
                live.reserved[address] = owner

    def unreserve(self, owner: str, network_id: str | None = None) -> None:
        """Let go of a container's static addresses, on one network or on all."""
        if self.overlays is not None:
            self.overlays.let_go(owner, network_id)
        for live in self.live.values():
            if network_id not in (None, live.record.id):
                continue
            for address in [a for a, who in live.reserved.items() if who == owner]:
                del live.reserved[address]
                space = live.space(address.version)
                if space is not None and not live.in_use(address):
                    space.release(address)

    def _publish(self, action: str, record: Network) -> None:
        self._events.publish("network", action, record.id, {"name": record.name, "type": record.driver})


def network_spec(record: Network) -> spec.Network:
    """A network as the drivers need it."""
    subnets = tuple(
        spec.Subnet(ip_network(item.subnet), ip_address(item.gateway) if item.gateway else None)
        for item in record.ipam.config or ()
    )
    return spec.Network(record.id, record.name, record.driver, subnets, record.internal, record.options)


def _told(live: LiveNetwork) -> str:
    return ", ".join(f'name:"{m.container}" id:"{m.endpoint.id[:12]}"' for m in live.members.values())


def _new_id() -> str:
    return secrets.token_hex(32)
