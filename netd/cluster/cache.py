"""What this host knew of the cluster, kept in its own store: a restart finds it although the cluster is away."""

from __future__ import annotations

import asyncio
import logging
from typing import Generic, TypeVar

from kvstore.contract import Store, StoreError
from netd.core.errors import NetdError
from netd.core.records import Records

log = logging.getLogger(__name__)

T = TypeVar("T")

AGAIN = 1.0  # seconds until what could not be written is tried again


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
            # what the store was given is done, whoever still waits for it
            if not await asyncio.shield(self.flush()):
                await asyncio.sleep(AGAIN)
                self._wake.set()

    async def flush(self) -> bool:
        """Write what has changed until now; False if some of it cannot be written, and stays to be written."""
        async with self._writing:
            self._wake.clear()
            pending, self._pending = self._pending, {}
            outcomes = await asyncio.gather(*(self._kept(key, value) for key, value in pending.items()))
            for key, kept in zip(pending, outcomes, strict=True):
                if not kept:
                    self._pending.setdefault(key, pending[key])
            return all(outcomes)

    async def _kept(self, key: str, value: T | None) -> bool:
        try:
            await self._write(key, value)
        except (StoreError, NetdError) as error:
            log.error("what is known of the cluster cannot be kept now: %s", error)
            return False
        return True

    async def _write(self, key: str, value: T | None) -> None:
        if value is None:
            await self._records.delete(key)
        elif self._records.items.get(key) != value:
            await self._records.save(key, value)
