"""The TCP side of one sandbox (RFC 7766): pipelined questions, bounded in number, size and time."""

from __future__ import annotations

import asyncio
import logging
import struct
from asyncio import AbstractEventLoop
from socket import socket
from typing import Any, cast

from dns import wire
from dns.sandbox import Sandbox

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 128  # of one sandbox; the one idle longest makes room
MAX_PENDING = 64  # questions of one connection in flight
IDLE = 10.0  # seconds without a whole question until a connection is closed: also what a trickling writer gets
_ACCEPTS = 16  # in one wake-up
_MAX_BUFFER = 1 << 18  # bytes of replies that a client has not read yet
_TURN = 16  # questions of one connection until the others, and the other sandboxes, have theirs
_LENGTH = struct.Struct("!H")


class TcpServer:
    """Accepts on one listening socket, which it owns, until it is closed."""

    def __init__(self, loop: AbstractEventLoop, sock: socket, sandbox: Sandbox) -> None:
        sock.setblocking(False)
        self._loop = loop
        self._sock = sock
        self._sandbox = sandbox
        self._connections: dict[_Connection, None] = {}  # the one idle longest first
        self._turns = _Turns(loop)
        self._tasks: set[asyncio.Task[object]] = set()
        loop.add_reader(sock, self._accept)

    @property
    def port(self) -> int:
        return int(self._sock.getsockname()[1])

    def retire(self) -> int:
        """Leave further connections to whoever gets this descriptor; those that are open go on."""
        self._loop.remove_reader(self._sock)
        return self._sock.fileno()

    def close(self) -> None:
        self._loop.remove_reader(self._sock)
        self._sock.close()
        for connection in list(self._connections):
            connection.close()

    def _accept(self) -> None:
        try:
            for _ in range(_ACCEPTS):
                self._take(*self._sock.accept())
        except BlockingIOError:
            pass
        except OSError as error:
            log.debug("sandbox %s: accept: %s", self._sandbox.view.sandbox[:12], error)

    def _take(self, sock: socket, peer: Any) -> None:
        sock.setblocking(False)
        connection = _Connection(self._loop, self._sandbox, str(peer[0]), self._connections, self._turns)
        if len(self._connections) >= MAX_CONNECTIONS:
            next(iter(self._connections)).close()
        self._connections[connection] = None
        task = self._loop.create_task(self._loop.connect_accepted_socket(lambda: connection, sock))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class _Turns:
    """The connections of one sandbox that have questions waiting: one has its turn in each round of the loop."""

    def __init__(self, loop: AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: dict[_Connection, None] = {}

    def __contains__(self, connection: _Connection) -> bool:
        return connection in self._waiting

    def add(self, connection: _Connection) -> None:
        if not self._waiting:
            self._loop.call_soon(self._next)
        self._waiting[connection] = None

    def _next(self) -> None:
        connection = next(iter(self._waiting))
        del self._waiting[connection]
        if self._waiting:
            self._loop.call_soon(self._next)
        connection.proceed()


class _Connection(asyncio.Protocol):
    def __init__(
        self, loop: AbstractEventLoop, sandbox: Sandbox, client: str, all_: dict[_Connection, None], turns: _Turns
    ) -> None:
        self._loop = loop
        self._sandbox = sandbox
        self._client = client
        self._all = all_
        self._turns = turns
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None
        self._pending = 0  # questions being forwarded
        self._timer = loop.call_later(IDLE, self._expire)
        self._ending = False
        self._full = False

    # ---- asyncio.Protocol -------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=_MAX_BUFFER)
        if self not in self._all:
            self._transport.abort()  # closed to make room before it was there

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._turns.add(self)

    def eof_received(self) -> bool:
        self._ending = True
        self._end_if_done()
        return self._pending > 0 or self in self._turns

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        self._all.pop(self, None)
        self._buffer.clear()

    def pause_writing(self) -> None:
        self._full = True
        self._flow()

    def resume_writing(self) -> None:
        self._full = False
        self._turns.add(self)

    # ---- questions --------------------------------------------------------------------------------------

    def close(self) -> None:
        self._all.pop(self, None)
        if self._transport is not None:
            self._transport.abort()

    def _expire(self) -> None:
        if self._pending:
            self._timer = self._loop.call_later(IDLE, self._expire)
        else:
            self.close()

    def proceed(self) -> None:
        """Take whole questions from the buffer as long as there is room for their replies, and it is our turn."""
        at = taken = 0
        while not self._full and self._pending < MAX_PENDING and len(self._buffer) - at >= 2:
            (length,) = _LENGTH.unpack_from(self._buffer, at)
            if len(self._buffer) - at - 2 < length:
                break
            if taken == _TURN:
                self._turns.add(self)
                break
            taken += 1
            self._question(bytes(self._buffer[at + 2 : at + 2 + length]))
            at += 2 + length
        if at:
            del self._buffer[:at]
            self._touch()
        self._flow()
        self._end_if_done()

    def _question(self, message: bytes) -> None:
        found = self._sandbox.respond(message, tcp=True, client=self._client)
        self._sandbox.shared.queries += 1
        if isinstance(found, wire.Query):
            self._pending += 1
            self._sandbox.forward(found, message, self._late, tcp=True, client=self._client)
        elif found:
            self._send(found)

    def _late(self, reply: bytes) -> None:
        """Send a reply that came later."""
        self._pending -= 1
        self._send(reply)
        self._turns.add(self)  # not here: the reply may come while a question is being taken

    def _send(self, reply: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(_LENGTH.pack(len(reply)) + reply)

    def _touch(self) -> None:
        """A whole question came: the connection is not idle."""
        self._timer.cancel()
        self._timer = self._loop.call_later(IDLE, self._expire)
        if self in self._all:
            del self._all[self]
            self._all[self] = None

    def _flow(self) -> None:
        """Read no more while replies are not read, too many are pending, or questions have come already."""
        if self._transport is None or self._transport.is_closing():
            return
        if self._full or self._pending >= MAX_PENDING or self in self._turns:
            self._transport.pause_reading()
        elif not self._ending:
            self._transport.resume_reading()

    def _end_if_done(self) -> None:
        if self._ending and not self._pending and self not in self._turns and self._transport is not None:
            self._transport.close()
