"""The daemon's side of the control protocol: `Resolver`.

The resolver process outlives the daemon and the daemon outlives the resolver process. When the process is
gone it is started again, and then everyone who asked with `on_lost` is told that it knows nothing yet.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import sys
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from dns import control, handover, wire, zone
from dns.control import Explanation, Frames, KernelState, LogEntry, Message, Port, Ports, Reply, Request, ResolverState
from dns.views import Record, Route, Upstream, View, member, sandbox_view

__all__ = [
    "Explanation",
    "KernelState",
    "LogEntry",
    "Port",
    "Ports",
    "Record",
    "Resolver",
    "ResolverAway",
    "ResolverError",
    "ResolverState",
    "Route",
    "Upstream",
    "View",
    "check_record",
]

log = logging.getLogger(__name__)

START_TIMEOUT = 5.0  # seconds for a new process to listen
CALL_TIMEOUT = 5.0  # seconds for a request, the process's restart included
FOLLOW_AHEAD = 10_000  # log entries held for a slow reader; further ones are dropped

_T = TypeVar("_T")


class ResolverError(Exception):
    """The resolver cannot be reached, or refuses; the message is one sentence."""


class ResolverAway(ResolverError):
    """It did not answer: what was asked may be done or not, now or later, but before all that is asked after it."""


def check_record(line: str) -> None:
    """Raise `ResolverError` for what cannot be a static record."""
    try:
        zone.parse_record(line)
    except (zone.ZoneError, wire.Malformed) as error:
        raise ResolverError(str(error)) from None


class Resolver:
    """A connection to `netd-dns`, kept up until `close`.

    `lost` is set from the moment the process is gone until it listens again.
    """

    def __init__(self, path: Path, *, start: bool = True, kernel: str = "") -> None:
        self._path = path.absolute()
        self._start = start
        self._kernel = kernel
        self._sock: socket.socket | None = None
        self._connected = asyncio.Event()
        self._sending = asyncio.Lock()
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._streams: dict[int, asyncio.Queue[Any]] = {}
        self._number = 0
        self._callbacks: list[Callable[[], object]] = []
        self._keeper: asyncio.Task[None] | None = None
        self._child = 0
        self._version = ""
        self.kernel = KernelState()  # as of when the process was found
        self._predecessor: handover.Predecessor | None = None
        self.lost = asyncio.Event()

    @classmethod
    async def connect(cls, socket_path: Path, *, start: bool = True, kernel: str = "") -> Resolver:
        """Connect to the process that serves `socket_path`; with `start`, start one if none does.

        The process is detached: it has a session of its own and goes on when this one ends. When it cannot be
        reached within 5 s `lost` is set, and with `start` it is tried for on and on; without, `ResolverAway` is raised.

        `kernel` says whether questions are answered in the kernel: auto (if that is possible), on or off, or nothing
        to leave it as it is. With `on` the caller looks into `Resolver.kernel` whether they are.

        A process of another version, or with another word for `kernel`, is replaced, with `start`. It serves its
        sandboxes until `put_sandbox` or `delete_sandbox` names them: put the networks first.
        """
        resolver = cls(Path(socket_path), start=start, kernel=kernel)
        try:
            sock = await resolver._find()
        except ResolverAway as error:
            if not start:
                raise
            log.error("%s; trying on", error)
            resolver.lost.set()
            resolver._keeper = asyncio.create_task(resolver._keep(None))
        else:
            resolver._keeper = asyncio.create_task(resolver._keep(sock))
            await resolver._connected.wait()
        return resolver

    def on_lost(self, callback: Callable[[], object]) -> None:
        """Call `callback` each time a new process has taken the place of a dead one: tell it everything."""
        self._callbacks.append(callback)

    async def close(self) -> None:
        """Disconnect; the process goes on serving."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        self._disconnect()
        if self._predecessor is not None:
            self._predecessor.close()

    # ---- requests ---------------------------------------------------------------------------------------

    async def state(self) -> ResolverState:
        """What the process serves now."""
        state = msgspec.convert(await self._call(control.GetState()), ResolverState)
        inherited = {} if self._predecessor is None else self._predecessor.sandboxes
        return msgspec.structs.replace(state, sandboxes={**inherited, **state.sandboxes})

    async def put_network(
        self,
        network: str,
        name: str,
        records: Iterable[Record],
        options: Mapping[str, str] | None = None,
        subnets: Iterable[IPv4Network | IPv6Network | str] = (),
        static: Iterable[str] = (),
    ) -> None:
        """Replace a network's whole table in one step. Of `options` only `netd.dns.*` are looked at.

        `static` are lines of a zone file: `www 60 IN A 10.1.2.3`.
        """
        members = tuple(member(record) for record in records)
        own = {key: value for key, value in (options or {}).items() if key.startswith("netd.dns.")}
        pools = tuple(str(subnet) for subnet in subnets)
        await self._call(control.PutNetwork(network, name, members, own, pools, tuple(static)))

    async def delete_network(self, network: str) -> None:
        await self._call(control.DeleteNetwork(network))

    async def join(self, network: str, record: Record) -> None:
        """Add an endpoint, or replace what is known of it: visible to every sandbox when this returns."""
        await self._call(control.Join(network, member(record)))

    async def leave(self, network: str, endpoint: str) -> None:
        """Remove an endpoint; one that is not there is removed already."""
        await self._call(control.Leave(network, endpoint))

    async def put_record(self, network: str, line: str) -> None:
        """Add a static record to those of the table: `www 60 IN A 10.1.2.3`."""
        await self._call(control.PutRecord(network, line))

    async def delete_record(self, network: str, name: str, type: str = "") -> None:
        """Remove a name's static records, of one type or of all."""
        await self._call(control.DeleteRecord(network, name, type))

    async def put_sandbox(
        self,
        view: View,
        sockets: tuple[socket.socket, socket.socket] | None = None,
        netns_fd: int | None = None,
    ) -> Ports:
        """Serve a sandbox as `view` says.

        `sockets` are a UDP and a listening TCP socket, bound in the sandbox; `netns_fd` is its namespace. None
        keeps what the process has. The process gets duplicates: the caller closes its own.
        """
        given = [s.fileno() for s in sockets or ()]
        inherited = await self._inherit(view.sandbox)
        try:
            opened = given or inherited[:2]
            netns = inherited[2:] if netns_fd is None else [netns_fd]
            message = control.PutSandbox(sandbox_view(view), bool(opened), bool(netns))
            return msgspec.convert(await self._call(message, [*opened, *netns]), Ports)
        finally:
            for descriptor in inherited:
                os.close(descriptor)

    async def delete_sandbox(self, sandbox: str) -> None:
        """Stop serving a sandbox and close its sockets."""
        for descriptor in await self._inherit(sandbox):
            os.close(descriptor)
        await self._call(control.DeleteSandbox(sandbox))

    async def _inherit(self, sandbox: str) -> list[int]:
        """What a process of another version still had open for a sandbox."""
        if self._predecessor is None or sandbox not in self._predecessor.sandboxes:
            return []
        return await asyncio.to_thread(self._predecessor.take, sandbox)

    async def explain(self, sandbox: str, name: str, type: str = "A") -> Explanation:
        """How a question of this sandbox would be answered, and why. Nobody is asked."""
        return msgspec.convert(await self._call(control.Explain(sandbox, name, type)), Explanation)

    async def follow(self, sandbox: str = "") -> AsyncGenerator[LogEntry]:
        """The queries from now on, of one sandbox or of all; ends when the process does."""
        connection = await Resolver.connect(self._path, start=False)
        try:
            number = connection._next()
            queue = connection._streams[number] = asyncio.Queue()
            await connection._call(control.Follow(sandbox), number=number)
            while (value := await queue.get()) is not None:
                yield msgspec.convert(value, LogEntry)
        finally:
            await connection.close()

    # ---- transport --------------------------------------------------------------------------------------

    def _next(self) -> int:
        self._number += 1
        return self._number

    async def _call(self, message: Message, descriptors: Iterable[int] = (), number: int | None = None) -> Any:
        number = self._next() if number is None else number
        try:
            async with asyncio.timeout(CALL_TIMEOUT):
                await self._connected.wait()
                future = self._waiting[number] = asyncio.get_running_loop().create_future()
                await self._send(control.frame(Request(number, message)), list(descriptors))  # type: ignore[arg-type]
                return await future
        except TimeoutError:
            raise ResolverAway(f"the resolver at {self._path} does not answer") from None
        except OSError as error:
            raise ResolverAway(f"the resolver at {self._path} cannot be reached: {error}") from None
        finally:
            self._waiting.pop(number, None)

    async def _send(self, frame: bytes, descriptors: list[int]) -> None:
        loop = asyncio.get_running_loop()
        async with self._sending:
            sock = self._sock
            if sock is None:
                raise ConnectionError("it has just gone")
            try:
                if descriptors:
                    frame = await self._send_with(sock, frame, descriptors)
                await loop.sock_sendall(sock, frame)
            except asyncio.CancelledError:
                # nothing can follow what may be half a frame: `_keep` opens another connection
                self._connected.clear()
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
                raise

    async def _send_with(self, sock: socket.socket, frame: bytes, descriptors: list[int]) -> bytes:
        """Send the start of a frame with descriptors; returns what is left to send."""
        while True:
            try:
                return frame[socket.send_fds(sock, [frame], descriptors) :]
            except BlockingIOError:
                await asyncio.sleep(0.001)

    async def _keep(self, sock: socket.socket | None) -> None:
        """Receive for as long as the process lives, then find or start another."""
        while True:
            if sock is None:
                sock = await self._find_patiently()
                asyncio.get_running_loop().call_soon(self._tell)
            self._sock = sock
            self._connected.set()
            self.lost.clear()
            await self._receive(sock)
            self._disconnect()
            self.lost.set()
            log.warning("the resolver process is gone")
            sock = None

    def _tell(self) -> None:
        for callback in self._callbacks:
            callback()

    async def _receive(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        frames = Frames()
        decoder = msgspec.msgpack.Decoder(Reply)
        while True:
            try:
                data = await loop.sock_recv(sock, 1 << 18)
            except OSError:
                return
            if not data:
                return
            try:
                for body in frames.feed(data):
                    self._deliver(decoder.decode(body))
            except (ValueError, msgspec.MsgspecError) as error:
                log.error("the resolver process cannot be understood: %s", error)
                return

    def _deliver(self, reply: Reply) -> None:
        future = self._waiting.get(reply.number)
        if future is not None and not future.done():
            if reply.error:
                future.set_exception(ResolverError(reply.error))
            else:
                future.set_result(reply.value)
        elif reply.more and (queue := self._streams.get(reply.number)) is not None and queue.qsize() < FOLLOW_AHEAD:
            queue.put_nowait(reply.value)

    def _disconnect(self) -> None:
        self._connected.clear()
        if self._sock is not None:
            self._sock.close()
            self._sock = None
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(ResolverAway("the resolver process ended before it answered"))
        for queue in self._streams.values():
            queue.put_nowait(None)

    async def _find_patiently(self) -> socket.socket:
        while True:
            try:
                return await self._find()
            except ResolverAway as error:
                log.error("%s; trying again", error)
                await asyncio.sleep(1)

    async def _find(self) -> socket.socket:
        """A connection to a process that is as it should be: one that is not is replaced, with `start`."""
        sock = await self._open()
        if self._start and (self._version != control.VERSION or self._kernel not in ("", self.kernel.mode)):
            sock.close()
            self._predecessor = await asyncio.to_thread(handover.retire, self._path)
            sock = await self._open()
        return sock

    async def _open(self) -> socket.socket:
        """A connected socket, from the process that runs or from a new one."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + START_TIMEOUT
        started = False
        while True:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            try:
                async with asyncio.timeout_at(deadline):
                    await loop.sock_connect(sock, str(self._path))
                    state = await _greet(sock)
                self._version, self.kernel = state.version, state.kernel
                return sock
            except OSError as error:  # `TimeoutError` among them
                sock.close()
                if not self._start or loop.time() > deadline:
                    reason = str(error) or "it does not answer"
                    raise ResolverAway(f"the resolver at {self._path} cannot be reached: {reason}") from None
            except BaseException:
                sock.close()
                raise
            if not started:
                await asyncio.to_thread(self._spawn)
                started = True
            await asyncio.sleep(0.01)

    def _spawn(self) -> None:
        """Start a resolver process that outlives this one; its messages go to a file beside its socket."""
        if self._child:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self._child, os.WNOHANG)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        self._child = os.posix_spawn(
            sys.executable,
            [sys.executable, "-P", "-m", "dns", "--control", str(self._path), "--kernel", self._kernel or "off"],
            os.environ,
            setsid=True,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(self._path.with_suffix(".log")), append, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
        )


async def _greet(sock: socket.socket) -> ResolverState:
    """Ask for its state: a dying process still accepts connections, but does not answer. Raises `OSError`."""
    loop = asyncio.get_running_loop()
    frames = Frames()
    await loop.sock_sendall(sock, control.frame(Request(0, control.GetState())))
    while data := await loop.sock_recv(sock, 1 << 18):
        for body in frames.feed(data):
            with contextlib.suppress(msgspec.ValidationError):  # of a version that says too little: it is replaced
                return msgspec.convert(msgspec.msgpack.decode(body)[2], ResolverState)
            return ResolverState({}, frozenset())
    raise ConnectionError("the process is ending")
