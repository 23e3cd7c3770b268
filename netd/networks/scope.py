"""What differs between networks of one host and those of a cluster: one contract, chosen by a record's `scope`.

`local.py` keeps networks in this host's own store, `overlays/scope.py` in the cluster's. Where there is no cluster,
`NoCluster` stands in for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NoReturn, Protocol

from drivers import spec
from netd.core.errors import Forbidden, Unavailable
from netd.ipam.validate import PoolRequest
from netd.model.networks import Network
from netd.model.sandboxes import Endpoint, Sandbox
from netd.networks.endpoints import EndpointRequest
from netd.networks.live import LiveNetwork, Member
from netd.networks.request import NOT_A_MANAGER


class Scope(Protocol):
    """The networks of one scope, as this host takes part in them. What is there is in the table `LiveNetworks`."""

    loses: bool  # whether an endpoint can be lost: its address is another host's

    # ---- networks

    async def load(self) -> None:
        """Put into the table what was known when the last daemon stopped."""

    async def start(self, members: Iterable[Member]) -> None:
        """Go on with the endpoints that this host has from before; everything is loaded."""

    async def refresh(self) -> None:
        """Learn of the networks that were made elsewhere a moment ago."""

    async def create(self, record: Network, pools: Sequence[PoolRequest]) -> None:
        """Make a network, durable and in the table when this returns; if it fails, nothing is left of it."""

    async def remove(self, live: LiveNetwork) -> None:
        """Remove a network that nobody is on; if this fails, the network is whole."""

    def specs(self) -> list[spec.Network]:
        """What should be in this host's kernel."""

    async def settle(self, network_id: str) -> None:
        """Have the kernel follow, where it could not at once; fine for an unknown network."""

    # ---- endpoints of this host

    async def join(self, live: LiveNetwork, sandbox: Sandbox, request: EndpointRequest) -> Endpoint:
        """A new endpoint of a sandbox, with addresses; counted among the members, so that its network stays.

        If this fails, nothing is left of it.
        """

    def adopt(self, live: LiveNetwork, member: Member) -> None:
        """Count an endpoint that an earlier daemon made."""

    def left(self, endpoint: Endpoint) -> None:
        """Count an endpoint no longer, and give its addresses back; fine for an unknown one."""

    async def rename(self, endpoint: Endpoint, sandbox: Sandbox) -> None:
        """Tell other hosts an endpoint's new names, and its sandbox's. `Forbidden` if another has the name."""

    # ---- static addresses of containers that do not run

    async def keep(self, live: LiveNetwork, addresses: Iterable[str], owner: str) -> None:
        """Keep addresses for a container, as far as they can be."""

    def remember(self, live: LiveNetwork, addresses: Iterable[str], owner: str) -> None:
        """The same for what an earlier daemon kept, before `start`."""

    def let_go(self, owner: str, network_id: str | None = None) -> None:
        """Keep nothing for a container, on one network or on all."""

    # ---- telling

    async def members(self, live: LiveNetwork) -> Sequence[Member]:
        """Everybody on a network, on all hosts."""

    def endpoints(self, live: LiveNetwork) -> Sequence[Endpoint]:
        """All endpoints of a network that this host knows of, for its resolver."""


class Scoped(Protocol):
    """A record that says which scope it is of: a network's or an endpoint's."""

    @property
    def scope(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Scopes:
    """The two of them. Nothing else asks which one something belongs to."""

    local: Scope
    everywhere: Scope

    def of(self, record: Scoped) -> Scope:
        return self.everywhere if record.scope == "global" else self.local

    def __iter__(self) -> Iterator[Scope]:
        """The local one first: it never waits."""
        return iter((self.local, self.everywhere))


class NoCluster:
    """The global scope of a daemon that has no cluster. Endpoints from a time when it had one count no more."""

    loses = True

    async def load(self) -> None:
        return

    async def start(self, members: Iterable[Member]) -> None:
        return

    async def refresh(self) -> None:
        return

    async def create(self, record: Network, pools: Sequence[PoolRequest]) -> None:
        raise Forbidden(NOT_A_MANAGER)

    async def remove(self, live: LiveNetwork) -> None:
        refuse()

    def specs(self) -> list[spec.Network]:
        return []

    async def settle(self, network_id: str) -> None:
        return

    async def join(self, live: LiveNetwork, sandbox: Sandbox, request: EndpointRequest) -> Endpoint:
        refuse()

    def adopt(self, live: LiveNetwork, member: Member) -> None:
        return

    def left(self, endpoint: Endpoint) -> None:
        return

    async def rename(self, endpoint: Endpoint, sandbox: Sandbox) -> None:
        return

    async def keep(self, live: LiveNetwork, addresses: Iterable[str], owner: str) -> None:
        return

    def remember(self, live: LiveNetwork, addresses: Iterable[str], owner: str) -> None:
        return

    def let_go(self, owner: str, network_id: str | None = None) -> None:
        return

    async def members(self, live: LiveNetwork) -> Sequence[Member]:
        return ()

    def endpoints(self, live: LiveNetwork) -> Sequence[Endpoint]:
        return ()


def refuse() -> NoReturn:
    """What a daemon says of everything global if it has no cluster."""
    raise Unavailable("this daemon runs without --cluster-store: it has no global networks")
