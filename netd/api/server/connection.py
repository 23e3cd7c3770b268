"""A client's connection: aiohttp's, with what Docker's clients need beside plain HTTP."""

from __future__ import annotations

import asyncio
import re
import select
import socket
from typing import Any

from aiohttp import StreamReader, web
from aiohttp.web_protocol import RequestHandler

from netd.api.server.call import failure

_HIJACKING = re.compile(rb"POST (?:/v[0-9.]+)?/(?:containers/[^/ ]+/attach|exec/[^/ ]+/start)[? ]")
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,9})[ \t]*\r\n", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:", re.IGNORECASE)
_HEAD_LIMIT = 64 * 1024  # bytes
LOOK_SECONDS = 2.0  # how often a half-closed connection is looked at
_EARLY_LIMIT = 64 * 1024  # bytes a client may send before its stream is taken over


class Connection(RequestHandler):
    """HTTP until a handler takes the transport over for a raw stream (attach, exec).

    aiohttp's parser forgets what follows a request with `Upgrade: tcp`. So from the end of a request that may
    be hijacked on, whatever the client sends is kept in `early`, and handed to the one who takes over.
    """

    __slots__ = ("_last_body", "_pending", "early", "early_eof", "holding")

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.holding = False
        self.early = b""
        self.early_eof = False
        self._pending = b""
        self._last_body: StreamReader | None = None

    def data_received(self, data: bytes) -> None:
        if self.holding:
            self._hold(data)
            return
        data, self._pending = self._pending + data, b""
        # `_waiter` is there while the last request is answered and the next one has not come
        between = self._waiter is not None or self._request_count == 0
        if not between or not _HIJACKING.match(data):
            self._receive(data)
            return
        end = _request_end(data)
        if end is None:
            self._pending = data
            return
        self.holding = True
        self._receive(data[:end])
        if data[end:]:
            self._hold(data[end:])

    def _receive(self, data: bytes) -> None:
        super().data_received(data)
        if self._messages:
            self._last_body = self._messages[-1][1]

    def eof_received(self) -> bool:  # type: ignore[override]
        """A client that closes its side after a whole request still gets the answer, as long as it is there."""
        self.early_eof = True
        if self.holding:
            return True
        transport = self.transport
        if transport is None or not self._has_whole_request() or not _is_unix(transport) or hung_up(transport):
            return False
        self.close()  # when the answer is out
        self._look(transport)
        return True

    def _has_whole_request(self) -> bool:
        idle = self._waiter is not None and not self._messages
        return not idle and self._last_body is not None and self._last_body.is_eof()

    def _look(self, transport: asyncio.Transport) -> None:
        """No event tells when a half-closed client has gone altogether."""
        if hung_up(transport):
            transport.abort()
        else:
            asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look, transport)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """What is no HTTP is the client's fault, and answered in the API's form."""
        if status >= 500 or exc is None:
            self.log_exception("error while handling a request", exc_info=exc)
        response = failure(status, f"the request is malformed: {' '.join((message or '').split())}")
        response.force_close()
        return response

    def _hold(self, data: bytes) -> None:
        self.early += data
        if len(self.early) > _EARLY_LIMIT and self.transport is not None:
            self.transport.pause_reading()


def hung_up(transport: asyncio.Transport) -> bool:
    """Whether a client that has closed its side is gone; only poll(2) tells, and only of unix sockets."""
    connection = transport.get_extra_info("socket")
    if transport.is_closing() or connection is None:
        return True
    poll = select.poll()
    poll.register(connection.fileno(), 0)
    return any(events & (select.POLLHUP | select.POLLERR) for _, events in poll.poll(0))


def _is_unix(transport: asyncio.BaseTransport) -> bool:
    connection = transport.get_extra_info("socket")
    return connection is not None and connection.family == socket.AF_UNIX


def _request_end(data: bytes) -> int | None:
    """Where the request at the beginning of `data` ends; None while it is not complete."""
    head_end = data.find(b"\r\n\r\n")
    if head_end < 0:
        return None if len(data) < _HEAD_LIMIT else len(data)
    head = data[: head_end + 2]
    if _CHUNKED.search(head):
        return len(data)
    length = _LENGTH.search(head)
    end = head_end + 4 + (int(length[1]) if length else 0)
    return end if end <= len(data) else None
