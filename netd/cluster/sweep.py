"""Removing what nobody is there for: what hosts that are gone, interrupted calls and crashes have left.

Every host does it for all, and best for itself, whose endpoints it knows: each deletion names the version that was
judged.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import msgspec

from kvstore.contract import Entry, Store, VersionMismatch, now
from netd.cluster import hosts, networks
from netd.cluster.addresses import PREFIXES
from netd.cluster.calls import LIMIT, patiently
from netd.cluster.hosts import Happenings, Hosts
from netd.cluster.networks import Networks
from netd.core.errors import NetdError, Unavailable

log = logging.getLogger(__name__)

PERIOD = 30.0  # seconds between looks at everything
UNDECIDED = 60.0  # seconds a claim may be without its network: it may be being created
SOON = 0.5  # seconds until the first look at what may be left of a call that failed
LATE = 2  # more looks at it, each after the time that a call has
INTERRUPTED = 10.0  # seconds after which a removal is taken to have been left unfinished

NETWORK_CLAIMS = ("names/", "vni/", "subnets/")
OF_HOSTS = ("ep/", *PREFIXES)


class _Owned(msgspec.Struct):
    """What claims and endpoint records have in common."""

    host: str = ""
    owner: str = ""


@dataclass(frozen=True, slots=True)
class _Seen:
    """An entry that looks left over, since when it does."""

    version: int
    since: float


class Sweeper:
    """Looks at everything from time to time, and soon after a host is gone."""

    def __init__(
        self,
        store: Store,
        hosts: Hosts,
        networks: Networks,
        wants: Callable[[str, str], bool],
        happenings: Happenings,
        *,
        undecided: float = UNDECIDED,
    ) -> None:
        self._store = store
        self._hosts = hosts
        self._networks = networks
        self._wants = wants  # whether this host still wants what is there in its name: a key and its owner
        self._undecided = undecided
        self._suspects: dict[str, _Seen] = {}
        self._wake, self._doubtful = happenings.went, happenings.doubtful

    async def run(self) -> None:
        """Sweep, for ever; run it as a task."""
        while True:
            self._wake.clear()
            try:
                await self.sweep()
            except Unavailable as error:
                log.debug("nothing is swept: %s", error)
                await asyncio.sleep(1)
                continue
            try:
                async with asyncio.timeout(PERIOD * random.uniform(0.8, 1.2)):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def settle_doubts(self) -> None:
        """Remove soon what this host may have written in vain, for ever; run it as a task."""
        looks = 0  # still to come: what was on its way when somebody gave up may arrive late
        while True:
            try:
                async with asyncio.timeout(LIMIT if looks else None):
                    await self._doubtful.wait()
            except TimeoutError:
                looks -= 1
            else:
                self._doubtful.clear()
                looks = LATE
                await asyncio.sleep(SOON)
            try:
                await self._hosts.member()  # else the name is another host's, perhaps
                await self._of_hosts_but_unwanted()
            except Unavailable:
                self._doubtful.set()

    async def sweep(self) -> None:
        """One look at everything. Raises `Unavailable`."""
        await self._hosts.member()
        kept = await self._of_hosts()
        claims = [entry for prefix in NETWORK_CLAIMS for entry in await self._list(prefix)]
        # listed after what belongs to them: one that is created meanwhile is not missed
        present = {entry.key.removeprefix(networks.PREFIX): entry for entry in await self._list(networks.PREFIX)}
        left = [entry for entry in claims if _decode(entry).owner not in present]
        left += [entry for entry in kept if entry.key.split("/")[1] not in present]
        unfinished = [entry for entry in present.values() if networks.decode(entry).removing]
        self._suspects = dict(self._still_suspect([*left, *unfinished]))
        for entry in left:
            if self._age(entry) >= self._undecided:
                await self._drop(entry, "its network does not exist")
        for entry in unfinished:
            if self._age(entry) >= INTERRUPTED:
                await self._finish(entry.key.removeprefix(networks.PREFIX))

    async def _of_hosts(self) -> list[Entry]:
        """Remove what belongs to hosts that are gone, or to nobody on this one; the rest."""
        entries = await self._of_hosts_but_unwanted()
        present = {entry.key.removeprefix(hosts.PREFIX) for entry in await self._list(hosts.PREFIX)}
        kept = []
        for entry in entries:
            host = _decode(entry).host
            if host in present or host in self._hosts.live or not await self._hosts.is_absent(host):
                kept.append(entry)
            else:
                await self._drop(entry, f"host {host} is gone")
        return kept

    async def _of_hosts_but_unwanted(self) -> list[Entry]:
        """Remove what is there in this host's name although nobody here has it; the rest."""
        kept = []
        for entry in [entry for prefix in OF_HOSTS for entry in await self._list(prefix)]:
            found = _decode(entry)
            if found.host != self._hosts.me.name or self._wants(entry.key, found.owner):
                kept.append(entry)
            else:
                await self._drop(entry, "nobody on this host has it")
        return kept

    async def _drop(self, entry: Entry, why: str) -> None:
        try:
            await patiently(lambda: self._store.delete(entry.key, entry.version))
        except VersionMismatch:
            return  # somebody was faster, or its host is back
        log.info("removed %s from the cluster store: %s", entry.key, why)

    async def _finish(self, network_id: str) -> None:
        try:
            await self._networks.remove(network_id)
            log.warning("finished removing network %s, which was interrupted", network_id[:12])
        except Unavailable:
            raise
        except NetdError as error:
            log.info("%s", error)

    def _still_suspect(self, entries: list[Entry]) -> Iterator[tuple[str, _Seen]]:
        for entry in entries:
            seen = self._suspects.get(entry.key)
            yield entry.key, seen if seen and seen.version == entry.version else _Seen(entry.version, now())

    def _age(self, entry: Entry) -> float:
        return now() - self._suspects[entry.key].since

    async def _list(self, prefix: str) -> list[Entry]:
        return await patiently(lambda: self._store.list(prefix))


def _decode(entry: Entry) -> _Owned:
    return msgspec.json.decode(entry.value, type=_Owned)
