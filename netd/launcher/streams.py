"""The streams of a process in a container, as whoever attached to it sees them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Protocol

STDOUT = 1
STDERR = 2


class Streams(Protocol):
    """An attachment to a container's first process or to an exec session."""

    @property
    def tty(self) -> bool:
        """Whether there is one terminal instead of stdout and stderr."""

    def frames(self) -> AsyncIterator[tuple[int, bytes]]:
        """Output as (1 stdout | 2 stderr, data), until the process's output ends."""

    async def write(self, data: bytes) -> None:
        """Send `data` to the process's stdin; dropped once the process has ended."""

    async def close_stdin(self) -> None:
        """The process reads the end of its input, unless its stdin is a terminal or is to stay open."""

    async def close(self) -> None:
        """Detach. The process goes on, and its stdin stays as it is."""


class PendingStreams:
    """Becomes the real streams at `connect`; ends empty if the start never comes (`cancel`).

    `forget` is called when nobody waits for the start any more.
    """

    def __init__(self, tty: bool, forget: Callable[[PendingStreams], None] | None = None) -> None:
        self.tty = tty
        self._forget = forget
        self._real: asyncio.Future[Streams | None] = asyncio.get_running_loop().create_future()

    def connect(self, streams: Streams) -> None:
        if not self._real.done():
            self._real.set_result(streams)

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits for the real streams any more."""
        return self._real.done() and self._real.result() is None

    def cancel(self) -> None:
        if not self._real.done():
            self._real.set_result(None)

    async def frames(self) -> AsyncIterator[tuple[int, bytes]]:
        streams = await asyncio.shield(self._real)
        if streams is not None:
            async for frame in streams.frames():
                yield frame

    async def write(self, data: bytes) -> None:
        streams = await asyncio.shield(self._real)
        if streams is not None:
            await streams.write(data)

    async def close_stdin(self) -> None:
        streams = await asyncio.shield(self._real)
        if streams is not None:
            await streams.close_stdin()

    async def close(self) -> None:
        if self._real.done() and (streams := self._real.result()) is not None:
            await streams.close()
            return
        self.cancel()
        if self._forget is not None:
            self._forget(self)


class Told:
    """The streams of a process that could not be started: the reason, and the end."""

    def __init__(self, text: str, *, tty: bool) -> None:
        self.tty = tty
        self._text = text

    async def frames(self) -> AsyncIterator[tuple[int, bytes]]:
        yield STDOUT, f"{self._text}\r\n".encode()

    async def write(self, data: bytes) -> None:
        return None

    async def close_stdin(self) -> None:
        return None

    async def close(self) -> None:
        return None
