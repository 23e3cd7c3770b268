"""A daemon with nothing behind it: the real API over managers that live in memory.

It runs in a thread of its own, so that tests talk to it with blocking clients, as users do.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import uvloop

from netd.api.routes import ROUTES
from netd.api.server.app import Api
from netd.api.server.listen import Listeners
from netd.api.server.services import Services
from netd.config.values import Config
from netd.containers.execs import Exec
from netd.core.errors import Conflict, NotFound, NotModified
from netd.core.events import EventBus
from netd.core.filters import Filters
from netd.launcher.streams import STDERR, STDOUT, Told
from netd.model.containers import ContainerCreate, ExecConfig
from netd.model.networks import NetworkConnect, NetworkCreate
from tests.unix_http import Reply, request

CONTAINER_ID = "c0ffee" + "0" * 58
EXEC_ID = "e" * 64


class Process:
    """The streams of an imaginary `cat` that says how much it read when its input ends."""

    def __init__(self, *, tty: bool = False) -> None:
        self.tty = tty
        self.output: asyncio.Queue[tuple[int, bytes] | None] = asyncio.Queue()
        self.read = 0
        self.input_ended = asyncio.Event()
        self.echo = True
        self.may_read = asyncio.Event()
        self.may_read.set()
        self.closed = asyncio.Event()

    async def frames(self) -> AsyncIterator[tuple[int, bytes]]:
        while (item := await self.output.get()) is not None:
            yield item

    async def write(self, data: bytes) -> None:
        await self.may_read.wait()
        self.read += len(data)
        if self.echo:
            self.output.put_nowait((STDOUT, data))

    async def close_stdin(self) -> None:
        self.input_ended.set()
        self.output.put_nowait((STDERR, b"read %d bytes\n" % self.read))
        self.output.put_nowait(None)

    async def close(self) -> None:
        self.closed.set()


@dataclass
class Networks:
    """Remembers what it was asked for."""

    created: list[NetworkCreate] = field(default_factory=list)
    failure: BaseException | None = None

    async def create(self, request: NetworkCreate) -> tuple[str, str]:
        if self.failure:
            raise self.failure
        self.created.append(request)
        return "1" * 64, ""

    async def inspect(self, ref: str, *, scope: str = "") -> dict[str, Any]:
        if ref != "shop":
            raise NotFound(f"network {ref} not found")
        return self._view()

    def _view(self) -> dict[str, Any]:
        return {"Name": "shop", "Id": "1" * 64, "EnableIPv4": True, "EnableIPv6": False}

    def list(self, filters: Filters) -> list[dict[str, Any]]:
        filters.check("name")
        return [self._view()] if filters.match("name", "shop") else []

    async def remove(self, ref: str) -> None:
        await self.inspect(ref)

    async def prune(self, filters: Filters) -> list[str]:
        return []


@dataclass
class Containers:
    """One container `web` that runs and `idle` that does not."""

    connected: list[NetworkConnect] = field(default_factory=list)
    created: list[ContainerCreate] = field(default_factory=list)
    ended: asyncio.Future[tuple[int, str]] | None = None
    slow: float = 0
    starting: int = 0
    started: int = 0
    waiting: int = 0

    async def connect(self, network: str, body: NetworkConnect) -> None:
        self.connected.append(body)

    async def create(self, body: ContainerCreate, name: str) -> tuple[str, list[str]]:
        self.created.append(body)
        return CONTAINER_ID, []

    async def start(self, ref: str) -> None:
        if ref == "web":
            raise NotModified("container already started")
        self.starting += 1
        await asyncio.sleep(self.slow)
        self.started += 1

    def inspect(self, ref: str) -> dict[str, Any]:
        if ref not in ("web", CONTAINER_ID):
            raise NotFound(f"No such container: {ref}")
        endpoint = {"Aliases": None, "DNSNames": ["web"], "GwPriority": 0, "IPAddress": "10.0.0.2"}
        return {
            "Id": CONTAINER_ID,
            "Name": "/web",
            "State": {"Status": "running", "Running": True, "Paused": False, "Restarting": False, "ExitCode": 0},
            "Config": {"Tty": False, "OpenStdin": True, "AttachStdin": True},
            "NetworkSettings": {"Networks": {"shop": endpoint}},
        }

    def list(self, *, all: bool, limit: int, filters: Filters) -> list[dict[str, Any]]:
        return []

    def wait(self, ref: str, condition: str = "not-running") -> Coroutine[Any, Any, tuple[int, str]]:
        self.inspect(ref)
        self.ended = asyncio.get_running_loop().create_future()
        return self._outcome(self.ended)

    async def _outcome(self, ended: asyncio.Future[tuple[int, str]]) -> tuple[int, str]:
        self.waiting += 1
        try:
            return await ended
        finally:
            self.waiting -= 1


@dataclass
class ContainerStreams:
    """Every attachment and every exec is a fresh `Process`."""

    processes: list[Process] = field(default_factory=list)
    tty: bool = False

    @property
    def execs(self) -> Execs:
        return Execs(self)

    def _process(self) -> Process:
        self.processes.append(Process(tty=self.tty))
        return self.processes[-1]

    async def attach(self, ref: str, **_: bool) -> Process:
        if ref == "paused":
            raise Conflict("container paused is paused, unpause the container before attach")
        return self._process()

    async def logs(self, ref: str, *, follow: bool, **_: Any) -> tuple[bool, AsyncIterator[tuple[int, bytes]]]:
        async def frames() -> AsyncIterator[tuple[int, bytes]]:
            yield STDOUT, b"out\n"
            yield STDERR, b"err\n"
            if follow:
                await asyncio.Event().wait()

        return self.tty, frames()


@dataclass
class Execs:
    """Any exec can be started, but for those with another id than `EXEC_ID`."""

    streams: ContainerStreams

    def create(self, ref: str, config: ExecConfig) -> str:
        return EXEC_ID

    def find(self, exec_id: str) -> Exec:
        config = ExecConfig(tty=self.streams.tty, attach_stdin=True)
        return Exec(exec_id, CONTAINER_ID, "", config)

    async def start(self, exec_id: str) -> None:
        return None

    def attach(self, exec_id: str) -> Process | Told:
        if exec_id == EXEC_ID:
            return self.streams._process()
        words = 'OCI runtime exec failed: "nosuch": executable file not found in $PATH'
        return Told(words, tty=self.streams.tty)

    def inspect(self, exec_id: str) -> dict[str, Any]:
        config = {"tty": self.streams.tty}
        return {"ID": exec_id, "OpenStdin": True, "ProcessConfig": config, "ExitCode": None, "Running": False, "Pid": 1}


class System:
    def version(self) -> dict[str, Any]:
        return {"Version": "0", "ApiVersion": "1.48", "MinAPIVersion": "1.24", "Os": "linux", "Arch": "amd64"}

    async def info(self) -> dict[str, Any]:
        return {"ID": "x"}


class Images:
    imported = b""

    async def import_tar(self, chunks: AsyncIterator[bytes], **_: Any) -> Any:
        @dataclass
        class Image:
            id: str

        self.imported = b"".join([chunk async for chunk in chunks])
        return Image(f"sha256:{len(self.imported)}")


class Double:
    """The API on a unix socket, in a thread with its own event loop."""

    def __init__(self, path: Path, **options: Any) -> None:
        self.path = path
        self.networks = Networks()
        self.containers = Containers()
        self.streams = ContainerStreams()
        self.images = Images()
        self.events = EventBus()
        self._config = Config(**{"hosts": (f"unix://{path}",), **options})
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: uvloop.run(self._run()))
        self._failure: BaseException | None = None

    def __enter__(self) -> Double:
        self._thread.start()
        self._ready.wait()
        if self._failure:
            self._thread.join()
            raise self._failure
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    async def _run(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        parts: Any = (self.networks, self.containers, self.images, self.events, System(), self.streams)
        absent = dict.fromkeys(("attached", "naming", "metrics", "hosts"), cast(Any, None))
        self.api = Api(Services(*parts, **absent), ROUTES)
        listeners = Listeners(self.api, self._config)
        try:
            await listeners.start()
        except BaseException as error:
            self._failure = error
            return
        finally:
            self._ready.set()
        await self._stop.wait()
        await listeners.stop()

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run something in the server's loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(10)

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        async def inside() -> Any:
            return function(*arguments)

        return self.run(inside())

    def request(self, method: str, path: str, body: Any = None, *, headers: dict[str, str] | None = None) -> Reply:
        """One request on a connection of its own; a body that is not bytes is sent as JSON."""
        return request(self.path, method, path, body, headers=headers, timeout=10)

    def connect(self) -> socket.socket:
        """A bare connection."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(10)
        connection.connect(str(self.path))
        return connection

    def raw(self, data: bytes, *, half_close: bool = False) -> bytes:
        """Everything that comes back for these bytes."""
        with self.connect() as connection:
            connection.sendall(data)
            if half_close:
                connection.shutdown(socket.SHUT_WR)
            return read_all(connection)

    def process(self) -> Process:
        return cast(Process, self.streams.processes[-1])


def read_all(connection: socket.socket) -> bytes:
    """Until the peer closes."""
    pieces = []
    while piece := connection.recv(65536):
        pieces.append(piece)
    return b"".join(pieces)
