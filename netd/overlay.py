"""Global networks on this host: made and joined through the cluster, in the kernel while a container is on them.

The cluster says which networks and endpoints there are on all hosts; here that becomes tunnels' peers, names for
the resolver, and what `network ls` and `inspect` show.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import logging
import secrets
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_interface
from typing import Any

from drivers import spec
from drivers.kernel import Kernel
from netd import cluster_view
from netd.cluster.cluster import Cluster, Kept
from netd.cluster.model import EndpointRecord, GlobalNetwork
from netd.endpoints import generated_mac, normal_mac, parse_links, requested_address
from netd.errors import Forbidden, NotFound, Unavailable
from netd.ipam.validate import PoolRequest
from netd.model import EndpointIPAMConfig, EndpointSettings, Network
from netd.names import Names
from netd.networks import LiveNetwork, Member, NetworkManager, network_spec
from netd.sandbox import Endpoint, Sandbox
from netd.way_out import WayOut

log = logging.getLogger(__name__)


class Overlays:
    """The global networks, as this host takes part in them."""

    def __init__(self, cluster: Cluster, networks: NetworkManager, kernel: Kernel, names: Names) -> None:
        self._cluster = cluster
        self._networks = networks
        self._kernel = kernel
        self._names = names
        self.way_out = WayOut(networks)
        self.on_lost: Callable[[str, str], Coroutine[None, None, None]] = _nobody
        self._joining: dict[str, asyncio.Lock] = {}
        self._present: set[str] = set()  # networks that are in this host's kernel
        self._leaving: set[asyncio.Task[None]] = set()
        # endpoints that ended while no daemon ran, by container and network: what is started again gets them back
        self._former: dict[tuple[str, str], Endpoint] = {}
        self._started = False

    # ---- networks ---------------------------------------------------------------------------------------

    def load(self) -> None:
        """Show the networks that were known when the last daemon stopped."""
        for network in self._cluster.networks.items.values():
            self._networks.show(network.record)

    async def create(self, record: Network, pools: Iterable[PoolRequest]) -> None:
        """Make a network for all hosts; nothing is left of it if this fails."""
        pools = tuple(pools)
        wanted = network_spec(record)
        self._kernel.validate_network(dataclasses.replace(wanted, vtep=self._vtep()), ())
        await self._cluster.networks.create(record, pools, await self._kernel.host_routes())

    async def remove(self, network_id: str) -> None:
        await self._cluster.networks.remove(network_id)

    async def refresh(self) -> None:
        """Learn of the networks that other hosts made a moment ago."""
        await self._cluster.networks.refresh()

    async def network_appeared(self, network: GlobalNetwork) -> None:
        taken = next((n for n in self._networks.live.values() if n.record.name == network.record.name), None)
        if taken is not None and taken.record.scope != "global":
            log.error("global network %s is hidden here by a local one of that name", network.record.name)
        self._networks.show(network.record)

    async def network_gone(self, network: GlobalNetwork) -> None:
        self._networks.hide(network.record)
        self._cluster.addresses.drop(network.id)

    async def hosts(self) -> list[dict[str, Any]]:
        """The cluster's hosts, as `netd hosts` shows them: who is there, and what is wrong with the way to them."""
        return await cluster_view.hosts(self._cluster)

    def problems(self) -> dict[str, str]:
        """What is wrong with each host of the cluster or the way to it; empty where nothing is."""
        return cluster_view.problems(self._cluster)

    async def inspect_host(self, name: str) -> dict[str, Any]:
        """One host with its endpoints and all that is known of the way to it."""
        return await cluster_view.host(self._cluster, name)

    # ---- this host's endpoints --------------------------------------------------------------------------

    async def join(
        self,
        live: LiveNetwork,
        settings: EndpointSettings,
        sandbox: Sandbox,
        *,
        ifname: str,
        names: Sequence[str],
        services: Sequence[str],
    ) -> Endpoint:
        """An endpoint that every host knows of when this returns; its network is in this host's kernel then.

        A static address belongs to the container rather than the endpoint: it is kept when the container stops.
        """
        network = await self._cluster.networks.get(live.record.id)
        former = self._former.get((sandbox.container_id, network.id))
        endpoint_id = former.id if former else secrets.token_hex(32)
        asked = settings.ipam_config or EndpointIPAMConfig()
        try:
            owners = endpoint_id, sandbox.container_id
            had4, had6 = (former.ipv4, former.ipv6) if former else ("", "")
            ipv4 = await self._address(network, owners, 4, asked.ipv4_address, had4)
            ipv6 = await self._address(network, owners, 6, asked.ipv6_address, had6)
            endpoint = Endpoint(
                id=endpoint_id,
                network_id=network.id,
                network=live.record.name,
                ifname=ifname,
                mac=normal_mac(settings.mac_address) if settings.mac_address else generated_mac(ipv4),
                ipv4=ipv4,
                ipv6=ipv6,
                internal=live.record.internal,
                scope="global",
                names=tuple(dict.fromkeys(n for n in names if n)),
                links=parse_links(settings.links or ()),
                services=tuple(services),
            )
            await self._cluster.endpoints.put(_record(endpoint, sandbox))
        except BaseException:
            with contextlib.suppress(Unavailable):  # given back once the store answers
                await self._cluster.addresses.release(network.id, endpoint_id)
            raise
        try:
            await self._ensure(network)
        except BaseException:
            await self._cluster.endpoints.remove(endpoint_id)
            raise
        self._former.pop((sandbox.container_id, network.id), None)
        return endpoint

    async def _address(
        self, network: GlobalNetwork, owners: tuple[str, str], version: int, wanted: str, had: str
    ) -> str:
        """The address `wanted`, or the one `had` before if it is still free, or any."""
        if not wanted and not any((":" in c.subnet) == (version == 6) for c in network.record.ipam.config or ()):
            return ""
        address = requested_address(wanted, version)
        owner = owners[address is not None]
        if had and address is None:
            try:
                former = ip_interface(had).ip
                return str(await self._cluster.addresses.allocate(network, owner, version=version, wanted=former))
            except Forbidden:
                log.error("%s was taken meanwhile: its container gets another address", former)
        return str(await self._cluster.addresses.allocate(network, owner, version=version, wanted=address))

    async def keep(self, live: LiveNetwork, addresses: Iterable[str], container_id: str) -> None:
        """Keep static addresses for a container that is not running; what cannot be kept now shows at its start."""
        with contextlib.suppress(Forbidden, NotFound, Unavailable):
            network = await self._cluster.networks.get(live.record.id)
            for text in filter(None, addresses):
                await self._cluster.addresses.allocate(network, container_id, wanted=ip_address(text))
                live.reserved[ip_address(text)] = container_id

    def let_go(self, container_id: str, network_id: str | None = None) -> None:
        """Give back what is kept for a container, on one network or on all, after the endpoints that leave now."""
        leaving = tuple(self._leaving)
        for held in self._cluster.addresses.networks_of(container_id):
            if network_id in (None, held):
                self._in_background(self._give_back(held, container_id, leaving))

    async def _give_back(self, network_id: str, container_id: str, leaving: Iterable[asyncio.Task[None]]) -> None:
        await asyncio.gather(*leaving, return_exceptions=True)
        with contextlib.suppress(Unavailable):  # given back once the store answers
            await self._cluster.addresses.release(network_id, container_id)

    async def _ensure(self, network: GlobalNetwork) -> None:
        """Have the network in the kernel, with the endpoints of other hosts as peers and names."""
        async with self._joining.setdefault(network.id, asyncio.Lock()):
            if network.id in self._present:
                return
            await self._kernel.ensure_network(self._spec(network))
            remote = self._cluster.remote.on(network.id)
            await self._kernel.ensure_peers(network.id, [_peer(e) for e in remote])
            await self._tell_names(network.record)
            self._present.add(network.id)

    async def _tell_names(self, record: Network) -> None:
        await self._names.put_network(record, self._networks.endpoints(self._networks.live[record.id]))

    async def rename(self, sandbox: Sandbox, renamed: Sandbox) -> None:
        """Tell the other hosts the new names of a container's endpoints.

        Raises `Forbidden` if another container of a network has the name, or `Unavailable`; then nothing has changed.
        """
        told = []
        try:
            for endpoint in filter(_is_global, renamed.endpoints):
                await self._cluster.endpoints.put(_record(endpoint, renamed))
                told.append(endpoint.id)
        except BaseException:
            for endpoint in sandbox.endpoints:
                if endpoint.id in told:
                    await self._cluster.endpoints.put(_record(endpoint, sandbox))
            raise

    def left(self, endpoint: Endpoint, container_id: str) -> None:
        """An endpoint of this host is gone; the network leaves the kernel with the last one."""
        if not self._started:
            self._former[container_id, endpoint.network_id] = endpoint
        self._in_background(self._leave(endpoint))

    async def _leave(self, endpoint: Endpoint) -> None:
        await self._cluster.endpoints.remove(endpoint.id)
        async with self._joining.setdefault(endpoint.network_id, asyncio.Lock()):
            live = self._networks.live.get(endpoint.network_id)
            if (live is not None and live.members) or endpoint.network_id not in self._present:
                return
            self._present.discard(endpoint.network_id)
            await self._kernel.remove_network(endpoint.network_id)
            await self._names.delete_network(endpoint.network_id)

    def _in_background(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    # ---- other hosts' endpoints -------------------------------------------------------------------------

    def remote(self, network_id: str) -> list[Endpoint]:
        """The endpoints of other hosts on a network this host is on."""
        return [_shown(e) for e in self._cluster.remote.on(network_id)]

    async def everywhere(self, live: LiveNetwork) -> list[Member]:
        """A network's members on all hosts, also if this one is not on it.

        Then the store is asked; while that is away nobody is known to be on it.
        """
        me, network_id = self._cluster.hosts.me, live.record.id
        here = [dataclasses.replace(member, host=me.name, vtep=me.advertise) for member in live.members.values()]
        if network_id in self._present:
            return [*here, *map(_member, self._cluster.remote.on(network_id))]
        with contextlib.suppress(Unavailable):
            here += [_member(e) for e in await self._cluster.endpoints.listed(network_id) if e.host != me.name]
        return here

    async def endpoints_changed(
        self, network_id: str, present: Sequence[EndpointRecord], gone: Sequence[EndpointRecord]
    ) -> None:
        async with self._joining.setdefault(network_id, asyncio.Lock()):
            if network_id not in self._present:
                return  # `_ensure` takes them all
            for endpoint in gone:
                await self._names.leave(_shown(endpoint))
                await self._kernel.remove_peer(network_id, endpoint.id)
            for endpoint in present:
                await self._kernel.put_peer(network_id, _peer(endpoint))
                await self._names.join(_shown(endpoint))

    async def endpoint_lost(self, endpoint: EndpointRecord, reason: str) -> None:
        log.error(
            "container %s is taken from a global network: %s; restart it, or connect it again, for another address",
            *(endpoint.name, reason),
        )
        # whoever starts or stops the container now holds its lock, and may wait for the cluster
        self._in_background(self.on_lost(endpoint.container_id, endpoint.id))

    # ---- after a restart --------------------------------------------------------------------------------

    def specs(self) -> list[spec.Network]:
        """The global networks that containers of this host are on."""
        live = self._networks.live
        return [self._spec(n) for n in self._cluster.networks.items.values() if n.id in live and live[n.id].members]

    async def start(self, sandboxes: Iterable[Sandbox]) -> None:
        """Become a member of the cluster, with the endpoints that this host has from before."""
        self._present |= {network.id for network in self.specs()}
        self._started = True
        own = [_record(e, s) for s in sandboxes for e in s.endpoints if e.scope == "global"]
        await self._cluster.start(self, own, list(self._kept()))
        for network_id in self._present:
            remote = self._cluster.remote.on(network_id)
            if remote:
                await self._kernel.ensure_peers(network_id, [_peer(e) for e in remote])

    def _kept(self) -> Iterator[Kept]:
        for live in self._networks.live.values():
            if live.record.scope == "global":
                used = {a: m.container_id for m in live.members.values() for a in m.endpoint.addresses}
                for address, owner in live.reserved.items():
                    if used.get(str(address), owner) == owner:
                        yield Kept(live.record.id, owner, str(address))

    def _spec(self, network: GlobalNetwork) -> spec.Network:
        wanted = network_spec(network.record)
        vnis = iter(network.vnis)
        if any(subnet.pool.version == 6 for subnet in wanted.subnets):
            # an endpoint is in one VXLAN with all its addresses: so all subnets share one
            vnis = itertools.repeat(network.vnis[0])
        subnets = tuple(dataclasses.replace(subnet, vni=next(vnis)) for subnet in wanted.subnets)
        return dataclasses.replace(wanted, subnets=subnets, vtep=self._vtep())

    def _vtep(self) -> IPv4Address | IPv6Address:
        advertise = self._cluster.hosts.me.advertise
        if not advertise:
            raise Forbidden("this host cannot join a global network: its daemon runs without --cluster-advertise")
        return ip_address(advertise)


async def _nobody(container_id: str, endpoint_id: str) -> None:
    """Until somebody wants to know of lost endpoints."""


def _is_global(endpoint: Endpoint) -> bool:
    return endpoint.scope == "global"


def _record(endpoint: Endpoint, sandbox: Sandbox) -> EndpointRecord:
    return EndpointRecord(
        id=endpoint.id,
        network_id=endpoint.network_id,
        name=sandbox.name,
        mac=endpoint.mac,
        ipv4=endpoint.ipv4,
        ipv6=endpoint.ipv6,
        names=endpoint.names,
        services=endpoint.services,
        container_id=sandbox.container_id,
    )


def _peer(record: EndpointRecord) -> spec.Peer:
    addresses = tuple(ip_address(a) for a in record.addresses)
    return spec.Peer(record.id, record.mac, addresses, ip_address(record.vtep))


def _member(record: EndpointRecord) -> Member:
    # another host's endpoint has no container here (fact 4.23)
    return Member(f"ep-{record.id}", record.name, _shown(record), record.host, record.vtep)


def _shown(record: EndpointRecord) -> Endpoint:
    """Another host's endpoint as this host's resolver and `network inspect` see it."""
    return Endpoint(
        id=record.id,
        network_id=record.network_id,
        network="",
        mac=record.mac,
        ipv4=record.ipv4,
        ipv6=record.ipv6,
        scope="global",
        names=record.names,
        services=record.services,
    )
