"""The contract every store backend honours: the smallest that SQLite, Consul, etcd and ZooKeeper all can.

Keys are `/`-separated paths without a leading slash; values are bytes. Every entry carries a version
that changes with each write of that key and is only ever compared for equality.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol


class StoreError(Exception):
    """Base of everything a store can report."""


class KeyExists(StoreError):
    """`create` found the key present; nothing was written."""


class VersionMismatch(StoreError):
    """`cas` or `delete` found another version, or no key at all; nothing was written."""


class LeaseLost(StoreError):
    """`create` named a lease that has ended; nothing was written."""


class StoreUnavailable(StoreError):
    """The store did not answer. A write may or may not have been applied: read back before trying again."""


class StoreDenied(StoreError):
    """The store refused us: credentials, certificate or access rules."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One key with its value and the version to name in the next `cas` or `delete`."""

    key: str
    value: bytes
    version: int


@dataclass(frozen=True, slots=True)
class Change:
    """One step of a watch: what the watched prefix looks like now, as a difference to what was last told.

    The first change of a watch carries the full state in `puts`. Values may be coalesced: only the
    latest is promised.
    """

    puts: Mapping[str, Entry]
    deletes: frozenset[str]


def difference(seen: dict[str, int], keys: Collection[str] | None, entries: Iterable[Entry]) -> Change:
    """What `entries`, the present state of `keys` (None: of all), changes in `seen`; updates `seen`."""
    present = {entry.key: entry for entry in entries}
    puts = {key: entry for key, entry in present.items() if seen.get(key) != entry.version}
    looked_at = seen.keys() if keys is None else seen.keys() & keys
    deletes = frozenset(looked_at - present.keys())
    for key in deletes:
        del seen[key]
    seen.update((key, entry.version) for key, entry in puts.items())
    return Change(puts, deletes)


def now() -> float:
    """Seconds since boot, asleep or not, by which leases are counted: never set back, and the same for every process of
    the host."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Lease(Protocol):
    """A promise to be alive: the keys created with it vanish when it ends or is not kept."""

    @property
    def alive(self) -> bool:
        """False once the store has dropped it, whether we know why or not."""

    async def revoke(self) -> None:
        """End it now; its keys go at once."""


class Store(Protocol):
    """An open store. All methods raise `StoreUnavailable` or `StoreDenied` besides what they name."""

    async def get(self, key: str) -> Entry | None:
        """The entry at `key`, or None."""

    async def create(self, key: str, value: bytes, lease: Lease | None = None) -> Entry:
        """Write `key` if it is absent, else raise `KeyExists`. Durable when it returns."""

    async def cas(self, key: str, value: bytes, version: int) -> Entry:
        """Replace `key` if its version is `version`, else raise `VersionMismatch`. As durable as `create`."""

    async def delete(self, key: str, version: int | None = None) -> None:
        """Remove `key`: unconditionally (absent is fine), or only at `version`, else `VersionMismatch`."""

    async def list(self, prefix: str) -> list[Entry]:
        """All entries whose key starts with `prefix`, sorted by key."""

    def watch(self, prefix: str) -> AsyncIterator[Change]:
        """Full state first, then differences, for ever; after any doubt (reconnect, compaction) it lists
        again and tells only the difference. Level-triggered: an intermediate value may be skipped."""

    async def lease(self, ttl: float) -> Lease:
        """A lease of `ttl` seconds, kept alive in the background until revoked or the store closes."""

    async def close(self) -> None:
        """Release everything; watches end."""
