"""What the resolver is told: a record for each endpoint, a view for each sandbox.

The resolver being away never fails an operation, nor does it hold one up for long: what it did not take is marked as
dirty, and told again until it has it (`reconciler.py`). So whoever tells it has changed what is told of before.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from typing import TypeVar

from dns.client import (
    Explanation,
    LogEntry,
    Port,
    Ports,
    Record,
    Resolver,
    ResolverAway,
    ResolverError,
    ResolverState,
    Route,
    Upstream,
    View,
    check_record,
)
from kvstore.contract import StoreError
from netd.config.servers import split_route
from netd.config.values import Config
from netd.core.errors import InvalidParameter, Unavailable
from netd.core.records import Records
from netd.model.networks import Network, StaticRecord
from netd.model.sandboxes import Endpoint, Sandbox
from netd.names import resolvconf
from netd.names.dirty import Dirty
from netd.names.hostresolv import HostResolvConf
from netd.names.static import StaticRecords

log = logging.getLogger(__name__)

T = TypeVar("T")

PATIENCE = 2.0  # seconds an operation waits for the resolver, once; from then on it is away until it is found again
_RETRY_SECONDS = 0.2  # until a resolver process that has gone has a successor


@dataclass(frozen=True, slots=True)
class Sockets:
    """What the resolver needs to answer a namespace: its sockets on 127.0.0.11, and the namespace itself."""

    udp: socket.socket
    tcp: socket.socket
    namespace: int  # a descriptor


class Names:
    """The resolver as the managers see it. `away` while it does not answer: then nothing is told, only marked."""

    def __init__(
        self,
        resolver: Resolver,
        static: Records[tuple[StaticRecord, ...]],
        config: Callable[[], Config],
        host: HostResolvConf | None = None,
    ) -> None:
        self.dirty = Dirty()
        self.host = host or HostResolvConf()
        self.away = False
        self._resolver = resolver
        self._static = StaticRecords(static)
        self._dropped: set[str] = set()  # networks whose static records the store still has
        self._config = config

    async def load(self) -> None:
        """Read the static records."""
        await self._static.load()

    # ---- networks ---------------------------------------------------------------------------------------

    async def put_network(self, network: Network, endpoints: Iterable[Endpoint] = ()) -> None:
        """Tell a network's whole table: its endpoints and its static records."""
        subnets = [item.subnet for item in network.ipam.config or ()]
        records = [record(e) for e in endpoints if e.names]
        static = [given.line for given in self.static(network.id)]
        put = partial(
            self._resolver.put_network, network.id, network.name, records, network.options, subnets, static=static
        )
        await self._tell(put, partial(self.dirty.mark_network, network.id))

    async def delete_network(self, network_id: str) -> None:
        """Take a network's table from the resolver; its static records stay, as do the other hosts on it."""
        delete = partial(self._resolver.delete_network, network_id)
        await self._tell(delete, partial(self.dirty.mark_network, network_id))

    async def join(self, endpoint: Endpoint) -> None:
        """The endpoint's names resolve from now on, for every sandbox on its network."""
        if endpoint.names:
            join = partial(self._resolver.join, endpoint.network_id, record(endpoint))
            await self._tell(join, partial(self.dirty.mark_network, endpoint.network_id))

    async def leave(self, endpoint: Endpoint) -> None:
        """They do no more."""
        if endpoint.names:
            leave = partial(self._resolver.leave, endpoint.network_id, endpoint.id)
            await self._tell(leave, partial(self.dirty.mark_network, endpoint.network_id))

    # ---- static records ---------------------------------------------------------------------------------

    def static(self, network_id: str) -> tuple[StaticRecord, ...]:
        """A network's static records."""
        return self._static.of(network_id)

    async def add_static(self, network_id: str, given: StaticRecord, check: Callable[[], object]) -> None:
        """Add a record, unless `check` raises an error: it is called when nobody else changes the network's records.

        Only what is stored is told: what is refused does not resolve.
        """
        try:
            check_record(given.line)
        except ResolverError as error:
            raise InvalidParameter(str(error)) from None
        async with self._static.added(network_id, given, check) as new:
            if new:
                put = partial(self._resolver.put_record, network_id, given.line)
                await self._tell(put, partial(self.dirty.mark_network, network_id))

    async def remove_static(self, network_id: str, name: str, kind: str) -> None:
        """Remove a name's records, of one type or (`kind` empty) of all."""
        async with self._static.removed(network_id, name, kind):
            delete = partial(self._resolver.delete_record, network_id, name, kind)
            await self._tell(delete, partial(self.dirty.mark_network, network_id))

    async def drop_static(self, network_id: str) -> None:
        """A network is gone, on all hosts: so are its static records, now or as soon as the store lets go of them."""
        self._dropped.add(network_id)
        try:
            await self.finish_drops(network_id)
        except StoreError as error:
            log.error("the static records of network %s are not removed yet: %s", network_id[:12], error)
            self.dirty.mark_network(network_id)

    async def finish_drops(self, network_id: str) -> None:
        """Remove them if that is still to be done."""
        if network_id in self._dropped:
            await self._static.drop(network_id)
            self._dropped.discard(network_id)

    # ---- sandboxes --------------------------------------------------------------------------------------

    async def serve(self, sandbox: Sandbox, sockets: Sockets | None = None) -> Ports | None:
        """Answer this sandbox's questions, on these sockets if they are new; None if the resolver does not yet."""
        pair = (sockets.udp, sockets.tcp) if sockets else None
        put = partial(self._resolver.put_sandbox, self._view(sandbox), pair, sockets.namespace if sockets else None)
        return await self._tell(put, partial(self.dirty.mark_sandbox, sandbox.id))

    async def forget(self, sandbox_id: str) -> None:
        """Answer them no more."""
        forget = partial(self._resolver.delete_sandbox, sandbox_id)
        await self._tell(forget, partial(self.dirty.mark_sandbox, sandbox_id))

    def _view(self, sandbox: Sandbox) -> View:
        effective = self.settings(sandbox)
        return View(
            sandbox=sandbox.id,
            container=sandbox.name,
            networks=tuple(e.network_id for e in sandbox.ordered if not e.predefined),
            links={e.network_id: e.links for e in sandbox.endpoints if e.links},
            upstreams=tuple(
                Upstream(address, port, host=not effective.own_servers)
                for address, port in resolvconf.upstreams(effective)
            ),
            search=effective.conf.search,
            options=effective.conf.options,
            routes=tuple(
                _route(route, host=not sandbox.dns_routes) for route in sandbox.dns_routes or self._config().dns_routes
            ),
            internal=sandbox.gateway4 is None and sandbox.gateway6 is None,
        )

    def settings(self, sandbox: Sandbox) -> resolvconf.Settings:
        """The sandbox's DNS settings: its own flags, then the daemon's, then the host's file."""
        config = self._config()
        return resolvconf.settings(
            self.host.text,
            (sandbox.dns, sandbox.dns_search, sandbox.dns_options),
            (config.dns, config.dns_search, config.dns_opts),
        )

    # ---- questions --------------------------------------------------------------------------------------

    async def explain(self, sandbox: Sandbox, name: str, kind: str) -> Explanation:
        """How a question of this sandbox would be answered, and why."""
        try:
            return await self._resolver.explain(sandbox.id, name, kind)
        except ResolverAway as error:
            raise Unavailable(str(error)) from None
        except ResolverError as error:
            raise InvalidParameter(str(error)) from None

    async def follow(self, sandbox_id: str = "") -> AsyncGenerator[LogEntry]:
        """The queries from now on, of one sandbox or of all; goes on with the next resolver process."""
        while True:
            with contextlib.suppress(ResolverError):
                async with contextlib.aclosing(self._resolver.follow(sandbox_id)) as entries:
                    async for entry in entries:
                        yield entry
            await asyncio.sleep(_RETRY_SECONDS)

    async def state(self) -> ResolverState:
        """Who answers names, and how many were answered."""
        return await self.find() or ResolverState(kernel=self._resolver.kernel)

    # ---- telling ----------------------------------------------------------------------------------------

    async def find(self) -> ResolverState | None:
        """What the resolver has; None while it is away, which it no longer is if it answers."""
        try:
            async with asyncio.timeout(PATIENCE):
                state = await self._resolver.state()
        except (ResolverError, TimeoutError) as error:
            self._is_away(error)
            return None
        if self.away:
            log.info("the resolver answers again")
        self.away = False
        return state

    async def _tell(self, call: Callable[[], Awaitable[T]], mark: Callable[[], None]) -> T | None:
        """Tell the resolver now, or `mark` what it has to be told later."""
        if not self.away:
            try:
                async with asyncio.timeout(PATIENCE):
                    return await call()
            except (ResolverAway, TimeoutError) as error:
                self._is_away(error)
            except ResolverError as error:
                log.info("the resolver refuses what it is told, it is told more: %s", error)
        mark()
        return None

    def _is_away(self, error: Exception) -> None:
        if not self.away:
            log.warning("the resolver does not answer, names are told again when it does: %s", error or "too slow")
        self.away = True


def record(endpoint: Endpoint) -> Record:
    """An endpoint's names and addresses as the resolver keeps them."""
    return Record(
        endpoint.id,
        endpoint.names,
        tuple(ip_address(a) for a in endpoint.addresses),
        tuple(Port(int(number), proto) for number, _, proto in (s.partition("/") for s in endpoint.services)),
    )


def _route(text: str, *, host: bool) -> Route:
    domain, servers = split_route(text)
    return Route(domain, tuple(Upstream(address, port, host) for address, port in servers))
