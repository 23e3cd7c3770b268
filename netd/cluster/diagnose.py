"""What is wrong with a cluster store, in one sentence; how fast it is, if nothing is."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import ssl
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from kvstore import cluster as addresses
from kvstore.contract import Store, StoreDenied, StoreError, StoreUnavailable
from kvstore.open import open_store
from netd.tasks import Tasks

PORTS = {"etcd": 2379, "consul": 8500, "zk": 2181}
ROUNDS = 10
REACH = 2.0  # seconds for a connection
SKEW = 2.0  # seconds; the clock of an HTTP answer counts whole ones


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Whether the store can be used, and one line about it."""

    usable: bool
    told: str


async def diagnose(url: str, options: Mapping[str, str]) -> Diagnosis:
    """Write, read, watch and remove keys of our own below `check/`; look closer if that fails."""
    try:
        servers = addresses.parse(url, options, PORTS.get(url.partition(":")[0], 0))
        store = await open_store(url, **options)
    except ssl.SSLError as error:
        return Diagnosis(False, f"certificate: the files given with kv.cacertfile and kv.certfile: {error}")
    except (ValueError, OSError, StoreError) as error:
        return Diagnosis(False, f"invalid: {error}")
    try:
        async with asyncio.timeout(15):
            figures = await _measure(store)
            skew = await _skew(servers, store)
    except StoreDenied as error:
        return Diagnosis(False, f"denied: {error}; see kv.user and kv.passwordfile")
    except (StoreUnavailable, TimeoutError) as error:
        return Diagnosis(False, await _reason(servers, error))
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


async def _reason(servers: addresses.Cluster, error: BaseException) -> str:
    """Why a store does not answer: look at its servers one by one."""
    problems = [await _server_problem(servers, endpoint) for endpoint in servers.endpoints]
    if not all(problems) and "certificate" in str(error).lower():
        return f"certificate: {error}"
    if not all(problems):
        return (
            f"no quorum: {servers.where} accepts connections, but no leader answers for it "
            f"({str(error) or 'no answer in time'})"
        )
    return next((p for p in problems if p.startswith("certificate")), "; ".join(problems))


async def _server_problem(servers: addresses.Cluster, endpoint: addresses.Endpoint) -> str:
    """What keeps us from talking to one server; empty if nothing does."""
    try:
        await _connect(endpoint, None)
    except TimeoutError:
        return f"unreachable: no answer from {endpoint}: a firewall, or the wrong address"
    except socket.gaierror as error:
        return f"unreachable: {endpoint}: {error.strerror}"
    except OSError as error:
        return f"unreachable: {endpoint}: {os.strerror(error.errno) if error.errno else error}"
    try:
        context = servers.tls()
        if context is not None:
            await _connect(endpoint, context)
        elif await _speaks_tls(endpoint):
            return f"certificate: {endpoint} wants TLS: name its authority with kv.cacertfile"
    except ssl.SSLCertVerificationError as error:
        return f"certificate: {endpoint}: {error.verify_message}"
    except (ssl.SSLError, ConnectionError, TimeoutError) as error:
        return f"certificate: {endpoint} refused the handshake: {error or type(error).__name__}"
    return ""


async def _speaks_tls(endpoint: addresses.Endpoint) -> bool:
    # nothing is sent after the handshake, so that it does not matter who answers
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        await _connect(endpoint, context)
    except (OSError, TimeoutError):
        return False
    return True


async def _connect(endpoint: addresses.Endpoint, context: ssl.SSLContext | None) -> None:
    name = endpoint.host if context else None
    async with asyncio.timeout(REACH):
        _, writer = await asyncio.open_connection(endpoint.host, endpoint.port, ssl=context, server_hostname=name)
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _skew(servers: addresses.Cluster, store: Store) -> float:
    """By how much the server's clock is ahead of ours, in seconds; 0 where it does not tell."""
    if servers.scheme == "zk":
        from kvstore.zookeeper import ZooKeeperStore

        assert isinstance(store, ZooKeeperStore)
        return await store.time() - time.time()
    import aiohttp

    path = {"etcd": "/version", "consul": "/v1/status/leader"}[servers.scheme]
    context = servers.tls()
    url = f"{'https' if context else 'http'}://{servers.endpoints[0]}{path}"
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=REACH)) as session,
            session.get(url, ssl=context or True) as answer,
        ):
            return parsedate_to_datetime(answer.headers["Date"]).timestamp() + 0.5 - time.time()
    except (aiohttp.ClientError, KeyError, ValueError, TimeoutError):
        return 0.0
