"""Answers from the tables: the rules of Docker's resolver, and where it is bettered, as wire messages.

`ready` answers are kept by the bytes of the question, so that a repeated one costs a dictionary look-up.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Hashable, Iterable, Iterator, Sequence
from itertools import permutations
from typing import NamedTuple

from dns import wire
from dns.tables import Endpoint, Found, Scope, Tables

READY_LIMIT = 32768  # questions kept ready in all scopes together
_ALL_ORDERS_OF = 4  # addresses: up to so many, every order is kept ready
_VARIANTS = 8  # of more addresses, so many random orders


class Local(NamedTuple):
    """A locally known answer; none of `records` means NODATA, with an SOA that says how long (RFC 2308)."""

    records: tuple[bytes, ...]
    additionals: tuple[bytes, ...]
    ttl: int
    rule: str
    alias: bytes | None = None  # the records are a CNAME chain that leads out of the tables, to this name
    ordered: bool = False  # the order of the records has a meaning


def lookup(tables: Tables, scope: Scope, query: wire.Query) -> Local | None:
    """What the tables say to a question, or None when its name is not known in this scope."""
    if query.type == wire.PTR and (pointer := _pointer(tables, scope, query.folded)) is not None:
        return pointer
    found = scope.find(tables, query.folded)
    if found is None:
        return _service(tables, scope, query)
    if wire.CNAME in found.static and query.type != wire.CNAME:
        return _follow(tables, scope, query, found)
    return _local(found, list(_records(found, query.type)))


def _local(found: Found, records: Sequence[bytes], additionals: Sequence[bytes] = ()) -> Local:
    network = found.network
    return Local(tuple(records), tuple(additionals), network.options.ttl, f"{found.rule} on network {network.name!a}")


def _records(found: Found, kind: int) -> Iterator[bytes]:
    ttl = found.network.options.ttl
    for data in dict.fromkeys(_addresses(found.endpoints, kind)):
        yield wire.record(kind, ttl, data)
    for static_ttl, data in found.static.get(kind, []):
        yield wire.record(kind, ttl if static_ttl is None else static_ttl, data)


def _addresses(endpoints: Iterable[Endpoint], kind: int) -> Iterator[bytes]:
    for endpoint in endpoints:
        yield from endpoint.v4 if kind == wire.A else endpoint.v6 if kind == wire.AAAA else ()


def _pointer(tables: Tables, scope: Scope, reverse: bytes) -> Local | None:
    for network in tables.select(scope.networks):
        if names := network.pointers(reverse):
            ttl = network.options.ttl
            records = tuple(wire.record(wire.PTR, ttl, name) for name in names)
            return Local(records, (), ttl, f"address on network {network.name!a}")
    return None


def _follow(tables: Tables, scope: Scope, query: wire.Query, found: Found) -> Local:
    """A static CNAME, with what its target has, if that is local too (RFC 1034 section 3.6.2)."""
    ttl = found.network.options.ttl
    chain: list[bytes] = []
    owner = b"\xc0\x0c"
    at: Found | None = found
    target = query.folded
    for _ in range(8):
        if at is None or wire.CNAME not in at.static:
            break
        static_ttl, target = at.static[wire.CNAME][0]
        chain.append(wire.record(wire.CNAME, ttl if static_ttl is None else static_ttl, target, owner))
        owner = target
        at = scope.find(tables, target.lower())
    if at is None:
        return _local(found, chain)._replace(alias=target, ordered=True)
    last = (owner + record[2:] for record in _records(at, query.type))
    return _local(found, [*chain, *last])._replace(ordered=True)


def _service(tables: Tables, scope: Scope, query: wire.Query) -> Local | None:
    """`_80._tcp.web`: an SRV record (RFC 2782) for each endpoint of `web` that offers port 80/tcp."""
    service = _split_service(query.folded)
    if service is None:
        return None
    port, proto, name = service
    found = scope.find(tables, name)
    offers = (
        [e for e in found.endpoints if e.pointer and any(p.port == port and p.proto == proto for p in e.ports)]
        if found
        else []
    )
    if found is None or not offers:
        return None
    if query.type != wire.SRV:
        return _local(found, ())
    ttl = found.network.options.ttl
    head = struct.pack("!HHH", 0, 0, port)
    records = [wire.record(wire.SRV, ttl, head + e.pointer) for e in offers if e.pointer]
    additionals = [
        wire.record(kind, ttl, address, e.pointer)
        for e in offers
        if e.pointer
        for kind in (wire.A, wire.AAAA)
        for address in _addresses([e], kind)
    ]
    return _local(found, records, additionals)._replace(rule=f"port {port}/{proto} of {found.rule}")


def _split_service(name: bytes) -> tuple[int, str, bytes] | None:
    labels = wire.labels(name, 2)
    if len(labels) < 2 or any(label[:1] != b"_" for label in labels):
        return None
    port, proto = labels[0][1:], labels[1][1:]
    if not port.isdigit() or len(port) > 5:
        return None
    return int(port), proto.decode("ascii", "replace"), wire.parent(wire.parent(name))


class Ready:
    """Finished answers of one scope by question: exact bytes first, case folded second.

    Valid for one generation of the scope's networks; `current` drops what is older.
    """

    def __init__(self, tables: Tables, scope: Scope, store: ReadyStore) -> None:
        self.scope = scope
        self._store = store
        self._tables = tables
        self._generations: tuple[int, ...] = ()
        self.checked = -1
        self.exact: dict[bytes, bytes] = {}
        self._folded: dict[bytes, tuple[bytes, ...]] = {}

    def current(self) -> None:
        """Bring the store up to date with the tables: cheap when nothing changed, and once a wake-up is enough."""
        generations = tuple(network.generation for network in self._tables.select(self.scope.networks))
        if generations != self._generations:
            self._generations = generations
            self.clear()
        self.checked = self._tables.generation

    def clear(self) -> None:
        self._store.size -= len(self._folded)
        self.exact.clear()
        self._folded.clear()

    def answer(self, message: bytes) -> bytes | None:
        """A ready answer whatever the question's case, one of its orders at random (fact 1.24)."""
        end = message.find(b"\0", 12) + 1
        variants = self._folded.get(message[2:12] + message[12:end].lower() + message[end:])
        if variants is None:
            return None
        body = variants[0] if len(variants) == 1 else random.choice(variants)
        # the case of the question is echoed; the answers' names are pointers to it (fact 1.17)
        return message[:2] + body[:10] + message[12:end] + body[end - 2 :]

    def keep(self, message: bytes, query: wire.Query, local: Local) -> None:
        """Keep an answer over UDP for the next time; messages with anything odd in them rarely come twice."""
        plain = 16 + len(query.name) + (0 if query.edns is None else 11)
        if len(message) != plain or b"\0" in query.name[:-1]:
            return
        limit = wire.reply_limit(query)
        orders = [local.records] if local.ordered else _orders(local.records)
        variants = tuple(render(query, local, limit, order)[2:] for order in orders)
        key = message[2:12] + query.folded + message[12 + len(query.name) :]
        self._store.make_room()
        self._store.size += key not in self._folded
        self._folded[key] = variants
        if len(variants) == 1 and query.name == query.folded:
            self.exact[message[2:]] = variants[0]


class ReadyStore:
    """The ready answers of all scopes, bounded as a whole; sandboxes that search alike share theirs."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._shared: dict[Hashable, tuple[Ready, set[str]]] = {}
        self._used: dict[str, Hashable] = {}
        self.size = 0

    def acquire(self, sandbox: str, scope: Scope) -> Ready:
        """The answers for a sandbox that searches `scope` from now on."""
        self.release(sandbox)
        links = sorted((network, tuple(sorted(pairs.items()))) for network, pairs in scope.links.items())
        key = self._used[sandbox] = scope.networks, tuple(links)
        if key not in self._shared:
            self._shared[key] = Ready(self._tables, scope, self), set()
        ready, users = self._shared[key]
        users.add(sandbox)
        return ready

    def release(self, sandbox: str) -> None:
        key = self._used.pop(sandbox, None)
        if key is None:
            return
        ready, users = self._shared[key]
        users.discard(sandbox)
        if not users:
            ready.clear()
            del self._shared[key]

    def make_room(self) -> None:
        """Start afresh when full: rare, and cheaper than to keep account of use on the hot path."""
        if self.size >= READY_LIMIT:
            for ready, _ in self._shared.values():
                ready.clear()


def _orders(records: tuple[bytes, ...]) -> list[tuple[bytes, ...]]:
    if len(records) <= _ALL_ORDERS_OF:
        return list(permutations(records))
    return [tuple(random.sample(records, len(records))) for _ in range(_VARIANTS)]


def shuffled(local: Local) -> tuple[bytes, ...]:
    """The records in a random order (fact 1.24)."""
    return local.records if local.ordered else tuple(random.sample(local.records, len(local.records)))


def render(query: wire.Query, local: Local, limit: int, records: tuple[bytes, ...]) -> bytes:
    """A local answer as a message of at most `limit` bytes, with its records in the given order."""
    authorities = () if records else (wire.soa_record(local.ttl),)
    return wire.compose(query, limit, wire.NOERROR, records, authorities, local.additionals)
