"""What the resolver is told: a record for each endpoint, a view for each sandbox.

The resolver being away never fails an operation: names are told again when it is back (`restore`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address

from dns.client import (
    Explanation,
    LogEntry,
    Port,
    Ports,
    Record,
    Resolver,
    ResolverError,
    ResolverState,
    Route,
    Upstream,
    View,
)
from netd import resolvconf
from netd.config import Config
from netd.errors import InvalidParameter, NotFound, Unavailable
from netd.model import Network, StaticRecord
from netd.namespaces import Sockets
from netd.records import Records
from netd.sandbox import Endpoint, Sandbox

log = logging.getLogger(__name__)

_RETRY_SECONDS = 0.2  # until a resolver process that has gone has a successor


class Names:
    """The resolver as the managers see it."""

    def __init__(
        self, resolver: Resolver, static: Records[tuple[StaticRecord, ...]], config: Callable[[], Config]
    ) -> None:
        self._resolver = resolver
        self._static = static
        self._config = config

    async def load(self) -> None:
        """Read the static records."""
        await self._static.load()

    async def put_network(self, network: Network, endpoints: Iterable[Endpoint] = ()) -> None:
        """Tell a network's whole table: its endpoints and its static records."""
        subnets = [item.subnet for item in network.ipam.config or ()]
        with _resolver_may_be_away():
            await self._resolver.put_network(
                network.id, network.name, [record(e) for e in endpoints], network.options, subnets
            )
            for given in self.static(network.id):
                await self._resolver.put_record(network.id, given.line)

    async def delete_network(self, network_id: str) -> None:
        """Let the resolver forget a network; its static records are kept for when it is told of it again."""
        with _resolver_may_be_away():
            await self._resolver.delete_network(network_id)

    async def drop_static(self, network_id: str) -> None:
        """The network itself is gone, and its static records with it."""
        if self.static(network_id):
            await self._static.delete(network_id)

    # ---- static records ---------------------------------------------------------------------------------

    def static(self, network_id: str) -> tuple[StaticRecord, ...]:
        """A network's static records."""
        return self._static.items.get(network_id, ())

    async def add_static(self, network_id: str, given: StaticRecord) -> None:
        """Add a record; the resolver says if it cannot be one."""
        if given in self.static(network_id):
            return
        with self._resolver_must_answer():
            await self._resolver.put_record(network_id, given.line)
        await self._static.save(network_id, (*self.static(network_id), given))

    async def remove_static(self, network_id: str, name: str, kind: str) -> None:
        """Remove a name's records, of one type or (`kind` empty) of all."""
        kept = tuple(r for r in self.static(network_id) if r.name != name or kind not in ("", r.type))
        if len(kept) == len(self.static(network_id)):
            raise NotFound(f"there is no static record {name} {kind}".rstrip())
        await self._static.put(network_id, kept)
        with _resolver_may_be_away():
            await self._resolver.delete_record(network_id, name, kind)

    # ---- questions --------------------------------------------------------------------------------------

    async def explain(self, sandbox: Sandbox, name: str, kind: str) -> Explanation:
        """How a question of this sandbox would be answered, and why."""
        with self._resolver_must_answer():
            return await self._resolver.explain(sandbox.id, name, kind)

    async def follow(self, sandbox_id: str = "") -> AsyncGenerator[LogEntry]:
        """The queries from now on, of one sandbox or of all; goes on with the next resolver process."""
        while True:
            with contextlib.suppress(ResolverError):
                async with contextlib.aclosing(self._resolver.follow(sandbox_id)) as entries:
                    async for entry in entries:
                        yield entry
            await asyncio.sleep(_RETRY_SECONDS)

    @contextmanager
    def _resolver_must_answer(self) -> Iterator[None]:
        """What it refuses is the user's mistake, unless it is not there."""
        try:
            yield
        except ResolverError as error:
            raise (Unavailable if self._resolver.lost.is_set() else InvalidParameter)(str(error)) from None

    async def state(self) -> ResolverState:
        """Who answers names, and how many were answered."""
        try:
            return await self._resolver.state()
        except ResolverError:
            return ResolverState(kernel=self._resolver.kernel)

    # ---- endpoints and sandboxes ------------------------------------------------------------------------

    async def join(self, endpoint: Endpoint) -> None:
        """The endpoint's names resolve from now on, for every sandbox on its network."""
        if endpoint.names:
            with _resolver_may_be_away():
                await self._resolver.join(endpoint.network_id, record(endpoint))

    async def leave(self, endpoint: Endpoint) -> None:
        if endpoint.names:
            with _resolver_may_be_away():
                await self._resolver.leave(endpoint.network_id, endpoint.id)

    async def serve(self, sandbox: Sandbox, sockets: Sockets | None = None) -> Ports | None:
        """Answer this sandbox's questions, on these sockets if they are new; None while the resolver is away."""
        ports: list[Ports] = []
        with _resolver_may_be_away():
            pair = (sockets.udp, sockets.tcp) if sockets else None
            fd = sockets.namespace if sockets else None
            ports.append(await self._resolver.put_sandbox(self._view(sandbox), pair, fd))
        return ports[0] if ports else None

    async def forget(self, sandbox_id: str) -> None:
        with _resolver_may_be_away():
            await self._resolver.delete_sandbox(sandbox_id)

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
        host = resolvconf.host_file()
        return resolvconf.settings(
            host.read_text() if host.exists() else "",
            (sandbox.dns, sandbox.dns_search, sandbox.dns_options),
            (config.dns, config.dns_search, config.dns_opts),
        )


def record(endpoint: Endpoint) -> Record:
    """An endpoint's names and addresses as the resolver keeps them."""
    return Record(
        endpoint.id,
        endpoint.names,
        tuple(ip_address(a) for a in endpoint.addresses),
        tuple(Port(int(number), proto) for number, _, proto in (s.partition("/") for s in endpoint.services)),
    )


def _route(text: str, *, host: bool) -> Route:
    domain, servers = resolvconf.split_route(text)
    return Route(domain, tuple(Upstream(address, port, host) for address, port in servers))


@contextmanager
def _resolver_may_be_away() -> Iterator[None]:
    try:
        yield
    except ResolverError as error:
        log.warning("the resolver does not answer, its names will be told again: %s", error)
