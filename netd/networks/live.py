"""The networks that are there, each with what is only in memory: who is on it, which of its addresses are free."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from netd.core.errors import Conflict, Forbidden, NotFound
from netd.core.identity import by_reference
from netd.model.networks import Network
from netd.model.sandboxes import Endpoint
from netd.networks.pools import Addresses
from netd.networks.request import PREDEFINED


@dataclass(frozen=True, slots=True)
class Member:
    """An endpoint on a network, and the container that holds it, which may be on another host of the cluster."""

    container_id: str
    container: str
    endpoint: Endpoint
    host: str = ""  # of global networks
    vtep: str = ""


@dataclass(slots=True)
class LiveNetwork:
    """A network with what is only in memory. A global one has no `addresses` here: they are the cluster's to give."""

    record: Network
    addresses: Addresses = field(default_factory=Addresses)
    members: dict[str, Member] = field(default_factory=dict)  # of this host, by endpoint id
    removing: bool = False  # nobody joins any more
    changing: asyncio.Lock = field(default_factory=asyncio.Lock)  # held by whoever removes it

    @property
    def predefined(self) -> bool:
        return self.record.name in PREDEFINED


@dataclass(frozen=True, slots=True)
class _Naming:
    """What a network that is being made holds: its name, until that is decided, and its configuration network."""

    configuration: str
    decided: asyncio.Event = field(default_factory=asyncio.Event)


class LiveNetworks:
    """The table of this host's networks, of both scopes: the managers share it, and it knows none of them."""

    def __init__(self) -> None:
        self.items: dict[str, LiveNetwork] = {}
        self._naming: dict[str, _Naming] = {}  # networks that are being made

    def find(self, ref: str) -> LiveNetwork:
        """By full id, exact name or unique id prefix, in this order (fact 2.67)."""
        return by_reference(ref, self.items, lambda n: n.record.name, "network")

    def named(self, name: str) -> LiveNetwork | None:
        """By its exact name."""
        return next((n for n in self.items.values() if n.record.name == name), None)

    def by_name(self, name: str) -> LiveNetwork:
        """The same; raises `NotFound`."""
        live = self.named(name)
        if live is None:
            raise NotFound(f"network {name} not found")
        return live

    def put(self, live: LiveNetwork) -> None:
        """A network is there."""
        self.items[live.record.id] = live

    def show(self, record: Network) -> None:
        """A global network is there, or has changed."""
        if record.id in self.items:
            self.items[record.id].record = record
        else:
            self.put(LiveNetwork(record))

    def hide(self, network_id: str) -> None:
        """A network is gone."""
        self.items.pop(network_id, None)

    @contextmanager
    def naming(self, name: str, configuration: str = "") -> Iterator[None]:
        """Have a name to oneself while a network is made, whatever its scope; its configuration network stays too.

        `Conflict` if there is a network of that name, or will be.
        """
        if name in self._naming or self.named(name) is not None:
            raise Conflict(f"network with name {name} already exists")
        self._naming[name] = made = _Naming(configuration)
        try:
            yield
        finally:
            del self._naming[name]
            made.decided.set()

    async def decided(self, name: str) -> None:
        """Wait until nobody is making or removing a network of this name."""
        while True:
            live = self.named(name)
            if name in self._naming:
                await self._naming[name].decided.wait()
            elif live is not None and live.removing:
                async with live.changing:
                    continue
            else:
                return

    # ---- members ----------------------------------------------------------------------------------------

    def joinable(self, live: LiveNetwork) -> None:
        """Raise `NotFound` if the network has gone or is going."""
        if live.removing or self.items.get(live.record.id) is not live:
            raise NotFound(f"network {live.record.name} not found")

    def removable(self, live: LiveNetwork) -> None:
        """Raise `NotFound` if the network has gone, `Forbidden` if it must stay (facts 2.71 to 2.73)."""
        record = live.record
        if self.items.get(record.id) is not live:
            raise NotFound(f"network {record.name} not found")
        if live.predefined:
            raise Forbidden(f"{record.name} is a pre-defined network and cannot be removed")
        if live.members:
            told = ", ".join(f'name:"{m.container}" id:"{m.endpoint.id[:12]}"' for m in live.members.values())
            raise Forbidden(f"error while removing network: network {record.name} has active endpoints ({told})")
        configurations = [n.record.config_from.network for n in self.items.values()]
        configurations += [made.configuration for made in self._naming.values()]
        if record.name in configurations:
            raise Forbidden(f'configuration network "{record.name}" is in use')
