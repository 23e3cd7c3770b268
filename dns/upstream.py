"""One question to one upstream: a fresh socket, a random port and a random id, and only a fitting reply counts.

RFC 5452: id, source (the socket is connected) and question must all match. RFC 7766: TCP. Callbacks instead
of coroutines: a forwarded question is to cost little more than the upstream's own time.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import struct
from asyncio import AbstractEventLoop
from collections.abc import Callable
from dataclasses import dataclass

from dns import wire
from dns.netns import Namespace, open_socket

_LENGTH = struct.Struct("!H")


@dataclass(frozen=True, slots=True)
class Upstream:
    """A DNS server; `host`: asked from the daemon's own namespace, else from the sandbox's (fact 1.54)."""

    address: str
    port: int = 53
    host: bool = False

    def __str__(self) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{host}:{self.port}{' from the host' if self.host else ''}"


class Exchange:
    """A question on its way. `done` is called once, with the reply or with None when there can be none.

    It waits for as long as it takes: whoever started it closes it when time is up.
    """

    def __init__(
        self, loop: AbstractEventLoop, server: Upstream, message: bytes, done: Callable[[Exchange, bytes | None], None]
    ) -> None:
        self.server = server
        self.done = done
        self.started = loop.time()
        self._loop = loop
        self._ident = message[:2]
        self._query = _LENGTH.pack(secrets.randbits(16)) + message[2:]

    def start(self, netns: Namespace | None) -> None:
        """Send the question. Raises `OSError` when that is not possible."""
        raise NotImplementedError

    def close(self) -> None:
        """Give up; `done` is not called any more."""
        raise NotImplementedError

    def _open(self, kind: int, netns: Namespace | None) -> socket.socket:
        family = socket.AF_INET6 if ":" in self.server.address else socket.AF_INET
        return open_socket(family, kind) if netns is None else netns.open_socket(family, kind)

    def _finish(self, reply: bytes | None) -> None:
        self.close()
        self.done(self, None if reply is None else self._ident + reply[2:])


class UdpExchange(Exchange):
    _sock: socket.socket | None = None

    def start(self, netns: Namespace | None) -> None:
        sock = self._open(socket.SOCK_DGRAM, netns)
        try:
            sock.connect((self.server.address, self.server.port))
            sock.send(self._query)
        except OSError:
            sock.close()
            raise
        self._sock = sock
        self._loop.add_reader(sock, self._receive)

    def close(self) -> None:
        if self._sock is not None:
            self._loop.remove_reader(self._sock)
            self._sock.close()
            self._sock = None

    def _receive(self) -> None:
        assert self._sock is not None
        try:
            # 64 KiB: a reply larger than asked for is relayed, not lost (fact 1.52)
            reply = self._sock.recv(wire.MAX_SIZE)
        except BlockingIOError:
            return
        except OSError:
            self._finish(None)
            return
        if fits(self._query, reply):
            self._finish(reply)


class TcpExchange(Exchange):
    _task: asyncio.Task[bytes] | None = None

    def start(self, netns: Namespace | None) -> None:
        sock = self._open(socket.SOCK_STREAM, netns)
        self._task = self._loop.create_task(self._ask(sock))
        self._task.add_done_callback(self._asked)

    def close(self) -> None:
        if self._task is not None:
            task, self._task = self._task, None
            task.cancel()

    def _asked(self, task: asyncio.Task[bytes]) -> None:
        failed = task.cancelled() or task.exception() is not None
        if self._task is not None:
            self._finish(None if failed else task.result())

    async def _ask(self, sock: socket.socket) -> bytes:
        with sock:
            await self._loop.sock_connect(sock, (self.server.address, self.server.port))
            await self._loop.sock_sendall(sock, _LENGTH.pack(len(self._query)) + self._query)
            (length,) = _LENGTH.unpack(await self._read(sock, 2))
            reply = await self._read(sock, length)
        if not fits(self._query, reply):
            raise OSError("the server's reply does not fit the question")
        return reply

    async def _read(self, sock: socket.socket, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = await self._loop.sock_recv(sock, size - len(data))
            if not more:
                raise ConnectionError("the server closed the connection")
            data += more
        return data


def fits(query: bytes, reply: bytes) -> bool:
    """Whether a message is a well-formed reply to just this question; its case may differ (RFC 4343)."""
    try:
        ident, flags, questions, *counts = wire.HEADER.unpack_from(reply)
        if not flags & wire.QR or ident != _LENGTH.unpack_from(query)[0]:
            return False
        if questions == 0 and flags & 15 and not any(counts[:2]):
            return True  # an error without the question, as old servers send it
        end = wire.name_end(reply, 12)
        if questions != 1 or reply[12:end].lower() + reply[end : end + 4] != _question(query):
            return False
        for _ in wire.records(reply, end + 4, counts):
            pass
    except (wire.Malformed, struct.error):
        return False
    return True


def _question(query: bytes) -> bytes:
    end = wire.name_end(query, 12)
    return query[12:end].lower() + query[end : end + 4]
