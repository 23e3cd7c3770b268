"""Streams asked for before there is a process: `docker run` attaches first and starts then."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from netd.launcher.streams import Streams


class PendingStreams:
    """Becomes the real streams at `connect`; ends empty if the start never comes (`cancel`)."""

    def __init__(self, tty: bool) -> None:
        self.tty = tty
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
        else:
            self.cancel()
