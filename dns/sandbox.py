"""One sandbox's resolver: from a message to a reply, at once if it can be, else through the forwarder."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from dnslib import DNSRecord
from dnslib.dns import DNSError
from dnslib.label import DNSLabelError

from dns import answer, wire
from dns.answer import Local, Ready
from dns.control import SandboxView
from dns.forward import Forwarder, Reply
from dns.health import Health
from dns.netns import Namespace
from dns.policy import MAX_SERVERS, policy
from dns.querylog import QueryLog
from dns.race import Route
from dns.tables import Network, Options, Tables
from dns.upstream import Upstream

OWN_ADDRESS = "127.0.0.11"


@dataclass(slots=True)
class Shared:
    """What all sandboxes of the process have in common."""

    tables: Tables
    forwarder: Forwarder
    host_health: Health
    log: QueryLog
    queries: int = 0  # that reached this process


class Sandbox:
    """The view of one sandbox, and what follows from it. Replace the view with `update`."""

    def __init__(self, shared: Shared, view: SandboxView, ready: Ready, netns: Namespace | None = None) -> None:
        self.shared = shared
        self.netns = netns
        self._health = Health()
        self.update(view, ready)

    def update(self, view: SandboxView, ready: Ready) -> None:
        """Follow a new view; what is known of the health of upstreams stays."""
        self.view = view
        self.ready = ready
        self.policy = policy(view.options)
        self.route = self._route(tuple(Upstream(s.address, s.port, s.host) for s in view.servers))
        self.routes = [
            (
                wire.encode_name(route.suffix).lower(),
                self._route(tuple(Upstream(s.address, s.port, s.host) for s in route.servers)),
            )
            for route in view.routes
        ]
        self.routes.sort(key=lambda route: len(route[0]), reverse=True)
        used = [server for _, route in self.routes for server in route.servers]
        self._health.keep_only([*self.route.servers, *used])

    def change_namespace(self, netns: Namespace) -> None:
        """Ask upstreams from another namespace from the next `update` on; takes ownership of it."""
        if self.netns is not None:
            self.netns.close()
        self.netns = netns

    def _route(self, given: tuple[Upstream, ...]) -> Route:
        servers = tuple(server for server in given if self._allowed(server))[:MAX_SERVERS]
        shared = all(server.host for server in servers)
        return Route(
            servers=servers,
            netns=self.netns,
            policy=self.policy,
            health=self._health,
            host_health=self.shared.host_health,
            partition=servers if shared else (self.view.sandbox, servers),
        )

    def _allowed(self, server: Upstream) -> bool:
        """Never itself, and nothing by way of the host for a sandbox without a way out (facts 1.55 and 1.56)."""
        if server.host:
            return not self.view.internal
        return server.address != OWN_ADDRESS

    def respond(self, message: bytes, *, tcp: bool, client: str) -> bytes | wire.Query:
        """The reply if it is known here and now (none at all: no bytes), else the question to `forward`."""
        try:
            query = self._parse(message)
        except wire.Malformed:
            return wire.header_error(message, wire.FORMERR)
        if isinstance(query, bytes):
            return query
        started = time.perf_counter()
        reply, source = self._known(query, message, tcp)
        if reply is None:
            return query
        self.shared.log.add(self.view, client, tcp, query, reply, source, time.perf_counter() - started)
        return reply

    def _parse(self, message: bytes) -> wire.Query | bytes:
        """The question, or the reply to what is none; raises `Malformed`."""
        if len(message) < 12:
            return b""
        _, flags, questions, *_ = wire.HEADER.unpack_from(message)
        if flags & wire.QR or not questions:
            return b""  # fact 1.16: no reply to what asks nothing
        if (flags & wire.OPCODE_MASK) >> 11 not in (wire.QUERY, wire.NOTIFY):
            return wire.header_error(message, wire.NOTIMP)
        query = wire.parse_query(message)
        if query.edns is not None and query.edns.version != 0:
            return wire.compose(query, wire.UDP_SIZE, wire.BADVERS)  # RFC 6891 section 6.1.3
        return query

    def _known(self, query: wire.Query, message: bytes, tcp: bool) -> tuple[bytes | None, str]:
        tables = self.shared.tables
        if self.ready.checked != tables.generation:
            self.ready.current()
        limit = wire.MAX_SIZE if tcp else wire.reply_limit(query)
        local = answer.lookup(tables, self.ready.scope, query)
        if local is not None and local.alias is None:
            if not tcp:
                self.ready.keep(message, query, local)
            return answer.render(query, local, limit, answer.shuffled(local)), "local"
        if local is not None:
            return None, ""
        if (withheld := self.withheld(query, limit)) is not None:
            return withheld, "local"
        return self._cached(query, tcp), "cache"

    def withheld(self, query: wire.Query, limit: int) -> bytes | None:
        """The answer to an unknown name that is not forwarded, by the network's or the user's wish."""
        single = not len(query.name) < 2 and query.name[query.name[0] + 1] == 0
        if self._is_private(query, single):
            soa = wire.soa_record(min(options.ttl for options in self._options()))
            return wire.compose(query, limit, wire.NXDOMAIN, (), (soa,))
        if single and self.policy.ndots and query.type in (wire.A, wire.AAAA):
            return wire.compose(query, limit)  # fact 1.57
        return None

    def _is_private(self, query: wire.Query, single: bool) -> bool:
        return any(
            network.options.private and (single or network.owns_reverse(query.folded)) for network in self._networks()
        )

    def _networks(self) -> Iterable[Network]:
        return self.shared.tables.select(self.view.networks)

    def _options(self) -> Iterable[Options]:
        return (network.options for network in self._networks())

    def _cached(self, query: wire.Query, tcp: bool) -> bytes | None:
        return self.shared.forwarder.cached(self.route_for(query.folded), query, tcp=tcp)

    def route_for(self, name: bytes) -> Route:
        """The route of the longest suffix that has one of its own, else the default."""
        route = self._split_route(name)
        route.cache = all(options.cache for options in self._options())
        return route

    def _split_route(self, name: bytes) -> Route:
        for suffix, route in self.routes:
            # on a label boundary: what precedes the suffix must be whole labels
            if name.endswith(suffix) and _is_suffix(name, suffix):
                return route
        return self.route

    def forward(
        self, query: wire.Query, message: bytes, done: Callable[[bytes], None], *, tcp: bool, client: str
    ) -> None:
        """Call `done` with the reply to a question that `respond` could not answer; always, within 4.5 s."""
        started = time.perf_counter()
        local = answer.lookup(self.shared.tables, self.ready.scope, query)

        def finish(reply: Reply) -> None:
            message = reply.message if local is None else self._behind_alias(query, local, reply.message, tcp)
            self.shared.log.add(self.view, client, tcp, query, message, reply.source, time.perf_counter() - started)
            done(message)

        asked = query
        if local is not None and local.alias is not None:
            asked = query._replace(name=local.alias, folded=local.alias.lower(), edns=None)
        self.shared.forwarder.submit(self.route_for(asked.folded), asked, message, finish, tcp=tcp)

    def _behind_alias(self, query: wire.Query, local: Local, reply: bytes, tcp: bool) -> bytes:
        """A static CNAME to a name outside: the chain, then what the upstream says of its end."""
        try:
            rest = DNSRecord.parse(reply)
            records = (*local.records, *(wire.uncompressed(rr) for rr in rest.rr))
        except (DNSError, DNSLabelError, UnicodeError):
            return wire.compose(query, wire.UDP_SIZE, wire.SERVFAIL)
        limit = wire.MAX_SIZE if tcp else wire.reply_limit(query)
        return wire.compose(query, limit, int(rest.header.rcode), records)


def _is_suffix(name: bytes, suffix: bytes) -> bool:
    while len(name) > len(suffix):
        name = wire.parent(name)
    return name == suffix
