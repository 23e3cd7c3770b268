"""What the cluster backends share: where the servers are, how we prove who we are, how long we wait."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar
from urllib.parse import urlsplit

from kvstore.contract import StoreUnavailable

T = TypeVar("T")

TIMEOUT = 5.0  # seconds for one request
ATTEMPT = 1.5  # seconds for one request where another server can be asked
SILENCE = 3  # seconds without a sign of life after which a connection's other end counts as gone
RELIST = 300.0  # seconds after which a watch compares itself with the full state, whatever it was told
RETRY = (0.1, 1.0)  # seconds before a server that is away is tried again: at first, at most
OPTIONS = ("cacertfile", "certfile", "keyfile", "user", "passwordfile", "path", "ttl")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One server."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Cluster:
    """A parsed store URL with its options. `path` begins every key, with a slash at its end."""

    scheme: str
    endpoints: tuple[Endpoint, ...]
    path: str
    user: str = ""
    password: str = ""
    cacertfile: str = ""
    certfile: str = ""
    keyfile: str = ""
    min_ttl: float = 0.0

    @property
    def secured(self) -> bool:
        return bool(self.cacertfile or self.certfile)

    def tls(self) -> ssl.SSLContext | None:
        """A context if any TLS option is given; server certificates are always verified."""
        if not self.secured:
            return None
        context = ssl.create_default_context(cafile=self.cacertfile or None)
        if self.certfile:
            context.load_cert_chain(self.certfile, self.keyfile or None)
        return context

    @property
    def attempt(self) -> float:
        """Seconds that one server has for one request."""
        return ATTEMPT if len(self.endpoints) > 1 else TIMEOUT

    @property
    def connect(self) -> float:
        """Seconds of an attempt that making a connection may take."""
        return self.attempt * 2 / 3

    @property
    def where(self) -> str:
        """How messages name the store."""
        return f"{self.scheme}://{','.join(map(str, self.endpoints))}"


def parse(url: str, options: Mapping[str, str], default_port: int) -> Cluster:
    """`scheme://host[:port][,host[:port]...][/path]` and `kv.*` options; raises ValueError in plain words."""
    scheme, _, rest = url.partition("://")
    hosts, _, path = rest.partition("/")
    known = {name: options.get(f"kv.{name}", "") for name in OPTIONS}
    if unknown := sorted(options.keys() - {f"kv.{name}" for name in OPTIONS}):
        raise ValueError(f"unknown option of the cluster store: {', '.join(unknown)}")
    password = Path(known["passwordfile"]).read_text().strip() if known["passwordfile"] else ""
    return Cluster(
        scheme,
        tuple(_endpoint(host, url, default_port) for host in hosts.split(",")),
        (known["path"] or path or "netd").strip("/") + "/",
        known["user"],
        password,
        known["cacertfile"],
        known["certfile"],
        known["keyfile"],
        _seconds(known["ttl"]),
    )


def _endpoint(text: str, url: str, default_port: int) -> Endpoint:
    parts = urlsplit(f"//{text}")
    try:
        host, port = parts.hostname, parts.port or default_port
    except ValueError as error:
        raise ValueError(f"invalid address {text!r} in the store URL {url!r}: {error}") from error
    if not host:
        raise ValueError(f"a server's address is missing in the store URL {url!r}")
    return Endpoint(host, port)


def _seconds(text: str) -> float:
    try:
        return float(text or 0)
    except ValueError:
        raise ValueError(f"invalid kv.ttl {text!r}: use a number of seconds") from None


class Servers(Generic[T]):
    """The servers of a cluster, in the order in which to ask them: what failed last comes last."""

    def __init__(self, servers: Iterable[T]) -> None:
        self._order = list(servers)

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[T]:
        return iter(self._order)

    @property
    def best(self) -> T:
        return self._order[0]

    def failed(self, server: T) -> None:
        """This one did not answer, or could not help."""
        self._order.remove(server)
        self._order.append(server)


def notice_death(connection: socket.socket) -> None:
    """Have the kernel end a connection soon after the other host lost its power or its cable, idle or not.

    Without this a request that was sent waits for minutes, and a watch that hears nothing for ever (tcp(7)).
    """
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, SILENCE)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENCE * 1000)


class Closing:
    """Set once, when the store closes; whatever waits for a server through it ends then."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def __bool__(self) -> bool:
        return self._event.is_set()

    def set(self) -> None:
        self._event.set()

    def check(self) -> None:
        if self:
            raise StoreUnavailable("the store is closed")

    async def wait_for(self, work: Awaitable[T]) -> T:
        """The result of `work`, which is cancelled when the store closes; raises `StoreUnavailable` then."""
        doing = asyncio.ensure_future(work)
        closing = asyncio.ensure_future(self._event.wait())
        try:
            await asyncio.wait({doing, closing}, return_when=asyncio.FIRST_COMPLETED)
            if doing.done():
                return doing.result()
            self.check()
            raise AssertionError("neither done nor closing")
        finally:
            closing.cancel()
            if not doing.done():
                doing.cancel()
                await asyncio.wait({doing})

    async def pause(self, seconds: float) -> None:
        """Sleep, or until the store closes."""
        try:
            await asyncio.wait_for(self._event.wait(), seconds)
        except TimeoutError:
            return


def backoff(attempt: int) -> float:
    """Seconds to wait before retry number `attempt`, counted from 0."""
    return min(RETRY[0] * 2.0 ** min(attempt, 16), RETRY[1])
