"""What keeps a host from a cluster store, in a sentence: its servers are looked at one by one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import time
from email.utils import parsedate_to_datetime

from kvstore.cluster import Cluster, Endpoint
from kvstore.contract import Store

REACH = 2.0  # seconds for a connection


class Diagnosis:
    """The servers of one store."""

    def __init__(self, servers: Cluster) -> None:
        self.where = servers.where
        self._servers = servers

    async def reason(self, error: BaseException) -> str:
        """Why the store does not answer, with the `error` that it gave."""
        return await _reason(self._servers, error)

    async def skew(self, store: Store) -> float:
        """By how much the servers' clock is ahead of ours, in seconds; 0 where it does not tell."""
        return await _skew(self._servers, store)


async def _reason(servers: Cluster, error: BaseException) -> str:
    problems = [await _server_problem(servers, endpoint) for endpoint in servers.endpoints]
    if not all(problems) and "certificate" in str(error).lower():
        return f"certificate: {error}"
    if not all(problems):
        return (
            f"no quorum: {servers.where} accepts connections, but no leader answers for it "
            f"({str(error) or 'no answer in time'})"
        )
    return next((p for p in problems if p.startswith("certificate")), "; ".join(problems))


async def _server_problem(servers: Cluster, endpoint: Endpoint) -> str:
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


async def _speaks_tls(endpoint: Endpoint) -> bool:
    # nothing is sent after the handshake, so that it does not matter who answers
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        await _connect(endpoint, context)
    except (OSError, TimeoutError):
        return False
    return True


async def _connect(endpoint: Endpoint, context: ssl.SSLContext | None) -> None:
    name = endpoint.host if context else None
    async with asyncio.timeout(REACH):
        _, writer = await asyncio.open_connection(endpoint.host, endpoint.port, ssl=context, server_hostname=name)
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _skew(servers: Cluster, store: Store) -> float:
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
