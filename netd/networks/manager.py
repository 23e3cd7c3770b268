"""Networks: creating, finding, showing and removing them; who is on them. How they are kept is their scope's affair."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from drivers import spec
from drivers.spec import DriverError
from kvstore.contract import StoreError
from netd.core.errors import NetdError, NotFound, Unavailable
from netd.core.events import EventBus
from netd.core.filters import Filters
from netd.core.teardown import Teardown
from netd.core.times import timestamp
from netd.model.networks import ConfigReference, Network, NetworkCreate
from netd.model.sandboxes import Endpoint, Sandbox
from netd.networks import view
from netd.networks.endpoints import EndpointRequest, new_id
from netd.networks.live import LiveNetwork, LiveNetworks, Member
from netd.networks.request import plan
from netd.networks.scope import Scope, Scopes

log = logging.getLogger(__name__)


class NetworkManager:
    """All networks of this host."""

    def __init__(self, table: LiveNetworks, scopes: Scopes, events: EventBus) -> None:
        self.live = table.items
        self._table = table
        self._scopes = scopes
        self._events = events

    async def load(self) -> None:
        """Bring back what was there when the last daemon stopped."""
        for scope in self._scopes:
            await scope.load()

    async def start(self, sandboxes: Iterable[Sandbox]) -> None:
        """Go on with the endpoints that this host has from before."""
        members = [Member(s.container_id, s.name, endpoint) for s in sandboxes for endpoint in s.endpoints]
        for scope in self._scopes:
            await scope.start([m for m in members if self._scopes.of(m.endpoint) is scope])

    def specs(self) -> list[spec.Network]:
        """Every network that has something in the kernel."""
        return [found for scope in self._scopes for found in scope.specs()]

    async def settle(self, network_id: str) -> None:
        """Have the kernel follow what has become of a network, where it could not at once."""
        for scope in self._scopes:
            await scope.settle(network_id)

    # ---- finding ----------------------------------------------------------------------------------------

    def find(self, ref: str) -> LiveNetwork:
        """By full id, exact name or unique id prefix, in this order (fact 2.67)."""
        return self._table.find(ref)

    async def find_anywhere(self, ref: str) -> LiveNetwork:
        """The same, also for a network that another host made a moment ago. Raises `NotFound` or `Unavailable`."""
        try:
            return self.find(ref)
        except NotFound:
            for scope in self._scopes:
                await scope.refresh()
            return self.find(ref)

    def by_name(self, name: str) -> LiveNetwork:
        """By its exact name only."""
        return self._table.by_name(name)

    async def inspect(self, ref: str, *, scope: str = "") -> dict[str, Any]:
        """One network as Docker shows it, with its members on all hosts."""
        live = self.find(ref)
        if scope not in ("", live.record.scope):
            raise NotFound(f"network {ref} not found")
        return view.inspect(live, await self._scopes.of(live.record).members(live))

    def list(self, filters: Filters) -> list[dict[str, Any]]:
        """The networks that pass the filters (fact 2.84)."""
        view.check_filters(filters)
        return [view.inspect(n) for n in self.live.values() if view.passes(n, filters)]

    # ---- changing ---------------------------------------------------------------------------------------

    async def create(self, request: NetworkCreate) -> tuple[str, str]:
        """Make a network; returns its id and a warning. Nothing is changed if it fails."""
        known = {n.record.name: n.record for n in self.live.values() if not n.removing}
        planned = plan(request, known)
        record = Network(
            name=request.name,
            id=new_id(),
            created=timestamp(),
            scope=planned.scope,
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
        with self._table.naming(record.name, record.config_from.network):
            await self._scopes.of(record).create(record, planned.pools)
        self._publish("create", record)
        return record.id, ""

    async def decided(self, name: str) -> None:
        """Wait until nobody is making or removing a network of this name."""
        await self._table.decided(name)

    async def remove(self, ref: str) -> None:
        """Remove a network that nobody is on (facts 2.71 to 2.73)."""
        await self._remove(self.find(ref))

    async def _remove(self, live: LiveNetwork) -> None:
        self._table.removable(live)
        await self._scopes.of(live.record).remove(live)
        if not live.record.config_only:
            self._publish("destroy", live.record)

    async def prune(self, filters: Filters) -> Sequence[str]:
        """Remove the networks nobody is on; returns their names (fact 2.75).

        One that cannot be removed, or has gone meanwhile, is passed over with a word in the log, as Docker does.
        """
        filters.check("label", "label!", "until")
        prunable = _prunable(filters)
        gone = await asyncio.gather(*(self._prune(scope, prunable) for scope in self._scopes))
        return [name for names in gone for name in names]

    async def _prune(self, scope: Scope, prunable: Callable[[LiveNetwork], bool]) -> Sequence[str]:
        gone = []
        for live in [n for n in self.live.values() if self._scopes.of(n.record) is scope and prunable(n)]:
            try:
                await self._remove(live)
                gone.append(live.record.name)
            except (NetdError, DriverError, StoreError) as error:
                log.warning("network %s is not pruned: %s", live.record.name, error)
                if isinstance(error, Unavailable):
                    break  # the others would only wait for it too
        return gone

    def _publish(self, action: str, record: Network) -> None:
        self._events.publish("network", action, record.id, {"name": record.name, "type": record.driver})

    # ---- members ----------------------------------------------------------------------------------------

    async def join(self, live: LiveNetwork, sandbox: Sandbox, request: EndpointRequest) -> Endpoint:
        """A new endpoint, with addresses: from now on the network cannot be removed. Give it back with `leave`."""
        return await self._scopes.of(live.record).join(live, sandbox, request)

    def adopt(self, member: Member) -> None:
        """Count a member that an earlier daemon left, and take its addresses again."""
        live = self.live.get(member.endpoint.network_id)
        if live is not None:
            self._scopes.of(live.record).adopt(live, member)

    def has(self, endpoint: Endpoint) -> bool:
        """Whether somebody on this host has an endpoint of its id."""
        live = self.live.get(endpoint.network_id)
        return live is not None and endpoint.id in live.members

    def leave(self, endpoint: Endpoint) -> None:
        """Give an endpoint's addresses back and forget it; an unknown one is fine."""
        self._scopes.of(endpoint).left(endpoint)

    async def rename(self, sandbox: Sandbox, renamed: Sandbox) -> None:
        """Tell everywhere the new names of a container's endpoints.

        Raises `Forbidden` if another container of a network has the name, or `Unavailable`; then nothing has changed.
        """
        told = []
        try:
            for endpoint in renamed.endpoints:
                told.append(endpoint.id)
                await self._scopes.of(endpoint).rename(endpoint, renamed)
        except BaseException:
            teardown = Teardown(f"the new name of {sandbox.name}")
            for endpoint in sandbox.endpoints:
                if endpoint.id in told[:-1]:
                    with teardown.step(f"name on {endpoint.network}"):
                        await self._scopes.of(endpoint).rename(endpoint, sandbox)
            teardown.tell()
            raise

    def count(self, member: Member) -> None:
        """An endpoint's container has another name."""
        live = self.live.get(member.endpoint.network_id)
        if live is not None and member.endpoint.id in live.members:
            live.members[member.endpoint.id] = member

    def may_lose(self, network: str) -> bool:
        """Whether a container may be without an endpoint on a network that it was connected to."""
        live = self._table.named(network)
        return live is None or self._scopes.of(live.record).loses

    def endpoints(self, live: LiveNetwork) -> Sequence[Endpoint]:
        """All endpoints of a network, those on other hosts included."""
        return self._scopes.of(live.record).endpoints(live)

    # ---- static addresses of containers that do not run -------------------------------------------------

    async def reserve(self, network: str, addresses: Iterable[str], owner: str) -> None:
        """Keep static addresses for a container, as far as they can be."""
        live = self._table.named(network)
        if live is not None:
            await self._scopes.of(live.record).keep(live, addresses, owner)

    def reserve_again(self, network: str, addresses: Iterable[str], owner: str) -> None:
        """The same after a restart, where the cluster is told of all at once."""
        live = self._table.named(network)
        if live is not None:
            self._scopes.of(live.record).remember(live, addresses, owner)

    def unreserve(self, owner: str, network_id: str | None = None) -> None:
        """Let go of a container's static addresses, on one network or on all."""
        for scope in self._scopes:
            scope.let_go(owner, network_id)


def _prunable(filters: Filters) -> Callable[[LiveNetwork], bool]:
    older = filters.until()

    def prunable(live: LiveNetwork) -> bool:
        record = live.record
        idle = not (live.predefined or live.members or record.config_only)
        return idle and filters.labels(record.labels) and older(record.created)

    return prunable
