"""Hosts, global networks and endpoints as they are in the store, and whom the cluster tells of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from kvstore.contract import Entry
from netd.model.networks import Network


class HostRecord(Struct, frozen=True, kw_only=True):
    """A member of the cluster. `incarnation` is new each time it registers."""

    name: str
    id: str  # the daemon's own, which a restart keeps
    advertise: str  # the address of its tunnels (VTEP) and of its control channel
    version: str
    started: float  # Unix time
    lease: float = 0.0  # seconds for which it registers itself at a time
    incarnation: str = ""


class GlobalNetwork(Struct, frozen=True, kw_only=True):
    """A network of all hosts. While it is `removing` nobody may join."""

    record: Network
    vnis: tuple[int, ...]  # of its IPv4 subnets, in order; with IPv6 ones among them all travel in the first
    host: str  # where it was created
    removing: bool = False

    @property
    def id(self) -> str:
        return self.record.id


class EndpointRecord(Struct, frozen=True, kw_only=True):
    """An endpoint as every host needs it. Addresses carry their prefix length; empty means none."""

    id: str
    network_id: str
    name: str  # of the container, unique on the network unless `anonymous`
    mac: str
    ipv4: str = ""
    ipv6: str = ""
    names: tuple[str, ...] = ()  # what resolves to it: name, aliases, short id
    services: tuple[str, ...] = ()  # as in `80/tcp`
    container_id: str = ""
    anonymous: bool = False
    host: str = ""  # filled in by the cluster, as are the following
    vtep: str = ""
    incarnation: str = ""

    @property
    def addresses(self) -> tuple[str, ...]:
        """Its addresses without prefix lengths, IPv4 first."""
        return tuple(a.partition("/")[0] for a in (self.ipv4, self.ipv6) if a)

    def same(self, other: EndpointRecord | None) -> bool:
        """Whether nothing is different that a host would have to act upon."""
        return other is not None and replace(self, incarnation="") == replace(other, incarnation="")


ENDPOINTS = "ep/"  # the keys of all endpoints begin so


def endpoint_key(endpoint: EndpointRecord) -> str:
    return f"{ENDPOINTS}{endpoint.network_id}/{endpoint.id}"


def decode_endpoint(entry: Entry) -> EndpointRecord:
    return msgspec.json.decode(entry.value, type=EndpointRecord)


class Listener(Protocol):
    """Whom the cluster tells of changes, in order, one at a time. What it raises is logged and passed over."""

    async def network_appeared(self, network: GlobalNetwork) -> None:
        """A global network is there (or has changed); also told of one made on this host."""

    async def network_gone(self, network: GlobalNetwork) -> None:
        """A global network was removed."""

    async def endpoints_changed(
        self, network_id: str, present: Sequence[EndpointRecord], gone: Sequence[EndpointRecord]
    ) -> None:
        """Endpoints of other hosts, of a network this host is on: `present` are new or changed."""

    async def endpoint_lost(self, endpoint: EndpointRecord, reason: str) -> None:
        """An endpoint of this host is no longer part of its network: an address was taken meanwhile, say."""
