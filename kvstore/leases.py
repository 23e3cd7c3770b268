"""Keeping a lease alive in the background, the same way for every backend."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from kvstore.contract import Lease, StoreError, now


def lease_id_of(lease: Lease) -> str:
    """What the backend calls a lease that it gave out itself."""
    if not isinstance(lease, KeptLease):
        raise TypeError(f"not a lease of a store: {lease!r}")
    return lease.id


class Leases:
    """Those that an open store keeps alive: not the revoked and the lost ones."""

    def __init__(self) -> None:
        self._kept: set[KeptLease] = set()

    def __len__(self) -> int:
        return len(self._kept)

    def keep(
        self,
        id: str,
        ttl: float,
        since: float,
        renew: Callable[[], Awaitable[bool]],
        end: Callable[[], Awaitable[None]],
    ) -> KeptLease:
        """Keep a lease that the store has given out at the time `since`."""
        lease = KeptLease(id, ttl, since, renew, end, self._kept.discard)
        self._kept.add(lease)
        return lease

    def stop(self) -> None:
        """Keep none any longer; the store drops them in due time."""
        for lease in list(self._kept):
            lease.stop()


class KeptLease:
    """A lease renewed every third of its `ttl`, and sooner after a failure.

    `renew` answers False when the store has dropped the lease, `end` ends it at once. Without a successful
    renewal for `ttl` seconds it counts as dead: the store may have dropped it by then. `forget` is called once it is
    not kept any more.
    """

    def __init__(
        self,
        id: str,
        ttl: float,
        since: float,
        renew: Callable[[], Awaitable[bool]],
        end: Callable[[], Awaitable[None]],
        forget: Callable[[KeptLease], None],
    ) -> None:
        self.id = id
        self._ttl = ttl
        self._deadline = since + ttl
        self._renew = renew
        self._end = end
        self._forget = forget
        self._lost = False
        self._keeper = asyncio.create_task(self._keep(), name=f"lease {id}")

    @property
    def alive(self) -> bool:
        return not self._lost and now() < self._deadline

    async def revoke(self) -> None:
        self.stop()
        await self._end()

    def stop(self) -> None:
        """Keep it no longer; the store drops it in due time."""
        self._lose()
        self._keeper.cancel()

    def _lose(self) -> None:
        self._lost = True
        self._forget(self)

    async def _keep(self) -> None:
        pause = self._ttl / 3
        while not self._lost:
            await asyncio.sleep(pause)
            asked = now()
            try:
                kept = await self._renew()
            except StoreError:
                pause = self._ttl / 10  # unreachable: `alive` ends by itself at the deadline
                continue
            pause = self._ttl / 3
            if kept:
                self._deadline = asked + self._ttl
            else:
                self._lose()
