"""What is wrong with a cluster store, in one sentence; how fast it is, if nothing is."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import ssl
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass

from kvstore.contract import Store, StoreDenied, StoreError, StoreUnavailable
from kvstore.open import examine, open_store
from netd.core.tasks import Tasks

ROUNDS = 10
SKEW = 2.0  # seconds; the clock of an HTTP answer counts whole ones


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Whether the store can be used, and one line about it."""

    usable: bool
    told: str


async def diagnose(url: str, options: Mapping[str, str]) -> Diagnosis:
    """Write, read, watch and remove keys of our own below `check/`; look closer if that fails."""
    try:
        servers = examine(url, options)
        store = await open_store(url, **options)
    except ssl.SSLError as error:
        return Diagnosis(False, f"certificate: the files given with kv.cacertfile and kv.certfile: {error}")
    except (ValueError, OSError, StoreError) as error:
        return Diagnosis(False, f"invalid: {error}")
    try:
        async with asyncio.timeout(15):
            figures = await _measure(store)
            skew = await servers.skew(store)
    except StoreDenied as error:
        return Diagnosis(False, f"denied: {error}; see kv.user and kv.passwordfile")
    except (StoreUnavailable, TimeoutError) as error:
        return Diagnosis(False, await servers.reason(error))
    except StoreError as error:
        return Diagnosis(False, f"broken: {error}")
    finally:
        await store.close()
    if abs(skew) > SKEW:
        told = "ahead of" if skew > 0 else "behind"
        return Diagnosis(False, f"clock: the clock of {servers.where} is {abs(skew):.0f} s {told} this host's")
    return Diagnosis(True, f"{servers.where} is well: {figures}")


async def _measure(store: Store) -> str:
    key = f"check/{secrets.token_hex(4)}"
    writes, reads, watches = [], [], []
    told: asyncio.Queue[float] = asyncio.Queue()
    entry = await store.create(key, b"")
    tasks = Tasks()
    tasks.start(_watch(store, key, told), "the watch of a check")
    try:
        await told.get()
        for number in range(ROUNDS):
            begun = time.perf_counter()
            entry = await store.cas(key, b"%d" % number, entry.version)
            writes.append(time.perf_counter() - begun)
            watches.append(await asyncio.wait_for(told.get(), 5) - begun)
            begun = time.perf_counter()
            await store.get(key)
            reads.append(time.perf_counter() - begun)
    finally:
        await tasks.close()
        with contextlib.suppress(StoreError):
            await store.delete(key)
    return ", ".join(
        f"{what} {statistics.median(times) * 1000:.1f} ms"
        for what, times in (("write", writes), ("read", reads), ("write to watch", watches))
    )


async def _watch(store: Store, key: str, told: asyncio.Queue[float]) -> None:
    async for _ in store.watch(key):
        told.put_nowait(time.perf_counter())
