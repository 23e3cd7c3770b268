"""What endpoints hold on global networks beside their records: addresses and the container's name.

Both are claims. `mine` is what this host should hold; after every registration it is claimed anew, and what
the store still has in this host's name beside it is given back.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface, ip_address, ip_interface, ip_network
from itertools import chain

import msgspec

from kvstore.contract import Store
from netd.cluster.calls import doubting, in_time
from netd.cluster.claims import Claim, Claims
from netd.cluster.hosts import Hosts
from netd.cluster.model import GlobalNetwork
from netd.cluster.spaces import ClusterAddressSpace
from netd.core.errors import Forbidden, InvalidParameter, NetdError
from netd.core.tasks import Tasks
from netd.model.networks import IPAMConfig

log = logging.getLogger(__name__)

Address = IPv4Address | IPv6Address
Interface = IPv4Interface | IPv6Interface
Key = tuple[str, str]  # network id, and the address or name

PREFIXES = ("ipam/", "epname/")


@dataclass(slots=True)
class _Held:
    """A claim of this host: for whom, and as what the host was registered when it was made."""

    owner: str
    incarnation: str


@dataclass(slots=True)
class _Live:
    """A network's address spaces, in use on this host."""

    addresses: Claims
    names: Claims
    spaces: list[ClusterAddressSpace] = field(default_factory=list)
    follower: Tasks = field(default_factory=Tasks)


class Addresses:
    """The claims of this host's endpoints and stopped containers."""

    def __init__(self, store: Store, hosts: Hosts, doubtful: asyncio.Event) -> None:
        self.mine: dict[Key, _Held] = {}
        self._store = store
        self._hosts = hosts
        self._doubtful = doubtful
        self._live: dict[str, _Live] = {}
        self._claiming: Counter[str] = Counter()  # owners for whom a claim is under way

    # ---- taking and giving back -------------------------------------------------------------------------

    async def allocate(
        self, network: GlobalNetwork, owner: str, *, version: int = 4, wanted: Address | None = None
    ) -> Interface:
        """An address for `owner` (the id of an endpoint, or of the container a static one is kept for).

        What `owner` has already is given again. Raises `InvalidParameter` (outside every subnet), `Forbidden`
        (taken), `NetdError` (nothing left) or `Unavailable`.
        """
        async with doubting(self._doubtful), in_time():
            return await self._allocate(network, owner, version, wanted)

    async def _allocate(self, network: GlobalNetwork, owner: str, version: int, wanted: Address | None) -> Interface:
        incarnation = await self._hosts.member()
        live = self._enliven(network)
        if wanted is None:
            self._follow(live, network.record.name)
            spaces = [space for space in live.spaces if space.pool.version == version]
        else:
            spaces = [space for space in live.spaces if wanted in space.pool]
        if not spaces:
            raise InvalidParameter(f"invalid endpoint settings:\nno configured subnet contains IP address {wanted}")
        with self._claiming_for(owner):
            for space in spaces:
                if (had := self._had(network.id, owner, space)) and wanted is None:
                    return ip_interface(f"{had}/{space.pool.prefixlen}")
                try:
                    address = await space.allocate(owner, wanted)
                except NetdError as error:
                    # exactly this class means that the subnet is used up: the next one may have room
                    if type(error) is not NetdError or space is spaces[-1]:
                        raise
                    continue
                self.mine[network.id, str(address)] = _Held(owner, incarnation)
                return ip_interface(f"{address}/{space.pool.prefixlen}")
        raise AssertionError("there is a last subnet")

    def _had(self, network_id: str, owner: str, space: ClusterAddressSpace) -> str:
        return next(
            (
                name
                for (network, name), held in self.mine.items()
                if network == network_id
                and held.owner == owner
                and _is_address(name)
                and ip_address(name) in space.pool
            ),
            "",
        )

    async def release(self, network_id: str, owner: str, *, name: str | None = None) -> None:
        """Give back all that `owner` has on a network, or (`name`) only what an earlier name of its container was.

        What the store cannot be told now is given back when it answers. Raises `Unavailable`, for information.
        """
        await self.give_back(self.disown(network_id, owner, name=name), owner)

    async def give_back(self, keys: Iterable[Key], owner: str) -> None:
        """Tell the store what `owner` has been made to `disown`. Raises `Unavailable`, for information."""
        async with doubting(self._doubtful):
            for key in keys:
                claims, claimed = self._claims(key)
                await claims.release(claimed, owner)

    def disown(self, network_id: str, owner: str, *, name: str | None = None) -> list[Key]:
        """Have nothing of `owner` any more, or no name but `name`; without telling the store."""
        keys = [
            key
            for key, held in self.mine.items()
            if key[0] == network_id
            and held.owner == owner
            and (name is None or not (_is_address(key[1]) or key[1] == _named(name)))
        ]
        for key in keys:
            del self.mine[key]
        return keys

    def networks_of(self, owner: str) -> set[str]:
        """The networks on which `owner` has something."""
        return {network for (network, _), held in self.mine.items() if held.owner == owner}

    def drop(self, network_id: str) -> None:
        """A network is gone, and all claims with it."""
        self.forget(network_id)
        for key in [key for key in self.mine if key[0] == network_id]:
            del self.mine[key]

    async def take_name(self, network: GlobalNetwork, owner: str, name: str) -> None:
        """Let no other endpoint of the network have this container's name; `Forbidden` if one has (fact 4.22)."""
        incarnation = await self._hosts.member()
        held = self.mine.get((network.id, _named(name)))
        if held is not None and (held.owner, held.incarnation) == (owner, incarnation):
            return
        names = self._of(network.id).names
        with self._claiming_for(owner):
            while not await names.take(name, owner):
                if await self._give_up_left((network.id, _named(name))):
                    continue
                raise Forbidden(f"endpoint with name {name} already exists in network {network.record.name}")
            self.mine[network.id, _named(name)] = _Held(owner, incarnation)

    async def _give_up_left(self, key: Key) -> bool:
        """Whether a claim in the way was one of this host's that nobody here needs, and has been given back."""
        claims, name = self._claims(key)
        claim = claims.held.get(name)
        if claim is None or claim.host != self._hosts.me.name or key in self.mine or self._claiming[claim.owner]:
            return False
        await claims.release(name, claim.owner)
        return True

    def adopt(self, network_id: str, owner: str, addresses: Iterable[str], name: str = "") -> None:
        """Count what an earlier daemon of this host has claimed; `renew` makes sure of it."""
        for key in chain(addresses, [_named(name)] if name else ()):
            self.mine.setdefault((network_id, key), _Held(owner, ""))

    # ---- after the host was away ------------------------------------------------------------------------

    async def renew(self, network_id: str, owner: str, addresses: Iterable[str] = ()) -> list[Claim]:
        """Claim again all that `owner` holds, and `addresses`, where an earlier registration had claimed it.

        Returns what somebody else has by now: their claims, with the address or name in place of the owner.
        """
        named = set(addresses)
        stale = [
            key for key, held in self.mine.items() if key[0] == network_id and (held.owner == owner or key[1] in named)
        ]
        return [claim for key in stale if (claim := await self._renew(key))]

    async def renew_rest(self) -> None:
        """Claim again what is kept for stopped containers."""
        for key in list(self.mine):
            if key in self.mine and (claim := await self._renew(key)):
                log.error("%s, kept for a container, was taken by host %s meanwhile", key[1], claim.host)
                self.mine.pop(key, None)

    async def _renew(self, key: Key) -> Claim | None:
        incarnation = await self._hosts.member()
        held = self.mine.get(key)
        if held is None or held.incarnation == incarnation:  # none: given up while we waited
            return None
        claims, name = self._claims(key)
        claim = await claims.renew(name, held.owner)
        if claim.owner != held.owner:
            return msgspec.structs.replace(claim, owner=name)
        held.incarnation = incarnation
        return None

    def wants(self, key: str, owner: str) -> bool:
        """Whether somebody here has, or is about to have, what this key says it does."""
        kind, network_id, *_, name = key.split("/")
        held = self.mine.get((network_id, name if kind == "ipam" else _named(name)))
        # what is being claimed right now is not in `mine` yet
        return self._claiming[owner] > 0 or (held is not None and held.owner == owner)

    @contextmanager
    def _claiming_for(self, owner: str) -> Iterator[None]:
        self._claiming[owner] += 1
        try:
            yield
        finally:
            self._claiming[owner] -= 1
            self._claiming += Counter()  # drops what is zero

    # ---- the networks in use here -----------------------------------------------------------------------

    def forget(self, network_id: str) -> None:
        """Follow a network's claims no longer: this host is not on it now, or it is gone."""
        live = self._live.pop(network_id, None)
        if live is not None:
            live.follower.cancel()

    def _claims(self, key: Key) -> tuple[Claims, str]:
        """Where something is claimed, and what it is called there."""
        live = self._of(key[0])
        return (live.addresses, key[1]) if _is_address(key[1]) else (live.names, _unnamed(key[1]))

    def _of(self, network_id: str) -> _Live:
        if network_id not in self._live:
            host = self._hosts.me.name
            self._live[network_id] = _Live(
                Claims(self._store, f"ipam/{network_id}/ip", host), Claims(self._store, f"epname/{network_id}", host)
            )
        return self._live[network_id]

    def _enliven(self, network: GlobalNetwork) -> _Live:
        live = self._of(network.id)
        if not live.spaces:
            live.spaces = [self._space(network, item, live.addresses) for item in network.record.ipam.config or ()]
        return live

    @staticmethod
    def _follow(live: _Live, name: str) -> None:
        """Know everybody's claims, to find a free address soon; one that was asked for is just taken."""
        if not live.follower:
            live.follower.keep_running(live.addresses.follow, f"following the addresses of {name}")

    def _space(self, network: GlobalNetwork, item: IPAMConfig, claims: Claims) -> ClusterAddressSpace:
        return ClusterAddressSpace(
            self._store,
            network.id,
            ip_network(item.subnet),
            host=self._hosts.me.name,
            ip_range=ip_network(item.ip_range) if item.ip_range else None,
            gateway=ip_address(item.gateway) if item.gateway else None,
            aux=[ip_address(a) for a in (item.auxiliary_addresses or {}).values()],
            label=f"{network.record.name} ({network.id})",
            claims=claims,
        )

    async def close(self) -> None:
        for network_id in list(self._live):
            live = self._live.pop(network_id)
            await live.follower.close()


def _named(name: str) -> str:
    return f"={name}"


def _unnamed(key: str) -> str:
    return key.removeprefix("=")


def _is_address(key: str) -> bool:
    return not key.startswith("=")
