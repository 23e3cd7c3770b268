"""Forwarding: from the cache if it can be, and one question in flight for all who ask the same."""

from __future__ import annotations

from asyncio import AbstractEventLoop
from collections.abc import Callable, Hashable
from dataclasses import dataclass

from dns import wire
from dns.cache import Cache
from dns.race import Lingering, Race, Route

MAX_IN_FLIGHT = 1024  # for each sandbox (fact 1.53)
AD = 0x0020
_HOP_OPTIONS = frozenset({10, 11, 12})  # cookie, keepalive and padding concern one hop only (RFC 7873, 7828, 7830)


@dataclass(frozen=True, slots=True)
class Reply:
    """An upstream's message, with the id and the spelling of whoever asked first."""

    message: bytes
    source: str  # cache | upstream | none
    server: str = ""


Done = Callable[[Reply], None]


@dataclass(slots=True)
class _Flight:
    """A question on its way, and all who wait for its reply."""

    waiting: list[tuple[wire.Query, Done]]


class Forwarder:
    """All forwarding of the process: one cache, and the questions in flight."""

    def __init__(self, loop: AbstractEventLoop, cache: Cache | None = None) -> None:
        self.cache = Cache() if cache is None else cache
        self._loop = loop
        self._flying: dict[Hashable, _Flight] = {}
        self._count: dict[int, int] = {}
        self._lingering = Lingering(loop)

    def cached(self, route: Route, query: wire.Query, *, tcp: bool) -> bytes | None:
        """A reply from the cache, made to fit this client."""
        if not route.cache or (key := _key(route, query)) is None:
            return None
        kept = self.cache.get(key)
        if kept is None:
            return None
        reply = _fitted(kept, query)
        if not tcp and len(reply) > wire.reply_limit(query):
            return _truncated(query, reply)
        return reply

    def submit(self, route: Route, query: wire.Query, message: bytes, done: Done, *, tcp: bool) -> None:
        """Ask the upstreams and call `done`: with their reply, with SERVFAIL when none answers, with REFUSED
        when too much is in flight."""
        key = _key(route, query)
        flight = self._flying.get((key, tcp)) if key is not None else None
        if flight is not None:
            flight.waiting.append((query, done))
        elif not route.servers:
            done(_error(query, wire.SERVFAIL))
        elif self._count.get(id(route), 0) >= MAX_IN_FLIGHT:
            done(_error(query, wire.REFUSED))
        else:
            self._take_off(route, query, message, done, key, tcp)

    def _take_off(
        self, route: Route, query: wire.Query, message: bytes, done: Done, key: Hashable | None, tcp: bool
    ) -> None:
        flight = _Flight([(query, done)])
        self._count[id(route)] = self._count.get(id(route), 0) + 1
        if key is not None:
            self._flying[key, tcp] = flight
        outgoing = message if key is None else _outgoing(query)

        def landed(reply: bytes, server: str) -> None:
            self._landed(route, flight, key, tcp, reply, server)

        Race(self._loop, self._lingering, route, outgoing, tcp, landed).start()

    def _landed(
        self, route: Route, flight: _Flight, key: Hashable | None, tcp: bool, reply: bytes, server: str
    ) -> None:
        self._count[id(route)] -= 1
        if not self._count[id(route)]:
            del self._count[id(route)]
        if key is not None:
            del self._flying[key, tcp]
        for query, done in flight.waiting:
            done(Reply(_fitted(reply, query), "upstream", server) if reply else _error(query, wire.SERVFAIL))
        if reply and key is not None and route.cache:
            self.cache.put(key, reply)


def _error(query: wire.Query, rcode: int) -> Reply:
    return Reply(wire.compose(query, wire.UDP_SIZE, rcode), "none")


def _key(route: Route, query: wire.Query) -> Hashable | None:
    """What makes two questions the same; None for one with EDNS options that are not ours to take away."""
    flags = query.flags & (wire.OPCODE_MASK | wire.RD | wire.CD | AD)
    edns = query.edns
    if edns is not None and not _hop_only(edns.options):
        return None
    opt = None if edns is None else (edns.size, edns.do)
    return route.partition, flags, query.folded, query.type, query.class_, opt


def _hop_only(options: bytes) -> bool:
    at = 0
    while at + 4 <= len(options):
        if int.from_bytes(options[at : at + 2]) not in _HOP_OPTIONS:
            return False
        at += 4 + int.from_bytes(options[at + 2 : at + 4])
    return at == len(options)


def _outgoing(query: wire.Query) -> bytes:
    """The question as it is passed on: its flags and EDNS stay (fact 1.49), what is not part of it goes."""
    opt = b"" if query.edns is None else wire.opt_record(query.edns.do, size=query.edns.size)
    flags = query.flags & (wire.OPCODE_MASK | wire.RD | wire.CD | AD)
    return wire.HEADER.pack(query.id, flags, 1, 0, 0, 1 if opt else 0) + query.question + opt


def _fitted(reply: bytes, query: wire.Query) -> bytes:
    """An upstream's reply with this client's id and spelling."""
    if reply[4:6] == b"\0\0":
        return wire.compose(query, wire.MAX_SIZE, reply[3] & 15)
    return query.id.to_bytes(2) + reply[2:12] + query.name + reply[12 + len(query.name) :]


def _truncated(query: wire.Query, reply: bytes) -> bytes:
    """Only the head of a reply that is too long for the client, which asks again over TCP."""
    flags = int.from_bytes(reply[2:4]) | wire.TC
    opt = b"" if query.edns is None else wire.opt_record(query.edns.do)
    return wire.HEADER.pack(query.id, flags, 1, 0, 0, 1 if opt else 0) + query.question + opt
