"""Calling a cluster store that may be away: patience with a limit, and watches that outlive every error."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import TypeVar

from kvstore.contract import Change, Store, StoreDenied, StoreError, StoreUnavailable, difference
from netd.core.errors import Unavailable

log = logging.getLogger(__name__)

T = TypeVar("T")

PATIENCE = 4.0  # seconds an operation may take before it fails with `Unavailable`
LIMIT = 4.5  # seconds for several of them that make up one change
RETRY = 0.1  # seconds between tries
REOPEN = 2.0  # seconds until a watch that was refused is asked for again


async def patiently(attempt: Callable[[], Awaitable[T]], patience: float = PATIENCE) -> T:
    """The result of `attempt`, tried again while the store does not answer. Raises `Unavailable` in the end.

    A write among the attempts may have been applied although its answer was lost: `attempt` reads back.
    """
    try:
        async with asyncio.timeout(patience):
            while True:
                try:
                    return await attempt()
                except StoreUnavailable:
                    await asyncio.sleep(RETRY)
    except (TimeoutError, StoreDenied) as error:
        raise unavailable(error) from error


@asynccontextmanager
async def in_time() -> AsyncIterator[None]:
    """Whatever is done inside takes `LIMIT` seconds at most, or fails with `Unavailable`."""
    try:
        async with asyncio.timeout(LIMIT):
            yield
    except TimeoutError as error:
        raise unavailable(error) from error


@asynccontextmanager
async def doubting(doubtful: asyncio.Event) -> AsyncIterator[None]:
    """Set `doubtful` if the store may do, or have done, what was asked for inside although it failed or was cut off."""
    try:
        yield
    except (Unavailable, asyncio.CancelledError):
        doubtful.set()
        raise


def unavailable(error: BaseException | str) -> Unavailable:
    """What a user is told of a store that failed."""
    return Unavailable(f"the cluster store cannot be used now: {str(error) or 'it did not answer in time'}")


async def is_gone(store: Store, key: str, doubtful: Callable[[], bool], every: float) -> bool:
    """Look, every so many seconds while it is `doubtful`, whether the store lacks a key that no watch has told of."""
    while doubtful():
        await asyncio.sleep(every)
        with contextlib.suppress(StoreError):
            if await store.get(key) is None:
                return True
    return False


async def follow(store: Store, prefix: str, known: Iterable[str] = ()) -> AsyncIterator[Change]:
    """`store.watch`, begun anew when it fails; `known` are keys that the caller holds from an earlier time.

    The first change carries the full state and removes those of `known` that are gone.
    """
    seen = dict.fromkeys(known, -1)
    told = False
    while True:
        first = True
        try:
            async for change in store.watch(prefix):
                if first:
                    change = difference(seen, None, change.puts.values())
                else:
                    seen.update((key, entry.version) for key, entry in change.puts.items())
                    for key in change.deletes:
                        seen.pop(key, None)
                if change.puts or change.deletes or not told:
                    yield change
                told, first = True, False
            return
        except StoreError as error:
            log.warning("the watch of %s in the cluster store failed, it is opened again: %s", prefix, error)
            await asyncio.sleep(REOPEN)
