"""Attachments over conmon's socket: one packet is a stream number and data out, plain data in."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable

from netd.core.tasks import Tasks
from netd.launcher.streams import STDERR, STDOUT

_OUT, _ERR = 2, 3  # conmon's STDOUT_PIPE and STDERR_PIPE
_PACKET = 8192  # the most that conmon takes or gives in one packet, without the stream number
_STREAMS = {_OUT: STDOUT, _ERR: STDERR}


class Attachment:
    """`Streams` over one connection to a conmon. `tasks` are those of the launcher."""

    def __init__(self, connection: socket.socket, tasks: Tasks, *, tty: bool, stdin_once: bool) -> None:
        self.tty = tty
        self._tasks = tasks
        self._connection = connection
        self._stdin_once = stdin_once
        self._closed = False
        self._waiting: list[Callable[[], None]] = []

    async def frames(self) -> AsyncIterator[tuple[int, bytes]]:
        """Output as (1 stdout | 2 stderr, data), until it ends or `close` is called."""
        while not self._closed:
            try:
                packet = self._connection.recv(_PACKET + 1)
            except BlockingIOError:
                loop = asyncio.get_running_loop()
                await self._ready(loop.add_reader, loop.remove_reader)
                continue
            except OSError:
                return
            if not packet:
                return
            yield _STREAMS.get(packet[0], STDOUT), packet[1:]

    async def write(self, data: bytes) -> None:
        """Send to the process's stdin; dropped once the process has ended or `close` was called."""
        start = 0
        while start < len(data) and not self._closed:
            try:
                start += self._connection.send(data[start : start + _PACKET])
            except BlockingIOError:
                loop = asyncio.get_running_loop()
                await self._ready(loop.add_writer, loop.remove_writer)
            except OSError:
                return

    async def close_stdin(self) -> None:
        """The process reads the end of its input, unless its stdin is a terminal or is to stay open."""
        self._stdin_once = False
        try:
            self._connection.shutdown(socket.SHUT_WR)
        except OSError:
            return

    async def close(self) -> None:
        """Detach; `frames` and `write` under way return."""
        if self._closed:
            return
        self._closed = True
        for wake in self._waiting:
            wake()
        if self._stdin_once:
            # conmon would end the process's input with us: stay connected, unheard, until it ends
            self._tasks.start(_drain(self._connection), "an attachment that nobody listens to any more")
        else:
            self._connection.close()

    async def _ready(self, add: Callable[..., object], remove: Callable[[int], object]) -> None:
        future = asyncio.get_running_loop().create_future()
        descriptor = self._connection.fileno()

        def wake() -> None:
            remove(descriptor)
            if not future.done():
                future.set_result(None)

        add(descriptor, wake)
        self._waiting.append(wake)
        try:
            await future
        finally:
            self._waiting.remove(wake)
            if not self._closed:
                remove(descriptor)


async def _drain(connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    with connection:
        try:
            while await loop.sock_recv(connection, _PACKET + 1):
                pass
        except OSError:
            return
