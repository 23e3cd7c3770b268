"""One ZooKeeper session: kazoo with its threads and sockets on one side, awaitables on the other."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Sequence
from errno import ECONNABORTED
from typing import Any

from kazoo.client import KazooClient  # type: ignore[import-untyped]
from kazoo.exceptions import (  # type: ignore[import-untyped]
    AuthFailedError,
    BadVersionError,
    KazooException,
    NoAuthError,
    NodeExistsError,
    NoNodeError,
    NotEmptyError,
    SessionExpiredError,
)
from kazoo.handlers.threading import KazooTimeoutError, SequentialThreadingHandler  # type: ignore[import-untyped]
from kazoo.protocol.states import KazooState  # type: ignore[import-untyped]
from kazoo.security import make_digest_acl  # type: ignore[import-untyped]

from kvstore.cluster import RETRY, Closing, Cluster, notice_death
from kvstore.contract import StoreDenied, StoreUnavailable, now

SESSION = 10.0  # seconds, of the store's own session; leases have sessions of their own
ANSWER = 1.0  # seconds that a server has at first to answer who connects: one that is just starting may never do so
MOMENT = 1.0  # seconds that a client which is just connecting is given
SHUN = 5.0  # seconds in which a server that did not answer is not connected to
PARALLEL = 64  # requests under way at a time: more of them would fill the pipe that wakes kazoo

Request = Callable[[KazooClient], Any]  # starts one asynchronous call


class _Threads(SequentialThreadingHandler):  # type: ignore[misc]
    """kazoo's threads. The connections are made here, so that they can be secured, watched over and cut."""

    def __init__(self, cluster: Cluster, answered: Callable[[], bool]) -> None:
        super().__init__()
        self.connection: socket.socket | None = None
        self.left = threading.Event()
        self.patience = ANSWER
        self._answered = answered
        self._loop = asyncio.get_running_loop()
        self._cluster = cluster
        self._tls = cluster.tls()
        self._shunned: tuple[Any, float] = (None, 0.0)

    def create_connection(self, address: tuple[str, int], hostname: str | None = None, **_: Any) -> socket.socket:
        """What kazoo calls for a connection; it takes an OSError for a server that is away."""
        if self.left.is_set():
            raise ConnectionAbortedError(ECONNABORTED, "the session is left to run out")
        if address == self._shunned[0] and now() < self._shunned[1]:
            raise ConnectionAbortedError(ECONNABORTED, "it did not answer a moment ago")
        connection = socket.create_connection(address, self._cluster.connect)
        try:
            notice_death(connection)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_hostname=hostname)
        except BaseException:
            connection.close()
            raise
        self.connection = connection
        if self.left.is_set():
            _cut(connection)
        self._loop.call_soon_threadsafe(self._loop.call_later, self.patience, self._give_up, connection)
        return connection

    def _give_up(self, connection: socket.socket) -> None:
        """Cut a connection that was not answered: kazoo would wait for as long as the session lasts."""
        if connection is self.connection and not self._answered():
            self.patience *= 2  # the server may be slow
            _cut(connection)

    def shun(self, connection: socket.socket | None) -> None:
        """Its server does not answer: cut it, so that kazoo turns to another."""
        if connection is not None and connection is self.connection:
            with contextlib.suppress(OSError):
                self._shunned = connection.getpeername()[:2], now() + SHUN
            _cut(connection)

    def leave(self) -> None:
        """Say nothing to the servers any more, not even good-bye."""
        self.left.set()
        if self.connection is not None:
            _cut(self.connection)


def _cut(connection: socket.socket) -> None:
    # not the method of a TLS connection: that would go on in the clear for a moment
    with contextlib.suppress(OSError):
        socket.socket.shutdown(connection, socket.SHUT_RDWR)


class Session:
    """A session that kazoo keeps alive, and its requests. Make it in a running loop.

    With `once`, nothing is done through it any more after the servers have ended it; else a new one follows.
    """

    def __init__(self, cluster: Cluster, closing: Closing, seconds: float = SESSION, *, once: bool = False) -> None:
        self._cluster, self._closing, self._once = cluster, closing, once
        self._threads = _Threads(cluster, lambda: bool(self.client.connected))
        self._grace = min(seconds, SESSION) / 3
        self._suspended = 0.0
        self._ending: asyncio.Future[None] | None = None
        credentials = f"{cluster.user}:{cluster.password}"
        self.client = KazooClient(
            hosts=",".join(map(str, cluster.endpoints)),
            timeout=seconds,
            handler=self._threads,
            connection_retry={"max_tries": -1, "delay": RETRY[0], "max_delay": RETRY[1]},
            auth_data=[("digest", credentials)] if cluster.user else None,
            default_acl=[make_digest_acl(cluster.user, cluster.password, all=True)] if cluster.user else None,
        )
        self.client.add_listener(self._heard)
        self.client.start_async()

    def _heard(self, state: str) -> None:
        """In a thread of kazoo, which waits: a new session begins only after this."""
        if state == KazooState.SUSPENDED:
            self._suspended = now()
        elif state == KazooState.CONNECTED:
            self._threads.patience = ANSWER
        elif state == KazooState.LOST and self._once:
            self._threads.left.set()

    @property
    def alive(self) -> bool:
        """Whether it lasts for certain: when a silence is noticed, the servers may have heard nothing for 2/3 of it."""
        if self._threads.left.is_set() or self._ending is not None:
            return False
        return bool(self.client.connected) or now() < self._suspended + self._grace

    @property
    def over(self) -> bool:
        """Whether the servers have ended it for good, which `once` makes of their ending it."""
        return self._threads.left.is_set()

    async def connected(self, patience: float = MOMENT) -> None:
        """Wait for a connection. Raises `StoreUnavailable`."""
        until = now() + patience
        while not self.client.connected:
            if now() > until:
                raise self._unavailable("no connection")
            await self._closing.pause(0.05)
            self._closing.check()

    async def call(self, request: Request, **default: Any) -> Any:
        """The result of one request; see `calls`."""
        (result,) = await self.calls([request], **default)
        return result

    async def calls(self, requests: Sequence[Request], **default: Any) -> list[Any]:
        """The results of independent requests; `absent=` is the answer for a node that is not there.

        What is asked for while there is no connection would wait in kazoo and be carried out later: it is refused.
        Raises what kazoo does where it tells of nodes and versions, else `StoreUnavailable` or `StoreDenied`.
        """
        results: list[Any] = []
        for first in range(0, len(requests), PARALLEL):
            self._closing.check()
            await self.connected()
            through = self._threads.connection
            pending = [request(self.client) for request in requests[first : first + PARALLEL]]
            try:
                async with asyncio.timeout(self._cluster.attempt):
                    await _settled(pending)
            except TimeoutError as error:
                if len(self._cluster.endpoints) > 1:
                    self._threads.shun(through)
                raise self._unavailable("no answer in time") from error
            results += [self._result(answer, default) for answer in pending]
        return results

    def _result(self, answer: Any, default: dict[str, Any]) -> Any:
        error = answer.exception
        if error is None:
            return answer.value
        if isinstance(error, NoNodeError) and "absent" in default:
            return default["absent"]
        if isinstance(error, (NoNodeError, NodeExistsError, NotEmptyError, BadVersionError)):
            raise error
        if isinstance(error, (NoAuthError, AuthFailedError)):
            raise self.denied(error) from error
        if isinstance(error, SessionExpiredError):
            raise self._unavailable("the session has expired") from error
        if isinstance(error, (KazooException, KazooTimeoutError)):
            raise self._unavailable(str(error) or type(error).__name__) from error
        raise error

    def denied(self, error: Exception) -> StoreDenied:
        return StoreDenied(f"the store {self._cluster.where} refused us: {type(error).__name__}")

    def _unavailable(self, reason: str) -> StoreUnavailable:
        return StoreUnavailable(f"the store {self._cluster.where} does not answer: {reason}")

    async def end(self) -> None:
        """Close the session: what lives as long as it goes at once, or after its time-out if no server is reached."""
        if self._ending is None:
            self._ending = asyncio.ensure_future(asyncio.to_thread(self._stop))
        await asyncio.shield(self._ending)

    async def leave(self) -> None:
        """Go without a word: the session, and what lives as long, lasts until its time-out."""
        if self._ending is None:
            self._threads.leave()
        await self.end()

    def _stop(self) -> None:
        self.client.stop()
        self.client.close()


def _settled(pending: Sequence[Any]) -> asyncio.Future[None]:
    """Done when all that kazoo was asked for has been answered, one way or the other."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()
    answered: list[Any] = []

    def settle() -> None:
        if not future.done():
            future.set_result(None)

    def count(answer: Any) -> None:  # in a thread of kazoo
        answered.append(answer)
        if len(answered) == len(pending):
            loop.call_soon_threadsafe(settle)

    for answer in pending:
        answer.rawlink(count)
    return future
