"""What this host knew of the cluster, kept in its own store: a restart finds it although the cluster is away."""

from __future__ import annotations

import asyncio
import logging
from typing import Generic, TypeVar

from kvstore.contract import Store, StoreError
from netd.errors import NetdError
from netd.records import Records

log = logging.getLogger(__name__)

T = TypeVar("T")


class Cache(Generic[T]):
    """One kind of object. `put` and `delete` return at once; `write`, run as a task, makes them durable."""

    def __init__(self, store: Store, prefix: str, kind: type[T]) -> None:
        self._records = Records(store, f"cluster/{prefix}", kind)
        self._pending: dict[str, T | None] = {}
        self._wake = asyncio.Event()
        self._writing = asyncio.Lock()

    async def load(self) -> dict[str, T]:
        """All that was known when the last daemon stopped."""
        await self._records.load()
        return dict(self._records.items)

    def put(self, key: str, value: T) -> None:
        self._pending[key] = value
        self._wake.set()

    def delete(self, key: str) -> None:
        self._pending[key] = None
        self._wake.set()

    async def write(self) -> None:
        """Write what changes, for ever."""
        while True:
            await self._wake.wait()
            await asyncio.shield(self.flush())  # what the store was given is done, whoever still waits for it

    async def flush(self) -> None:
        """Write what has changed until now."""
        async with self._writing:
            self._wake.clear()
            pending, self._pending = self._pending, {}
            try:
                await asyncio.gather(*(self._write(key, value) for key, value in pending.items()))
            except (StoreError, NetdError):
                log.exception("what is known of the cluster could not be kept")

    async def _write(self, key: str, value: T | None) -> None:
        if value is None:
            await self._records.delete(key)
        elif self._records.items.get(key) != value:
            await self._records.save(key, value)
