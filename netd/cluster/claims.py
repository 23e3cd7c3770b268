"""Names in the cluster store that at most one owner holds: addresses, VNIs.

One key a name, made only if it is absent, with its owner in the value. A write whose answer was lost is
tried again; if the key is there by then, the owner in it tells whose it is.
"""

from __future__ import annotations

import time

import msgspec

from kvstore.contract import Entry, KeyExists, Store, VersionMismatch
from netd.cluster.calls import follow, patiently


class Claim(msgspec.Struct, frozen=True):
    """Who holds a name: an id that is unique in the cluster, on which host, since when (Unix time)."""

    owner: str
    host: str
    since: float


class Claims:
    """The claims under one prefix, as seen from `host`. `follow` keeps `held` up to date."""

    def __init__(self, store: Store, prefix: str, host: str) -> None:
        self._store = store
        self._prefix = prefix.rstrip("/") + "/"
        self._host = host
        self.held: dict[str, Claim] = {}

    async def follow(self) -> None:
        """Learn of everybody's claims, for ever; run it as a task. Only speed depends on it."""
        known = [self._prefix + name for name in self.held]
        async for change in follow(self._store, self._prefix, known):
            for key in change.deletes:
                self.held.pop(self._name(key), None)
            self.held.update((self._name(key), _decode(entry)) for key, entry in change.puts.items())

    async def refresh(self) -> None:
        """Look at all claims now."""
        entries = await patiently(lambda: self._store.list(self._prefix))
        self.held = {self._name(entry.key): _decode(entry) for entry in entries}

    async def take(self, name: str, owner: str) -> bool:
        """Claim `name` for `owner`; True also if it has it already, False if another does.

        Raises `Unavailable`. The claim may have been made all the same: `release` it, or let a comparison of all
        claims with their owners find it.
        """
        claim = Claim(owner, self._host, time.time())
        return await patiently(lambda: self._try(name, claim))

    async def release(self, name: str, owner: str) -> None:
        """Give up `name` if `owner` holds it; anything else is fine. Raises `Unavailable`."""
        await patiently(lambda: self._give_up(name, owner))

    async def renew(self, name: str, owner: str) -> Claim:
        """Claim `name` for `owner` as `take` does, and in any case under a new version.

        Whoever decided from an older version that the claim may be removed will fail to. The claim as it is
        then: look whose it is. Raises `Unavailable`.
        """
        claim = Claim(owner, self._host, time.time())
        return await patiently(lambda: self._renew(name, claim))

    async def _renew(self, name: str, claim: Claim) -> Claim:
        key, value = self._prefix + name, msgspec.json.encode(claim)
        while True:
            entry = await self._store.get(key)
            try:
                if entry is None:
                    await self._store.create(key, value)
                elif (present := _decode(entry)).owner != claim.owner:
                    self.held[name] = present
                    return present
                else:
                    await self._store.cas(key, value, entry.version)
            except (KeyExists, VersionMismatch):
                continue
            self.held[name] = claim
            return claim

    async def _try(self, name: str, claim: Claim) -> bool:
        try:
            await self._store.create(self._prefix + name, msgspec.json.encode(claim))
        except KeyExists:
            # perhaps ours, by a try whose answer was lost; somebody may just be about to remove that one
            return (await self._renew(name, claim)).owner == claim.owner
        self.held[name] = claim
        return True

    async def _give_up(self, name: str, owner: str) -> None:
        entry = await self._store.get(self._prefix + name)
        if entry is not None and _decode(entry).owner == owner:
            try:
                await self._store.delete(entry.key, entry.version)
            except VersionMismatch:
                return await self._give_up(name, owner)
        claim = self.held.get(name)
        if claim is not None and claim.owner == owner:
            del self.held[name]

    def _name(self, key: str) -> str:
        return key.removeprefix(self._prefix)


def _decode(entry: Entry) -> Claim:
    return msgspec.json.decode(entry.value, type=Claim)
