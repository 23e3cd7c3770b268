"""The keys and values of the maps of `kernel.bpf.c`, as bytes."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import NamedTuple

from dns import wire
from dns.tables import Network

NAME, SEARCH, IPV4S, IPV6S, POINTER, ID = 80, 32, 16, 8, 191, 64
LAYOUT = 1  # changes with any meaning of what is in the maps: older ones are not adopted
TOO_MANY = 255
NUMBER = struct.Struct("=I")  # the key of arrays, and of the map of sandboxes

_KEY = struct.Struct(f"=HBBI{NAME}s")
_ANSWER = struct.Struct("=4sBBBB")
_UNION = max(4 * IPV4S + 16 * IPV6S, 1 + POINTER, _KEY.size)
_SANDBOX = struct.Struct("=2s2sHH")
_SEARCH = struct.Struct("=HBB")
_TABLE = struct.Struct(f"=I{ID}s")
_SETTINGS = struct.Struct("=QQQII")
_EVENT = struct.Struct(f"=QQ4sHHBB{NAME}s")

ANSWER_SIZE = _ANSWER.size + _UNION
ANSWERED, PASSED = (NUMBER.pack(which) for which in range(2))  # the counters
ONLY = NUMBER.pack(0)  # the key of a map with one value

_ARPA = b"\x04arpa\0"


class Table(IntEnum):
    """What kind of names are in a table."""

    NETWORK = 0
    QUALIFIED = 1
    LINKS = 2


class Kind(IntEnum):
    """What is known of a name."""

    ASK = 0
    ADDRESSES = 1
    POINTS = 2
    LINK = 3


class Key(NamedTuple):
    """A name in a table; the table's number is its network's, or its sandbox's if it holds links."""

    number: int
    table: Table
    name: bytes

    def pack(self) -> bytes | None:
        """None if the name is longer than what is answered in the kernel."""
        if len(self.name) > NAME:
            return None
        return _KEY.pack(self.number, self.table, len(self.name), 0, self.name)

    @classmethod
    def unpack(cls, packed: bytes) -> Key:
        number, table, length, _, name = _KEY.unpack(packed)
        return cls(number, Table(table), name[:length])


def _value(kind: Kind, ttl: int, content: bytes, ipv4s: int = 0, ipv6s: int = 0, nodata: bool = False) -> bytes:
    return (_ANSWER.pack(ttl.to_bytes(4), kind, ipv4s, ipv6s, nodata) + content).ljust(ANSWER_SIZE, b"\0")


ASK = _value(Kind.ASK, 0, b"")


def kind_of(value: bytes) -> Kind:
    return Kind(value[4])


def link(target: Key) -> bytes:
    """The same answer as that of another name."""
    packed = target.pack()
    return ASK if packed is None else _value(Kind.LINK, 0, packed)


def link_target(value: bytes) -> bytes:
    """The key of the name that a link leads to."""
    return value[_ANSWER.size : _ANSWER.size + _KEY.size]


def answers(value: bytes, kind: int) -> bool:
    """Whether a question of this type is answered by this value alone."""
    _, what, ipv4s, ipv6s, nodata = _ANSWER.unpack_from(value)
    if what == Kind.POINTS:
        return kind == wire.PTR
    few = {wire.A: ipv4s <= IPV4S, wire.AAAA: ipv6s <= IPV6S}
    return bool(what == Kind.ADDRESSES and few.get(kind, nodata))


def answer(network: Network, name: bytes) -> bytes | None:
    """What a network knows of a folded name; None if that is nothing."""
    endpoints, static = network.names.get(name), network.static.get(name)
    if endpoints is None and static is None:
        return _points(network, name)
    ttl = network.options.ttl
    records = static or {}
    given = {own for kind in records for own, _ in records[kind]} - {None, ttl}
    # a reverse name is looked for among the addresses first, on all networks; aliases and odd TTLs are rare
    if given or wire.CNAME in records or name.endswith(_ARPA):
        return ASK
    ipv4 = _addresses((e.v4 for e in (endpoints or {}).values()), records, wire.A, IPV4S)
    ipv6 = _addresses((e.v6 for e in (endpoints or {}).values()), records, wire.AAAA, IPV6S)
    content = b"".join(ipv4 or ()).ljust(4 * IPV4S, b"\0") + b"".join(ipv6 or ())
    ipv4s, ipv6s = (TOO_MANY if each is None else len(each) for each in (ipv4, ipv6))
    return _value(Kind.ADDRESSES, ttl, content, ipv4s, ipv6s, nodata=not records.keys() - {wire.A, wire.AAAA})


def _addresses(
    groups: Iterator[tuple[bytes, ...]], static: dict[int, list[tuple[int | None, bytes]]], kind: int, most: int
) -> list[bytes] | None:
    """The addresses of a name; None if they are too many: however many there are, few are looked at."""
    found: dict[bytes, None] = {}
    for address in itertools.chain.from_iterable(groups):
        found[address] = None
        if len(found) > most:
            return None
    every = [*found, *(data for _, data in static.get(kind, ()))]
    return every if len(every) <= most else None


def _points(network: Network, reverse: bytes) -> bytes | None:
    pointers = network.pointers(reverse)
    if not pointers:
        return None
    if len(pointers[0]) > POINTER:
        return ASK
    return _value(Kind.POINTS, network.options.ttl, bytes((len(pointers[0]),)) + pointers[0])


def qualified(network: Network, name: bytes) -> bytes | None:
    """A name with its network's behind; None if there is no such name."""
    whole = name[:-1] + network.folded_name
    return whole if network.folded_name and len(whole) <= 255 else None


def qualified_answer(network: Network, value: bytes) -> bytes:
    """What is known of a name when it is asked for with its network's behind."""
    return ASK if network.folded_name.endswith(_ARPA) else value


def sandbox(identity: str, udp: int, tcp: int, search: Sequence[tuple[int, Table]]) -> bytes:
    """A sandbox's value: only the first tables of its search fit, and more than those are never needed here."""
    tables = b"".join(_SEARCH.pack(number, table, 0) for number, table in search[:SEARCH])
    head = _SANDBOX.pack(udp.to_bytes(2), tcp.to_bytes(2), len(tables) // _SEARCH.size, 0)
    return head + tables.ljust(SEARCH * _SEARCH.size, b"\0") + identity.encode().ljust(ID, b"\0")


def sandbox_id(value: bytes) -> str:
    return value[-ID:].rstrip(b"\0").decode()


def search(value: bytes) -> Iterator[tuple[int, Table]]:
    """The tables that a sandbox's value names."""
    count = _SANDBOX.unpack_from(value)[2]
    for at in range(count):
        number, table, _ = _SEARCH.unpack_from(value, _SANDBOX.size + at * _SEARCH.size)
        yield number, Table(table)


def table(identity: str, is_open: bool) -> bytes:
    return _TABLE.pack(is_open, identity.encode())


def table_id(value: bytes) -> str:
    return str(_TABLE.unpack(value)[1].rstrip(b"\0").decode())


def is_open(value: bytes) -> bool:
    return bool(_TABLE.unpack(value)[0])


def settings(owner: tuple[int, int], followed: bool, removals: int) -> bytes:
    return _SETTINGS.pack(*owner, LAYOUT, followed, removals & 0xFFFFFFFF)


def removals(value: bytes) -> int:
    """How often something was taken out of a map or replaced."""
    return int(_SETTINGS.unpack(value)[4])


def owner(value: bytes) -> tuple[int, int] | None:
    """Whose maps these are; None if their layout is another."""
    device, inode, layout, _, _ = _SETTINGS.unpack(value)
    return (device, inode) if layout == LAYOUT else None


class Event(NamedTuple):
    """A question answered in the kernel; times in ns, the first one on the clock of `time.monotonic_ns`."""

    time: int
    spent: int
    client: bytes
    number: int
    type: int
    records: int
    name: bytes


def event(sample: bytes) -> Event:
    time, spent, client, number, kind, records, length, name = _EVENT.unpack_from(sample)
    return Event(time, spent, client, number, kind, records, name[:length])
