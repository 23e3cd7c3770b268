"""The etcd backend, on etcd's own JSON gateway (`/v3/...`, part of every etcd since 3.4) over aiohttp.

Keys and values travel in base64, 64-bit numbers as strings; what is zero, false or empty is left out.
"""

from __future__ import annotations

import json
import math
import time
from base64 import b64decode, b64encode
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any

import aiohttp

from kvstore import http
from kvstore.cluster import RELIST, Closing, Cluster, Servers, backoff
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
from kvstore.limits import Entries, check_size

WATCH_SILENCE = 30.0  # seconds without a word on a watch until it is opened anew, perhaps elsewhere
MIN_TTL = 2.0  # seconds, with etcd's default election time-out

# codes of gRPC, which the gateway passes on
NOT_FOUND, PERMISSION_DENIED, INVALID_ARGUMENT, UNAUTHENTICATED = 5, 7, 3, 16


class _Refused(Exception):
    """etcd answered with an error."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class EtcdStore:
    """`kvstore.contract.Store` on an etcd cluster."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._prefix = cluster.path
        scheme = "https" if cluster.secured else "http"
        self._servers = Servers(f"{scheme}://{endpoint}" for endpoint in cluster.endpoints)
        self._http = http.session(cluster)
        self._token = ""
        self._leases = Leases()
        self._closing = Closing()

    # ---- the contract ----------------------------------------------------------------------------------

    async def get(self, key: str) -> Entry | None:
        answer = await self._call("kv/range", {"key": self._name(key)}, reads=True)
        return next((self._entry(kv) for kv in answer.get("kvs", ())), None)

    async def list(self, prefix: str) -> list[Entry]:
        entries, _ = await self._snapshot(prefix)
        return entries

    async def create(self, key: str, value: bytes, lease: Lease | None = None) -> Entry:
        check_size(key, value)
        put = {"key": self._name(key), "value": _b64(value), "lease": lease_id_of(lease) if lease else "0"}
        absent = {"key": put["key"], "target": "CREATE", "create_revision": "0"}
        try:
            answer = await self._transaction(absent, {"request_put": put})
        except _Refused as refused:
            raise LeaseLost(f"key {key!r} cannot be created: its lease has ended") from refused
        if not answer.get("succeeded"):
            raise KeyExists(f"key {key!r} exists already")
        return Entry(key, value, int(answer["header"]["revision"]))

    async def cas(self, key: str, value: bytes, version: int) -> Entry:
        check_size(key, value)
        put = {"key": self._name(key), "value": _b64(value), "ignore_lease": True}
        answer = await self._at_version(key, version, {"request_put": put})
        return Entry(key, value, int(answer["header"]["revision"]))

    async def delete(self, key: str, version: int | None = None) -> None:
        request = {"key": self._name(key)}
        if version is None:
            await self._call("kv/deleterange", request)
        else:
            await self._at_version(key, version, {"request_delete_range": request})

    async def watch(self, prefix: str) -> AsyncIterator[Change]:
        seen: dict[str, int] = {}
        told, attempt = False, 0
        while not self._closing:
            try:
                entries, revision = await self._snapshot(prefix)
                change = difference(seen, None, entries)
                if change.puts or change.deletes or not told:
                    yield change
                told, attempt = True, 0
                async with aclosing(self._events(prefix, revision + 1)) as events:
                    async for keys, entries in events:
                        change = difference(seen, keys, entries)
                        if change.puts or change.deletes:
                            yield change
            except StoreUnavailable:
                await self._closing.pause(backoff(attempt))
                attempt += 1

    async def lease(self, ttl: float) -> Lease:
        seconds = math.ceil(max(ttl, MIN_TTL, self._cluster.min_ttl))
        since = now()
        answer = await self._call("lease/grant", {"TTL": str(seconds)})
        id = answer["ID"]
        return self._leases.keep(id, seconds, since, partial(self._renew, id), partial(self._revoke, id))

    async def close(self) -> None:
        self._closing.set()
        self._leases.stop()
        await self._http.close()

    # ---- keys and transactions -------------------------------------------------------------------------

    def _name(self, key: str) -> str:
        return _b64((self._prefix + key).encode())

    def _entry(self, kv: dict[str, str]) -> Entry:
        key = b64decode(kv["key"]).decode().removeprefix(self._prefix)
        return Entry(key, b64decode(kv.get("value", "")), int(kv["mod_revision"]))

    def _range(self, prefix: str) -> dict[str, str]:
        """All keys with the prefix: up to the prefix with its last byte one higher."""
        first = (self._prefix + prefix).encode()
        return {"key": _b64(first), "range_end": _b64(first[:-1] + bytes([first[-1] + 1]))}

    async def _snapshot(self, prefix: str) -> tuple[Entries, int]:
        """The entries under a prefix, and the revision at which they were so."""
        answer = await self._call("kv/range", self._range(prefix), reads=True)
        return [self._entry(kv) for kv in answer.get("kvs", ())], int(answer["header"]["revision"])

    async def _transaction(self, condition: dict[str, Any], then: dict[str, Any]) -> dict[str, Any]:
        compare = {"result": "EQUAL", **condition}
        return await self._call("kv/txn", {"compare": [compare], "success": [then]}, expected=(NOT_FOUND,))

    async def _at_version(self, key: str, version: int, then: dict[str, Any]) -> dict[str, Any]:
        condition = {"key": self._name(key), "target": "MOD", "mod_revision": str(version)}
        answer = await self._transaction(condition, then)
        # revision 0 stands for "absent" in etcd's comparison, never for a version of ours
        if version == 0 or not answer.get("succeeded"):
            raise VersionMismatch(f"key {key!r} is no longer at version {version}")
        return answer

    # ---- leases ----------------------------------------------------------------------------------------

    async def _renew(self, id: str) -> bool:
        """A lease that is gone is answered like a live one, but without a TTL."""
        answer = await self._call("lease/keepalive", {"ID": id})
        return int(answer.get("result", {}).get("TTL", 0)) > 0

    async def _revoke(self, id: str) -> None:
        try:
            await self._call("lease/revoke", {"ID": id}, expected=(NOT_FOUND,))
        except _Refused:
            return  # it was gone already

    # ---- watching --------------------------------------------------------------------------------------

    async def _events(self, prefix: str, revision: int) -> AsyncGenerator[tuple[set[str], Entries], None]:
        """Keys that changed, with the entries they have now; ends when a fresh look at everything is due."""
        until = time.monotonic() + RELIST
        while time.monotonic() < until:
            request = {"create_request": {**self._range(prefix), "start_revision": str(revision)}}
            async with aclosing(self._stream("watch", request)) as results:
                async for result in results:
                    if result.get("canceled"):
                        return  # compacted away, or our token has run out: listing again tells
                    if told := result.get("events"):
                        # the header's revision may be ahead of what was delivered
                        revision = max(int(event["kv"]["mod_revision"]) for event in told) + 1
                        newest = self._newest(told)
                        yield set(newest), [entry for entry in newest.values() if entry]
                    if time.monotonic() >= until:
                        return

    def _newest(self, events: Sequence[dict[str, Any]]) -> dict[str, Entry | None]:
        """What events leave behind, by key; None for a deleted one."""
        newest: dict[str, Entry | None] = {}
        for event in events:
            entry = self._entry(event["kv"])
            newest[entry.key] = None if event.get("type") == "DELETE" else entry
        return newest

    async def _stream(self, path: str, body: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """The results of a streaming call, one a line; ends after a silence. Raises `StoreUnavailable`."""
        server = self._servers.best
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=self._cluster.connect, sock_read=WATCH_SILENCE)
        try:
            await self._authenticate(server)
            async with self._http.post(
                f"{server}/v3/{path}", json=body, headers=self._headers(), timeout=timeout
            ) as response:
                rest = b""
                while chunk := await self._closing.wait_for(response.content.readany()):
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        yield _result(line)
        except aiohttp.SocketTimeoutError:
            return  # perhaps there was nothing to tell
        except (aiohttp.ClientError, OSError, _Refused) as error:
            self._servers.failed(server)
            raise self._unavailable(error) from error
        self._servers.failed(server)
        raise StoreUnavailable(f"the store {self._cluster.where} ended a watch")

    # ---- calls -----------------------------------------------------------------------------------------

    async def _call(
        self, path: str, body: dict[str, Any], *, reads: bool = False, expected: tuple[int, ...] = ()
    ) -> dict[str, Any]:
        """One request. Only what cannot have been applied, or only reads, is tried at the next server.

        Raises `_Refused` for the `expected` codes, else `StoreUnavailable` or `StoreDenied`.
        """
        self._closing.check()
        for left in reversed(range(len(self._servers))):
            server = self._servers.best
            try:
                return await self._authenticated(server, path, body)
            except _Refused as refused:
                if refused.code in expected:
                    raise
                if refused.code in (PERMISSION_DENIED, UNAUTHENTICATED, INVALID_ARGUMENT):
                    raise StoreDenied(f"the store {self._cluster.where} refused: {refused}") from refused
                self._servers.failed(server)  # a member without a leader, for one
                if not left or not reads:
                    raise self._unavailable(refused) from refused
            except (aiohttp.ClientError, OSError) as error:
                self._servers.failed(server)
                if not left or not (reads or isinstance(error, http.UNSENT)):
                    raise self._unavailable(error) from error
        raise AssertionError("a cluster has at least one server")

    async def _authenticated(self, server: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        await self._authenticate(server)
        try:
            return await self._post(server, path, body)
        except _Refused as refused:
            # tokens live for five minutes; a refused request was not applied
            if not self._cluster.user or refused.code not in (UNAUTHENTICATED, INVALID_ARGUMENT):
                raise
        self._token = ""
        await self._authenticate(server)
        return await self._post(server, path, body)

    async def _authenticate(self, server: str) -> None:
        if self._cluster.user and not self._token:
            credentials = {"name": self._cluster.user, "password": self._cluster.password}
            answer = await self._post(server, "auth/authenticate", credentials)
            self._token = answer["token"]

    def _headers(self) -> dict[str, str]:
        return {"Authorization": self._token} if self._token else {}

    async def _post(self, server: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        async with self._http.post(f"{server}/v3/{path}", json=body, headers=self._headers()) as response:
            text = await response.text()
            if response.status == 200 and text:
                answer: dict[str, Any] = json.loads(text)
                return answer
            raise _refusal(text, response.status)

    def _unavailable(self, error: Exception) -> StoreUnavailable:
        return StoreUnavailable(f"the store {self._cluster.where} does not answer: {error or type(error).__name__}")


def _b64(data: bytes) -> str:
    return b64encode(data).decode()


def _refusal(text: str, status: int) -> _Refused:
    try:
        answer = json.loads(text)
        return _Refused(int(answer.get("code", 0)), answer.get("message") or answer.get("error") or f"HTTP {status}")
    except (ValueError, AttributeError, TypeError):
        return _Refused(0, text.strip()[:200] or f"HTTP {status} without a word")


def _result(line: bytes) -> dict[str, Any]:
    answer = json.loads(line)
    if "result" not in answer:
        raise StoreUnavailable(f"the store ended a watch: {answer.get('error', answer)}")
    result: dict[str, Any] = answer["result"]
    return result
