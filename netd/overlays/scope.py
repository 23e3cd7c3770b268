"""Networks of the whole cluster: made and joined through its store, as far as this host takes part in them."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import logging
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_interface

from drivers import spec
from drivers.kernel import Kernel
from netd.cluster.cluster import Cluster, Kept
from netd.cluster.model import EndpointRecord, GlobalNetwork
from netd.core.errors import Forbidden, NotFound, Unavailable
from netd.core.tasks import Tasks
from netd.ipam.validate import PoolRequest
from netd.model.networks import Network
from netd.model.sandboxes import Endpoint, Sandbox
from netd.networks.endpoints import EndpointRequest, addressed, blank_endpoint, new_id
from netd.networks.live import LiveNetwork, LiveNetworks, Member
from netd.networks.settings import Asked
from netd.networks.spec import network_spec
from netd.overlays.projection import Projection, shown

log = logging.getLogger(__name__)

Address = IPv4Address | IPv6Address


class Overlays:
    """The global `Scope`."""

    loses = True

    def __init__(self, table: LiveNetworks, cluster: Cluster, projection: Projection, kernel: Kernel) -> None:
        self._table = table
        self._cluster = cluster
        self._projection = projection
        self._kernel = kernel
        self._leaving = Tasks()
        self._giving_back = Tasks()
        # endpoints that ended while no daemon ran, by container and network: what is started again gets them back
        self._former: dict[tuple[str, str], Endpoint] = {}
        self._remembered: dict[tuple[str, str], str] = {}  # by network and address: whom it is kept for
        self._started = False

    # ---- networks ---------------------------------------------------------------------------------------

    async def load(self) -> None:
        """Show the networks that were known when the last daemon stopped."""
        for network in self._cluster.networks.items.values():
            self._table.show(network.record)

    async def start(self, members: Iterable[Member]) -> None:
        """Become a member of the cluster, with the endpoints that this host has from before."""
        present = [network.id for network in self.specs()]
        self._started = True
        await self._cluster.start([_record(member) for member in members], list(self._kept()))
        self._remembered.clear()
        await self._projection.adopt(present, self._cluster.remote.on)

    def _kept(self) -> Iterator[Kept]:
        """What is remembered, but for addresses that another container has now."""
        for (network_id, address), owner in self._remembered.items():
            live = self._table.items[network_id]
            holders = {m.container_id for m in live.members.values() if address in m.endpoint.addresses}
            if holders <= {owner}:
                yield Kept(network_id, owner, address)

    async def close(self) -> None:
        """Leave the rest to the next daemon."""
        await self._giving_back.close()
        await self._leaving.close()

    async def refresh(self) -> None:
        await self._cluster.networks.refresh()

    async def create(self, record: Network, pools: Sequence[PoolRequest]) -> None:
        wanted = network_spec(record)
        self._kernel.validate_network(dataclasses.replace(wanted, vtep=self._vtep()), ())
        await self._cluster.networks.create(record, pools, await self._kernel.host_routes())

    async def remove(self, live: LiveNetwork) -> None:
        """The store has the last word: somebody may be on it, here or elsewhere, whom nobody has told of yet."""
        async with live.changing:
            self._table.removable(live)
            await self._cluster.networks.remove(live.record.id)

    async def settle(self, network_id: str) -> None:
        await self._projection.settle(network_id, self._cluster.remote.on)

    def specs(self) -> list[spec.Network]:
        """The global networks that containers of this host are on."""
        live = self._table.items
        return [self._spec(n) for n in self._cluster.networks.items.values() if n.id in live and live[n.id].members]

    def _spec(self, network: GlobalNetwork) -> spec.Network:
        wanted = network_spec(network.record)
        vnis = iter(network.vnis)
        if any(subnet.pool.version == 6 for subnet in wanted.subnets):
            # an endpoint is in one VXLAN with all its addresses: so all subnets share one
            vnis = itertools.repeat(network.vnis[0])
        subnets = tuple(dataclasses.replace(subnet, vni=next(vnis)) for subnet in wanted.subnets)
        return dataclasses.replace(wanted, subnets=subnets, vtep=self._vtep())

    def _vtep(self) -> Address:
        advertise = self._cluster.hosts.me.advertise
        if not advertise:
            raise Forbidden("this host cannot join a global network: its daemon runs without --cluster-advertise")
        return ip_address(advertise)

    # ---- endpoints of this host -------------------------------------------------------------------------

    async def join(self, live: LiveNetwork, sandbox: Sandbox, request: EndpointRequest) -> Endpoint:
        """Every host knows of the endpoint when this returns; its network is in this host's kernel then.

        A static address belongs to the container rather than the endpoint: it is kept when the container stops.
        """
        network = await self._cluster.networks.get(live.record.id)
        asked = Asked.of(request.settings)
        former = self._former.get((sandbox.container_id, network.id))
        blank = blank_endpoint(live, request, asked, former.id if former else new_id())
        try:
            owners = blank.id, sandbox.container_id
            had4, had6 = (former.ipv4, former.ipv6) if former else ("", "")
            ipv4 = await self._address(network, owners, 4, asked.ipv4, had4)
            ipv6 = await self._address(network, owners, 6, asked.ipv6, had6)
            member = Member(sandbox.container_id, sandbox.name, addressed(blank, ipv4, ipv6))
            await self._cluster.endpoints.put(_record(member))
        except BaseException:
            with contextlib.suppress(Unavailable):  # given back once the store answers
                await self._cluster.addresses.release(network.id, blank.id)
            raise
        try:
            await self._projection.ensure(self._spec(network), self._cluster.remote.on)
            self._count(member)
        except BaseException:
            await self._leave(member.endpoint)
            raise
        self._former.pop((sandbox.container_id, network.id), None)
        return member.endpoint

    def _count(self, member: Member) -> None:
        live = self._table.items.get(member.endpoint.network_id)
        if live is None:
            raise NotFound(f"network {member.endpoint.network} not found")
        live.members[member.endpoint.id] = member

    async def _address(
        self, network: GlobalNetwork, owners: tuple[str, str], version: int, wanted: Address | None, had: str
    ) -> str:
        """The address `wanted`, or the one `had` before if it is still free, or any."""
        if wanted is None and not any((":" in c.subnet) == (version == 6) for c in network.record.ipam.config or ()):
            return ""
        owner = owners[wanted is not None]
        if had and wanted is None:
            try:
                former = ip_interface(had).ip
                return str(await self._cluster.addresses.allocate(network, owner, version=version, wanted=former))
            except Forbidden:
                log.error("%s was taken meanwhile: its container gets another address", former)
        return str(await self._cluster.addresses.allocate(network, owner, version=version, wanted=wanted))

    def adopt(self, live: LiveNetwork, member: Member) -> None:
        live.members[member.endpoint.id] = member

    def left(self, endpoint: Endpoint) -> None:
        """The network leaves the kernel with the last one; the store is told beside everything else."""
        live = self._table.items.get(endpoint.network_id)
        member = live.members.pop(endpoint.id, None) if live is not None else None
        if member is not None and not self._started:
            self._former[member.container_id, endpoint.network_id] = endpoint
        self._leaving.start(self._leave(endpoint), f"leave network {endpoint.network}")

    async def _leave(self, endpoint: Endpoint) -> None:
        await self._cluster.endpoints.remove(endpoint.id)
        await self._projection.leave_unused(endpoint.network_id)

    async def rename(self, endpoint: Endpoint, sandbox: Sandbox) -> None:
        await self._cluster.endpoints.put(_record(Member(sandbox.container_id, sandbox.name, endpoint)))

    # ---- static addresses of containers that do not run -------------------------------------------------

    async def keep(self, live: LiveNetwork, addresses: Iterable[str], owner: str) -> None:
        """What cannot be kept now shows at the container's start."""
        for text in filter(None, addresses):
            with contextlib.suppress(Forbidden, NotFound, Unavailable):
                network = await self._cluster.networks.get(live.record.id)
                await self._cluster.addresses.allocate(network, owner, wanted=ip_address(text))

    def remember(self, live: LiveNetwork, addresses: Iterable[str], owner: str) -> None:
        for text in filter(None, addresses):
            self._remembered.setdefault((live.record.id, str(ip_address(text))), owner)

    def let_go(self, owner: str, network_id: str | None = None) -> None:
        """Give back what is kept, after the endpoints that leave now."""
        for held in self._cluster.addresses.networks_of(owner):
            if network_id in (None, held):
                self._giving_back.start(self._give_back(held, owner), f"give back what is kept for {owner[:12]}")
        for key in [key for key in self._former if key[0] == owner and network_id in (None, key[1])]:
            del self._former[key]
        for at in [at for at, kept in self._remembered.items() if kept == owner and network_id in (None, at[0])]:
            del self._remembered[at]

    async def _give_back(self, network_id: str, owner: str) -> None:
        await self._leaving.settled()
        with contextlib.suppress(Unavailable):  # given back once the store answers
            await self._cluster.addresses.release(network_id, owner)

    # ---- telling ----------------------------------------------------------------------------------------

    async def members(self, live: LiveNetwork) -> Sequence[Member]:
        """Also if this host is not on it.

        Then the store is asked; while that is away nobody is known to be on it.
        """
        me, network_id = self._cluster.hosts.me, live.record.id
        here = [dataclasses.replace(member, host=me.name, vtep=me.advertise) for member in live.members.values()]
        if network_id in self._projection:
            return [*here, *map(_member, self._cluster.remote.on(network_id))]
        with contextlib.suppress(Unavailable):
            here += [_member(e) for e in await self._cluster.endpoints.listed(network_id) if e.host != me.name]
        return here

    def endpoints(self, live: LiveNetwork) -> Sequence[Endpoint]:
        remote = map(shown, self._cluster.remote.on(live.record.id))
        return [*(member.endpoint for member in live.members.values()), *remote]


def _record(member: Member) -> EndpointRecord:
    endpoint = member.endpoint
    return EndpointRecord(
        id=endpoint.id,
        network_id=endpoint.network_id,
        name=member.container,
        mac=endpoint.mac,
        ipv4=endpoint.ipv4,
        ipv6=endpoint.ipv6,
        names=endpoint.names,
        services=endpoint.services,
        container_id=member.container_id,
    )


def _member(record: EndpointRecord) -> Member:
    # another host's endpoint has no container here (fact 4.23)
    return Member(f"ep-{record.id}", record.name, shown(record), record.host, record.vtep)
