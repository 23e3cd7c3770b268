"""Attach and exec: after the answer's head, the connection carries the process's bare streams both ways.

A client that asks for `Upgrade: tcp` gets `101 UPGRADED`, another one `200 OK`; what follows is the same. Without
a terminal, output is framed: stream number, three zero bytes, length (32 bits, big-endian), data.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from typing import cast

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from netd.api.server.call import HEADERS, Call
from netd.api.server.connection import LOOK_SECONDS, Connection, hung_up
from netd.api.server.versions import Version
from netd.core.tasks import Tasks
from netd.launcher.streams import Streams

Frames = AsyncIterator[tuple[int, bytes]]

RAW = "application/vnd.docker.raw-stream"
MULTIPLEXED = "application/vnd.docker.multiplexed-stream"

_HIGH_WATER = 256 * 1024  # bytes of input waiting for the process
_LINGER_SECONDS = 1.0  # how long a client may take to notice the end


def frame(stream: int, data: bytes) -> bytes:
    """One frame of a multiplexed stream."""
    return struct.pack(">BxxxL", stream, len(data)) + data


def content_type(version: Version, *, tty: bool) -> str:
    """Clients before 1.42 know one type only, and find out by inspecting the container."""
    return RAW if tty or version < (1, 42) else MULTIPLEXED


async def hijack(
    call: Call, streams: Streams, *, stdin: bool, wanted: frozenset[int], past: Frames | None = None
) -> web.StreamResponse:
    """Carry the streams until the process's output ends or the client has gone.

    `wanted` are the output streams to send, `past` is output to send before.
    """
    connection = cast(Connection, call.request.protocol)
    transport = call.request.transport
    if transport is None:
        await streams.close()
        raise ConnectionResetError("the client has gone")
    session = _Session(connection, transport, streams, wanted, reads_input=stdin)
    transport.write(_head(call, streams.tty))
    session.take_over()
    running = call.tasks.start(session.run(past), f"the stream of {call.request.path}")
    try:
        await asyncio.shield(running)  # aiohttp cancels when the client goes, which the session sees by itself
    except asyncio.CancelledError:
        session.stop()
        await asyncio.shield(running)
        raise
    return _Hijacked()


def _head(call: Call, tty: bool) -> bytes:
    headers = {**HEADERS, "Content-Type": content_type(call.version, tty=tty)}
    status = "200 OK"
    if call.request.headers.get("Upgrade"):
        status = "101 UPGRADED"
        headers |= {"Connection": "Upgrade", "Upgrade": "tcp"}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status}\r\n{lines}\r\n".encode()


class _Hijacked(web.StreamResponse):
    """What a handler returns when there is nothing left for aiohttp to send."""

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        return None

    @property
    def keep_alive(self) -> bool:
        return False


class _Session(asyncio.Protocol):
    """The transport after the take-over, and the two directions of the stream."""

    def __init__(
        self,
        connection: Connection,
        transport: asyncio.Transport,
        streams: Streams,
        wanted: frozenset[int],
        *,
        reads_input: bool,
    ) -> None:
        self._connection = connection
        self._transport = transport
        self._streams = streams
        self._wanted = wanted
        self._reads_input = reads_input
        self._input: deque[bytes] = deque()
        self._waiting = 0  # bytes in _input
        self._input_ended = asyncio.Event()
        self._input_changed = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._gone = asyncio.Event()
        self._stopped = asyncio.Event()

    def stop(self) -> None:
        """End `run` soon, and properly."""
        self._stopped.set()

    def take_over(self) -> None:
        """From now on the transport is ours, with what was read ahead."""
        self._transport.set_protocol(self)
        early, self._connection.early = self._connection.early, b""
        self._resume_reading()
        if early:
            self.data_received(early)
        if self._connection.early_eof:
            self.eof_received()

    async def run(self, past: Frames | None) -> None:
        tasks = Tasks()
        output = tasks.start(self._send_output(past), "the output of a process")
        feeder = tasks.start(self._feed_input(), "the input of a process") if self._reads_input else None
        gone = tasks.start(self._until_gone(), "the end of a stream")
        stopped = tasks.start(self._until_stopped(), "the end of all streams")
        try:
            await asyncio.wait((output, gone, stopped), return_when=asyncio.FIRST_COMPLETED)
        finally:
            if self._input_ended.is_set() and not output.done() and feeder is not None:
                await self._end_input(feeder, output)
            await tasks.close()
            await self._close()

    async def _end_input(self, feeder: asyncio.Task[None], output: asyncio.Task[None]) -> None:
        """What a client sent before it went still reaches the process, and then the end of its input."""
        await asyncio.wait((feeder, output), timeout=_LINGER_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        if not feeder.done():
            feeder.cancel()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LINGER_SECONDS):
                    await self._streams.close_stdin()

    async def _close(self) -> None:
        """The client reads the end of the output; what it still sends is taken, lest it see a reset instead."""
        try:
            await self._streams.close()
            if self._input_ended.is_set() or self._transport.is_closing() or not self._transport.can_write_eof():
                return
            self._reads_input = False
            self._transport.write_eof()
            self._resume_reading()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LINGER_SECONDS):
                    await self._gone.wait()
        finally:
            self._transport.close()  # after what is still buffered has gone out

    def _resume_reading(self) -> None:
        if not self._input_ended.is_set() and not self._transport.is_closing() and not self._transport.is_reading():
            self._transport.resume_reading()

    # ---- towards the client ----

    async def _send_output(self, past: Frames | None) -> None:
        for source in (past, self._streams.frames()):
            if source is None:
                continue
            async with contextlib.aclosing(cast("AsyncGenerator[tuple[int, bytes]]", source)) as frames:
                async for stream, data in frames:
                    await self._send(stream, data)

    async def _send(self, stream: int, data: bytes) -> None:
        if self._streams.tty:
            self._transport.write(data)
        elif stream in self._wanted:
            self._transport.write(frame(stream, data))
        await self._writable.wait()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    # ---- towards the process ----

    def data_received(self, data: bytes) -> None:
        if not self._reads_input:
            return
        self._input.append(data)
        self._waiting += len(data)
        self._input_changed.set()
        if self._waiting > _HIGH_WATER:
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        self._input_ended.set()
        self._input_changed.set()
        return not self._gone.is_set()  # a client that has nothing more to say still listens

    async def _feed_input(self) -> None:
        while True:
            while self._input:
                data = self._input.popleft()
                await self._streams.write(data)
                self._waiting -= len(data)
                if self._waiting <= _HIGH_WATER:
                    self._resume_reading()
            if self._input_ended.is_set():
                await self._streams.close_stdin()
                return
            self._input_changed.clear()
            await self._input_changed.wait()

    # ---- the end ----

    def connection_lost(self, exc: Exception | None) -> None:
        self._input_ended.set()
        self._writable.set()
        self._input_changed.set()
        self._gone.set()
        self._connection.connection_lost(exc)

    async def _until_gone(self) -> None:
        """Once a client has closed its side, only poll(2) tells whether it still listens (on unix sockets)."""
        await self._input_ended.wait()
        while not self._gone.is_set() and not hung_up(self._transport):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._gone.wait()

    async def _until_stopped(self) -> None:
        await self._stopped.wait()


class Silent:
    """Streams whose output nobody asked for: they end at once."""

    def __init__(self, streams: Streams) -> None:
        self.tty = streams.tty
        self.write = streams.write
        self.close_stdin = streams.close_stdin
        self.close = streams.close

    async def frames(self) -> Frames:
        nothing: tuple[tuple[int, bytes], ...] = ()
        for each in nothing:
            yield each
