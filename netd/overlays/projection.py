"""Global networks on this host: in the table as the cluster tells, in the kernel while a container is on them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from ipaddress import ip_address

from drivers import spec
from drivers.kernel import Kernel
from drivers.spec import DriverError
from netd.cluster.model import EndpointRecord, GlobalNetwork
from netd.core.locks import Locks
from netd.core.teardown import Teardown
from netd.model.sandboxes import Endpoint
from netd.names.resolver import Names
from netd.networks.live import LiveNetworks

log = logging.getLogger(__name__)


class Projection:
    """The cluster's `Listener`. Endpoints that this host loses are put into `lost`, for whoever holds them."""

    def __init__(self, table: LiveNetworks, kernel: Kernel, names: Names) -> None:
        self.lost: asyncio.Queue[EndpointRecord] = asyncio.Queue()
        self._table = table
        self._kernel = kernel
        self._names = names
        self._present: set[str] = set()  # networks that are in this host's kernel
        self._behind: set[str] = set()  # of these, those that may have other peers than they should
        self._left: set[str] = set()  # networks that are to be gone, of which the kernel may still have something
        self._changing = Locks()

    # ---- in the kernel, or not --------------------------------------------------------------------------

    def __contains__(self, network_id: str) -> bool:
        return network_id in self._present

    async def adopt(self, network_ids: Collection[str], remote: Callable[[str], Sequence[EndpointRecord]]) -> None:
        """These are in the kernel from before; their peers may be others by now."""
        self._present.update(network_ids)
        for network_id in network_ids:
            if peers := [_peer(e) for e in remote(network_id)]:
                try:
                    await self._kernel.ensure_peers(network_id, peers)
                except DriverError as error:
                    log.error("network %s has the peers from before, not those of now: %s", network_id[:12], error)
                    self._fall_behind(network_id)

    async def ensure(self, network: spec.Network, remote: Callable[[str], Sequence[EndpointRecord]]) -> None:
        """Have a network in the kernel, with the endpoints of other hosts as peers and names."""
        async with self._changing.of(network.id):
            if network.id in self._present:
                return
            try:
                await self._kernel.ensure_network(network)
                await self._kernel.ensure_peers(network.id, [_peer(e) for e in remote(network.id)])
                await self._tell_names(network.id, remote(network.id))
            except BaseException:
                await self._clear(network.id)
                raise
            self._present.add(network.id)
            self._behind.discard(network.id)
            self._left.discard(network.id)

    async def _tell_names(self, network_id: str, remote: Sequence[EndpointRecord]) -> None:
        """Those of other hosts: this host's are told one by one, once they are recorded."""
        live = self._table.items.get(network_id)
        if live is not None:
            await self._names.put_network(live.record, map(shown, remote))

    async def leave_unused(self, network_id: str) -> None:
        """Take a network out of the kernel if nobody here is on it."""
        async with self._changing.of(network_id):
            live = self._table.items.get(network_id)
            if network_id in self._present and not (live is not None and live.members):
                self._present.discard(network_id)
                await self._clear(network_id)

    async def _clear(self, network_id: str) -> None:
        self._left.add(network_id)
        teardown = Teardown(f"network {network_id[:12]}")
        with teardown.step("bridge and tunnel"):
            await self._remove(network_id)
        with teardown.step("names"):
            await self._names.delete_network(network_id)
        teardown.tell()
        if teardown.errors:
            self._names.dirty.mark_network(network_id)

    async def _remove(self, network_id: str) -> None:
        await self._kernel.remove_network(network_id)
        self._left.discard(network_id)

    def _fall_behind(self, network_id: str) -> None:
        self._behind.add(network_id)
        self._names.dirty.mark_network(network_id)

    async def settle(self, network_id: str, remote: Callable[[str], Sequence[EndpointRecord]]) -> None:
        """Have the kernel follow, where it could not at once."""
        async with self._changing.of(network_id):
            if network_id in self._left:
                await self._remove(network_id)
            if network_id in self._behind & self._present:
                await self._kernel.ensure_peers(network_id, [_peer(e) for e in remote(network_id)])
            self._behind.discard(network_id)

    # ---- what the cluster tells -------------------------------------------------------------------------

    async def network_appeared(self, network: GlobalNetwork) -> None:
        taken = self._table.named(network.record.name)
        if taken is not None and taken.record.scope != network.record.scope:
            log.error("global network %s is hidden here by a local one of that name", network.record.name)
        self._table.show(network.record)

    async def network_gone(self, network: GlobalNetwork) -> None:
        self._table.hide(network.id)
        await self._names.drop_static(network.id)

    async def endpoints_changed(
        self, network_id: str, present: Sequence[EndpointRecord], gone: Sequence[EndpointRecord]
    ) -> None:
        async with self._changing.of(network_id):
            if network_id not in self._present:
                return  # `ensure` takes them all
            for endpoint in gone:
                with self._by_itself(endpoint):
                    await self._names.leave(shown(endpoint))
                    await self._kernel.remove_peer(network_id, endpoint.id)
            for endpoint in present:
                with self._by_itself(endpoint):
                    await self._kernel.put_peer(network_id, _peer(endpoint))
                    await self._names.join(shown(endpoint))

    async def endpoint_lost(self, endpoint: EndpointRecord, reason: str) -> None:
        log.error(
            "container %s is taken from a global network: %s; restart it, or connect it again, for another address",
            *(endpoint.name, reason),
        )
        self.lost.put_nowait(endpoint)

    @contextmanager
    def _by_itself(self, endpoint: EndpointRecord) -> Iterator[None]:
        """One of several changes: if it fails the others follow all the same, and it does so later."""
        try:
            yield
        except Exception:
            log.exception("container %s on host %s could not be followed yet", endpoint.name, endpoint.host)
            self._fall_behind(endpoint.network_id)


def _peer(record: EndpointRecord) -> spec.Peer:
    addresses = tuple(ip_address(a) for a in record.addresses)
    return spec.Peer(record.id, record.mac, addresses, ip_address(record.vtep))


def shown(record: EndpointRecord) -> Endpoint:
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
