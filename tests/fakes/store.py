"""A store in a dictionary: the contract of kvstore, but for watches and leases, which local objects do without."""

from __future__ import annotations

from collections.abc import Mapping

from kvstore.contract import Entry, KeyExists, Lease, StoreUnavailable, VersionMismatch
from tests.fakes.calls import Calls, stepped


class FakeStore:
    """`entries` is what is on the disk."""

    def __init__(self, calls: Calls, entries: Mapping[str, Entry] | None = None) -> None:
        self.calls = calls
        self.entries: dict[str, Entry] = dict(entries or {})
        self._version = max((entry.version for entry in self.entries.values()), default=0)

    def _write(self, key: str, value: bytes) -> Entry:
        self._version += 1
        self.entries[key] = Entry(key, value, self._version)
        return self.entries[key]

    @stepped(StoreUnavailable)
    def get(self, key: str) -> Entry | None:
        return self.entries.get(key)

    @stepped(StoreUnavailable)
    def create(self, key: str, value: bytes, lease: Lease | None = None) -> Entry:
        if key in self.entries:
            raise KeyExists(key)
        return self._write(key, value)

    @stepped(StoreUnavailable)
    def cas(self, key: str, value: bytes, version: int) -> Entry:
        if key not in self.entries or self.entries[key].version != version:
            raise VersionMismatch(key)
        return self._write(key, value)

    @stepped(StoreUnavailable)
    def delete(self, key: str, version: int | None = None) -> None:
        if version is not None and (key not in self.entries or self.entries[key].version != version):
            raise VersionMismatch(key)
        self.entries.pop(key, None)

    @stepped(StoreUnavailable)
    def list(self, prefix: str) -> list[Entry]:
        return [self.entries[key] for key in sorted(self.entries) if key.startswith(prefix)]

    def under(self, prefix: str) -> dict[str, bytes]:
        """The values below `prefix/`, by what follows it."""
        start = f"{prefix}/"
        return {k.removeprefix(start): e.value for k, e in self.entries.items() if k.startswith(start)}
