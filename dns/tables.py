"""What is known locally: a table of names for each network.

Keys are folded names in wire form and values hold packed addresses: both can be copied into a BPF map as
they are. A join or a leave costs the endpoint's own names, however many endpoints and sandboxes there are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import NamedTuple

from dns import wire
from dns.control import Member, Port

DEFAULT_TTL = 10  # seconds: a record may change within one, and asking again is cheap


class Endpoint(NamedTuple):
    """One endpoint's names and addresses, ready for answers."""

    id: str
    names: tuple[bytes, ...]  # folded; the ones that fit into a DNS name
    pointer: bytes | None  # `<first name>.<network>.` as spelled, for PTR and SRV
    v4: tuple[bytes, ...]
    v6: tuple[bytes, ...]
    ports: tuple[Port, ...]

    @property
    def all_names(self) -> set[bytes]:
        """Those of its addresses included."""
        return {*self.names, *(wire.reverse_name(address) for address in self.v4 + self.v6)}


Endpoints = dict[str, Endpoint]
Static = dict[int, list[tuple[int | None, bytes]]]  # record type -> TTL (None: the network's) and record data


class Found(NamedTuple):
    """What a network knows about a name."""

    network: Network
    endpoints: Iterable[Endpoint]
    static: Static
    rule: str  # for people: what matched


@dataclass(frozen=True, slots=True)
class Options:
    """How a network wants its names served."""

    ttl: int = DEFAULT_TTL
    private: bool = False  # unknown single-label names and PTR of its own subnets are not forwarded
    cache: bool = True
    subnets: tuple[IPv4Network | IPv6Network, ...] = ()


@dataclass(slots=True)
class Network:
    """The table of one network. `generation` changes with every change of an answer."""

    id: str
    name: str
    options: Options = field(default_factory=Options)
    generation: int = 0
    wire_name: bytes = b""
    endpoints: Endpoints = field(default_factory=dict)
    names: dict[bytes, Endpoints] = field(default_factory=dict)
    reverse: dict[bytes, Endpoints] = field(default_factory=dict)
    static: dict[bytes, Static] = field(default_factory=dict)

    def __post_init__(self) -> None:
        try:
            self.wire_name = wire.encode_name(self.name)
        except wire.Malformed:
            self.wire_name = b""  # nobody can ask for `name.network`, all else works

    @property
    def folded_name(self) -> bytes:
        return self.wire_name.lower()

    def join(self, member: Member) -> set[bytes]:
        """Add an endpoint, or replace what was said of it before; the names that it concerns."""
        concerned = self.leave(member.endpoint)
        endpoint = self._endpoint(member)
        self.endpoints[endpoint.id] = endpoint
        for name in endpoint.names:
            self.names.setdefault(name, {})[endpoint.id] = endpoint
        for address in endpoint.v4 + endpoint.v6:
            self.reverse.setdefault(wire.reverse_name(address), {})[endpoint.id] = endpoint
        return concerned | endpoint.all_names

    def leave(self, endpoint_id: str) -> set[bytes]:
        """Remove an endpoint, if it is there; the names that it concerns."""
        endpoint = self.endpoints.pop(endpoint_id, None)
        if endpoint is None:
            return set()
        for name in endpoint.names:
            _drop(self.names, name, endpoint_id)
        for address in endpoint.v4 + endpoint.v6:
            _drop(self.reverse, wire.reverse_name(address), endpoint_id)
        return endpoint.all_names

    def add_static(self, name: bytes, kind: int, ttl: int | None, data: bytes) -> None:
        """Add a static record, if it is not there; TTL None is the network's."""
        records = self.static.setdefault(name, {}).setdefault(kind, [])
        if (ttl, data) not in records:
            records.append((ttl, data))

    def says_as_much_as(self, other: Network | None) -> bool:
        """Whether every answer is the same as from the other table."""
        return other is not None and dataclasses.replace(self, generation=other.generation) == other

    def remove_static(self, name: bytes, kind: int | None = None) -> None:
        """Remove a name's static records: all of them, or those of one type."""
        records = self.static.get(name, {})
        for which in list(records) if kind is None else [kind]:
            records.pop(which, None)
        if not records:
            self.static.pop(name, None)

    def _endpoint(self, member: Member) -> Endpoint:
        names = [name for text in member.names if (name := _encodable(text))]
        # the first name gives the PTR (fact 1.27); the first that DNS can carry, rather than SERVFAIL (fact 1.45)
        plain = (name for name in names if not name.startswith(b"\x01*"))
        pointers = (name[:-1] + self.wire_name for name in plain if self.wire_name)
        return Endpoint(
            id=member.endpoint,
            names=tuple(dict.fromkeys(name.lower() for name in names)),
            pointer=next((p for p in pointers if len(p) <= 255), None),
            v4=tuple(a for a in member.addresses if len(a) == 4),
            v6=tuple(a for a in member.addresses if len(a) == 16),
            ports=member.ports,
        )

    def find(self, name: bytes) -> Found | None:
        """What is known of a folded name: itself, else the closest wildcard above it (RFC 4592), else a port."""
        if (exact := self._node(name, "name")) is not None:
            return exact
        above = name
        while len(above) > 1:
            above = wire.parent(above)
            if (wild := self._node(b"\x01*" + above, "wildcard")) is not None:
                return wild
            if above in self.names or above in self.static:
                return None  # the closest encloser exists: wildcards further up do not apply
        return None

    def _node(self, name: bytes, rule: str) -> Found | None:
        endpoints, static = self.names.get(name), self.static.get(name)
        if endpoints is None and static is None:
            return None
        shown = wire.show_name(name).rstrip(".")
        return Found(self, (endpoints or {}).values(), static or {}, f"{rule} {shown}")

    def pointers(self, reverse: bytes) -> list[bytes]:
        """The names of the endpoint that holds an address, given as its reverse name."""
        holders = self.reverse.get(reverse)
        # while an address moves on, the latest holder is the right one
        return [e.pointer for e in reversed(holders.values()) if e.pointer][:1] if holders else []

    def owns_reverse(self, reverse: bytes) -> bool:
        """Whether a reverse name is of an address in one of the network's subnets."""
        packed = wire.reverse_address(reverse)
        return packed is not None and any(ip_address(packed) in subnet for subnet in self.options.subnets)


def _drop(table: dict[bytes, Endpoints], key: bytes, endpoint_id: str) -> None:
    holders = table[key]
    del holders[endpoint_id]
    if not holders:
        del table[key]


def _encodable(text: str) -> bytes | None:
    try:
        return wire.encode_name(text)
    except wire.Malformed:
        return None


@dataclass(slots=True)
class Tables:
    """All networks of this host. `generation` changes when anything does."""

    networks: dict[str, Network] = field(default_factory=dict)
    generation: int = 0

    def put(self, network: Network) -> None:
        """Replace a network's table in one step."""
        self.networks[network.id] = network
        self.changed(network)

    def delete(self, network_id: str) -> None:
        network = self.networks.pop(network_id, None)
        if network is not None:
            self.changed(network)

    def changed(self, network: Network) -> None:
        """Answers made from this network's table are void from now on."""
        self.generation += 1
        network.generation = self.generation

    def select(self, ids: Iterable[str]) -> Iterator[Network]:
        """The networks that exist, in the given order."""
        return (self.networks[i] for i in ids if i in self.networks)


@dataclass(frozen=True, slots=True)
class Scope:
    """What a sandbox searches: its networks in order, and its link aliases by network."""

    networks: tuple[str, ...]
    links: Mapping[str, Mapping[bytes, bytes]] = field(default_factory=dict)

    def find(self, tables: Tables, name: bytes) -> Found | None:
        """Facts 1.28 and 1.35: each split in turn; at each, first link aliases, then names, network by network."""
        networks = list(tables.select(self.networks))
        if (found := self._find_in(networks, name)) is not None:
            return found
        by_name: dict[bytes, list[Network]] = {}
        for network in networks:
            by_name.setdefault(network.folded_name, []).append(network)
        for first, rest in wire.suffixes(name):
            if rest in by_name and (found := self._find_in(by_name[rest], first)) is not None:
                return found
        return None

    def _find_in(self, networks: list[Network], name: bytes) -> Found | None:
        if self.links:
            for network in networks:
                target = self.links.get(network.id, {}).get(name)
                if target is not None and (found := network.find(target)) is not None:
                    return found._replace(rule=f"link {wire.show_name(name).rstrip('.')} to {found.rule}")
        for network in networks:
            # an alias shadows a real name of its network, even while its target is away
            if name in self.links.get(network.id, ()):
                continue
            if (found := network.find(name)) is not None:
                return found
        return None
