"""The Consul backend: py-consul over aiohttp, usually to the agent on this host.

Every write is a transaction of one or two operations, because only those answer with the new version.
"""

from __future__ import annotations

import asyncio
import json
import math
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

import aiohttp
import consul.aio  # type: ignore[import-untyped]
import consul.base  # type: ignore[import-untyped]
from consul.exceptions import (  # type: ignore[import-untyped]
    ACLDisabled,
    ACLPermissionDenied,
    ClientError,
    ConsulException,
    NotFound,
)
from yarl import URL

from kvstore import http
from kvstore.cluster import TIMEOUT, Closing, Cluster, Endpoint, Servers, backoff
from kvstore.contract import (
    Change,
    Entry,
    KeyExists,
    Lease,
    LeaseLost,
    StoreDenied,
    StoreUnavailable,
    VersionMismatch,
    difference,
    now,
)
from kvstore.leases import Leases, lease_id_of
from kvstore.limits import check_size

WAIT = 30  # seconds a blocking query may last; Consul adds up to a sixteenth
BREATH = 0.02  # seconds between two queries of a watch, so that a burst of writes is one change
TTL = (10, 86400)  # seconds, what Consul grants; it drops a session up to twice as late
_LOST = (aiohttp.ClientError, OSError, asyncio.TimeoutError, ConsulException)


class _Conflict(Exception):
    """A transaction found something else than it asked for."""


class _Transport(consul.aio.HTTPClient):  # type: ignore[misc]
    """py-consul's requests over a session of ours: it carries token and TLS context in every one of them."""

    def __init__(self, endpoint: Endpoint, cluster: Cluster) -> None:
        consul.base.HTTPClient.__init__(self, endpoint.host, endpoint.port, "https" if cluster.secured else "http")
        self.base_uri = f"{self.scheme}://{endpoint}"
        self._cluster = cluster
        self._session = http.session(cluster, {"X-Consul-Token": cluster.password} if cluster.password else None)

    def uri(self, path: str, params: list[tuple[str, Any]] | None = None) -> URL:
        return URL(super().uri(path, params), encoded=True)

    async def _request(
        self,
        callback: Callable[[Any], Any],
        method: str,
        uri: URL,
        headers: dict[str, str] | None,
        data: Any = None,
        connections_timeout: float | None = None,
        raw: bool = False,
    ) -> Any:
        timeout = http.timeout(self._cluster, connections_timeout)
        async with self._session.request(method, uri, headers=headers, data=data, timeout=timeout) as response:
            return callback(consul.base.Response(response.status, response.headers, await response.text()))


class _Consul(consul.aio.Consul):  # type: ignore[misc]
    def __init__(self, endpoint: Endpoint, cluster: Cluster) -> None:
        self._make = partial(_Transport, endpoint, cluster)
        super().__init__(endpoint.host, endpoint.port, consistency="consistent")

    def http_connect(self, *_: Any, **__: Any) -> _Transport:
        return self._make()


class ConsulStore:
    """`kvstore.contract.Store` on Consul. The content of `kv.passwordfile` is the ACL token."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._prefix = cluster.path
        self._agents = Servers(_Consul(endpoint, cluster) for endpoint in cluster.endpoints)
        self._leases = Leases()
        self._closing = Closing()

    # ---- the contract ----------------------------------------------------------------------------------

    async def get(self, key: str) -> Entry | None:
        _, row = await self._call(lambda agent: agent.kv.get(self._prefix + key), reads=True)
        return self._entry(row) if row else None

    async def list(self, prefix: str) -> list[Entry]:
        _, rows = await self._call(lambda agent: agent.kv.get(self._prefix + prefix, recurse=True), reads=True)
        return [self._entry(row) for row in rows or ()]

    async def create(self, key: str, value: bytes, lease: Lease | None = None) -> Entry:
        check_size(key, value)
        write = self._operation("set", key, Value=_b64(value))
        if lease is not None:
            write = self._operation("lock", key, Value=_b64(value), Session=lease_id_of(lease))
        try:
            version = await self._transaction(self._operation("check-not-exists", key), write)
        except _Conflict as conflict:
            if "invalid session" in str(conflict):
                raise LeaseLost(f"key {key!r} cannot be created: its lease has ended") from conflict
            raise KeyExists(f"key {key!r} exists already") from conflict
        return Entry(key, value, version)

    async def cas(self, key: str, value: bytes, version: int) -> Entry:
        check_size(key, value)
        write = self._operation("set", key, Value=_b64(value))
        return Entry(key, value, await self._at_version(key, version, write))

    async def delete(self, key: str, version: int | None = None) -> None:
        remove = self._operation("delete", key)
        if version is None:
            await self._transaction(remove)
        else:
            await self._at_version(key, version, remove)

    async def watch(self, prefix: str) -> AsyncIterator[Change]:
        seen: dict[str, int] = {}
        told, attempt, index = False, 0, 0
        while not self._closing:
            try:
                newest, rows = await self._closing.wait_for(self._query(prefix, index))
                if newest < index:
                    index = 0  # it went back: a restored snapshot, or a server that knows less than the last one
                    continue
                index = max(newest, 1)  # one below 1 would not block
                change = difference(seen, None, [self._entry(row) for row in rows])
                if change.puts or change.deletes or not told:
                    yield change
                told, attempt = True, 0
                await self._closing.pause(BREATH)
            except StoreUnavailable:
                index = 0
                await self._closing.pause(backoff(attempt))
                attempt += 1

    async def lease(self, ttl: float) -> Lease:
        seconds = min(max(math.ceil(max(ttl, self._cluster.min_ttl)), TTL[0]), TTL[1])
        since = now()
        # without checks, or the agent's own health would end it; without delay, or the key stays locked for 15 s
        id = await self._call(
            lambda agent: agent.session.create(name="netd", checks=[], lock_delay=0, behavior="delete", ttl=seconds)
        )
        return self._leases.keep(id, seconds, since, partial(self._renew, id), partial(self._destroy, id))

    async def close(self) -> None:
        self._closing.set()
        self._leases.stop()
        for agent in self._agents:
            await agent.close()

    # ---- keys and transactions -------------------------------------------------------------------------

    def _entry(self, row: dict[str, Any]) -> Entry:
        return Entry(row["Key"].removeprefix(self._prefix), row["Value"] or b"", row["ModifyIndex"])

    def _operation(self, verb: str, key: str, **rest: Any) -> dict[str, Any]:
        return {"KV": {"Verb": verb, "Key": self._prefix + key, **rest}}

    async def _at_version(self, key: str, version: int, then: dict[str, Any]) -> int:
        try:
            return await self._transaction(self._operation("check-index", key, Index=version), then)
        except _Conflict as conflict:
            raise VersionMismatch(f"key {key!r} is no longer at version {version}") from conflict

    async def _transaction(self, *operations: dict[str, Any]) -> int:
        """Carry out all or none; the version of what was written last. Raises `_Conflict`."""
        answer = await self._call(lambda agent: agent.txn.put(list(operations)))
        results = answer.get("Results") or [{"KV": {"ModifyIndex": 0}}]
        return int(results[-1]["KV"]["ModifyIndex"])

    # ---- leases ----------------------------------------------------------------------------------------

    async def _renew(self, id: str) -> bool:
        try:
            await self._call(lambda agent: agent.session.renew(id))
        except LeaseLost:
            return False
        return True

    async def _destroy(self, id: str) -> None:
        await self._call(lambda agent: agent.session.destroy(id))

    # ---- calls -----------------------------------------------------------------------------------------

    async def _query(self, prefix: str, index: int) -> tuple[int, Any]:
        """The entries under a prefix once their index is above `index`, or after `WAIT` seconds."""
        index_now, rows = await self._call(
            lambda agent: agent.kv.get(
                self._prefix + prefix,
                recurse=True,
                index=index,
                wait=f"{WAIT}s",
                # a server that has just started may know of nothing yet, and would tell so
                consistency="default" if index else "consistent",
                connections_timeout=TIMEOUT + WAIT * 17 / 16,
            ),
            reads=True,
        )
        return int(index_now), rows or ()

    async def _call(self, request: Callable[[Any], Awaitable[Any]], *, reads: bool = False) -> Any:
        """One request. Only what cannot have been applied, or only reads, is tried at the next agent."""
        self._closing.check()
        for left in reversed(range(len(self._agents))):
            agent = self._agents.best
            try:
                return await request(agent)
            except (ACLDisabled, ACLPermissionDenied) as error:
                raise StoreDenied(f"the store {self._cluster.where} refused: {error}") from error
            except NotFound as error:
                raise LeaseLost(str(error)) from error
            except ClientError as error:
                if str(error).startswith("409 "):
                    raise self._refused(_reasons(str(error))) from error
                raise self._unavailable(error) from error
            except _LOST as error:
                self._agents.failed(agent)
                if not left or not (reads or isinstance(error, http.UNSENT)):
                    raise self._unavailable(error) from error
        raise AssertionError("a cluster has at least one agent")

    def _refused(self, reasons: str) -> Exception:
        """Of a transaction: it would have met a conflict, or lacks a permission, which looks the same."""
        if "Permission denied" in reasons:
            return StoreDenied(f"the store {self._cluster.where} refused: {reasons}")
        return _Conflict(reasons)

    def _unavailable(self, error: Exception) -> StoreUnavailable:
        return StoreUnavailable(f"the store {self._cluster.where} does not answer: {error or type(error).__name__}")


def _b64(data: bytes) -> str:
    return b64encode(data).decode()


def _reasons(text: str) -> str:
    """What a refused transaction says of its operations: `409 {"Errors": [{"What": ...}]}`."""
    try:
        return "; ".join(error["What"] for error in json.loads(text.removeprefix("409 "))["Errors"])
    except (ValueError, KeyError, TypeError):
        return text
