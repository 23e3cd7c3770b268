"""One kind of object in the store: typed, mirrored in memory, written with compare-and-swap."""

from __future__ import annotations

from typing import Generic, TypeVar

import msgspec

from kvstore.contract import Store, VersionMismatch
from netd.errors import Conflict

T = TypeVar("T")


class Records(Generic[T]):
    """The objects under `prefix/`, each one JSON value. Reading is a look into `items`; a write is
    durable when it returns, and only then shown in `items`."""

    def __init__(self, store: Store, prefix: str, kind: type[T]) -> None:
        self.items: dict[str, T] = {}
        self._store = store
        self._prefix = f"{prefix}/"
        self._decoder = msgspec.json.Decoder(kind)
        self._encoder = msgspec.json.Encoder()
        self._versions: dict[str, int] = {}

    async def load(self) -> None:
        """Fill the mirror from the store."""
        for entry in await self._store.list(self._prefix):
            key = entry.key.removeprefix(self._prefix)
            self.items[key] = self._decoder.decode(entry.value)
            self._versions[key] = entry.version

    async def put(self, key: str, value: T) -> None:
        """Write `value`; `Conflict` if another process changed the object since it was read."""
        data = self._encoder.encode(value)
        version = self._versions.get(key)
        try:
            if version is None:
                entry = await self._store.create(self._prefix + key, data)
            else:
                entry = await self._store.cas(self._prefix + key, data, version)
        except VersionMismatch as error:
            raise Conflict(f"{self._prefix}{key} was changed by another process") from error
        self._versions[key] = entry.version
        self.items[key] = value

    async def delete(self, key: str) -> None:
        """Remove the object; absent is fine."""
        await self._store.delete(self._prefix + key)
        self._versions.pop(key, None)
        self.items.pop(key, None)
