"""One kind of object in the store: typed, mirrored in memory, written with compare-and-swap."""

from __future__ import annotations

import logging
from typing import Generic, TypeVar

import msgspec

from kvstore.contract import Entry, KeyExists, Store, VersionMismatch
from netd.core.errors import Conflict, NotFound

log = logging.getLogger(__name__)

T = TypeVar("T")


class Records(Generic[T]):
    """The objects under `prefix/`, each one JSON value. Reading is a look into `items`; a write is
    durable when it returns, and only then shown in `items`. Objects are immutable: a changed one is a new one."""

    def __init__(self, store: Store, prefix: str, kind: type[T]) -> None:
        self.items: dict[str, T] = {}
        self._store = store
        self._prefix = f"{prefix}/"
        self._decoder = msgspec.json.Decoder(kind)
        self._encoder = msgspec.json.Encoder()
        self._versions: dict[str, int] = {}
        self.unreadable: set[str] = set()  # keys of what is in the store and not in `items`

    async def load(self) -> None:
        """Fill the mirror from the store. What cannot be decoded is told in the log and left as it is."""
        for entry in await self._store.list(self._prefix):
            key = entry.key.removeprefix(self._prefix)
            try:
                self._believe(entry, key, self._decoder.decode(entry.value))
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                log.error("the record %s cannot be read, it is left alone: %s", entry.key, error)
                self.unreadable.add(key)

    async def add(self, key: str, value: T) -> None:
        """Write an object that is new; `Conflict` if there is one under this key."""
        try:
            entry = await self._store.create(self._prefix + key, self._encoder.encode(value))
        except KeyExists as error:
            raise Conflict(f"{self._prefix}{key} exists already") from error
        self._believe(entry, key, value)

    async def put(self, key: str, value: T) -> None:
        """Write a change of an object that is there.

        Raises `NotFound` for one that has gone: it is not written again. `Conflict` if another process changed it.
        """
        version = self._versions.get(key)
        if version is None:
            raise NotFound(f"{self._prefix}{key} has been removed")
        try:
            entry = await self._store.cas(self._prefix + key, self._encoder.encode(value), version)
        except VersionMismatch as error:
            if key not in self._versions:
                raise NotFound(f"{self._prefix}{key} has been removed") from error
            raise Conflict(f"{self._prefix}{key} was changed by another process") from error
        self._believe(entry, key, value)

    async def save(self, key: str, value: T) -> None:
        """Write an object that may be new."""
        await (self.put if key in self._versions else self.add)(key, value)

    def disbelieve(self, key: str) -> None:
        """Leave an object of the store alone, as if it could not be read."""
        self._forget(key)
        self.unreadable.add(key)

    def _forget(self, key: str) -> None:
        self._versions.pop(key, None)
        self.items.pop(key, None)

    def _believe(self, entry: Entry, key: str, value: T) -> None:
        self._versions[key] = entry.version
        self.items[key] = value

    async def delete(self, key: str) -> None:
        """Remove the object; absent is fine."""
        await self._store.delete(self._prefix + key)
        self._forget(key)
