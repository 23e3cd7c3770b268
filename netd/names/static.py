"""The static DNS records of networks, as stored: one value for each network that has any."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from netd.core.errors import NotFound
from netd.core.locks import Locks
from netd.core.records import Records
from netd.model.networks import StaticRecord


class StaticRecords:
    """They live as long as their network, whoever is on it, and change one after the other."""

    def __init__(self, records: Records[tuple[StaticRecord, ...]]) -> None:
        self._records = records
        self._locks = Locks()

    async def load(self) -> None:
        """Read them."""
        await self._records.load()

    def of(self, network_id: str) -> tuple[StaticRecord, ...]:
        """A network's records."""
        return self._records.items.get(network_id, ())

    @asynccontextmanager
    async def added(self, network_id: str, given: StaticRecord, check: Callable[[], object]) -> AsyncIterator[bool]:
        """Store a record more, if `check` raises nothing: the network may have gone in the meantime.

        What is done inside is done before the next change; it is told whether the record is a new one.
        """
        async with self._locks.of(network_id):
            check()
            known = self.of(network_id)
            if given not in known:
                await self._records.save(network_id, (*known, given))
            yield given not in known

    @asynccontextmanager
    async def removed(self, network_id: str, name: str, kind: str) -> AsyncIterator[None]:
        """Remove a name's records, of one type or (`kind` empty) of all; `NotFound` if there are none."""
        async with self._locks.of(network_id):
            kept = tuple(r for r in self.of(network_id) if r.name != name or kind not in ("", r.type))
            if len(kept) == len(self.of(network_id)):
                raise NotFound(f"there is no static record {name} {kind}".rstrip())
            if kept:
                await self._records.put(network_id, kept)
            else:
                await self._records.delete(network_id)
            yield

    async def drop(self, network_id: str) -> None:
        """The network is gone, and all its records with it."""
        async with self._locks.of(network_id):
            if self.of(network_id):
                await self._records.delete(network_id)
