"""The cable between one host and the store: a forwarding port that a test may cut and mend."""

from __future__ import annotations

import asyncio


class Cable:
    """Connections through `port` reach the store's server; while it is cut, what is sent gets no answer."""

    def __init__(self, server: int) -> None:
        self._server = server
        self._whole = asyncio.Event()
        self._whole.set()
        self._listener: asyncio.Server
        self._busy: set[asyncio.Task[None]] = set()
        self.port = 0

    async def start(self) -> None:
        self._listener = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._listener.sockets[0].getsockname()[1]

    def cut(self) -> None:
        self._whole.clear()

    def mend(self) -> None:
        """What was under way when it was cut is lost, as after a long time without packets."""
        for task in self._busy:
            task.cancel()
        self._whole.set()

    async def stop(self) -> None:
        self._listener.close()
        for task in self._busy:
            task.cancel()
        await asyncio.gather(*self._busy, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._busy.add(task)
        try:
            await self._whole.wait()
            there, back = await asyncio.open_connection("127.0.0.1", self._server)
            try:
                await asyncio.gather(self._pass(reader, back), self._pass(there, writer))
            finally:
                back.close()
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            self._busy.discard(task)

    async def _pass(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            await self._whole.wait()
            sink.write(data)
            await sink.drain()
        sink.close()
