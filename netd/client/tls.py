"""TLS over a connected socket, for one thread that reads while another writes.

OpenSSL's objects are not made for that, so TLS works on memory buffers under a lock, and only plain bytes
cross the socket. It also makes a half-close possible: `unwrap` on a socket fails when data is on its way.
"""

from __future__ import annotations

import os
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple, TypeVar

_READ = 64 * 1024
_T = TypeVar("_T")


class TlsFiles(NamedTuple):
    """Paths of the certificate authority and of our own certificate; `verify` checks the daemon's."""

    ca: str
    cert: str
    key: str
    verify: bool


class TlsSocket:
    """The part of a socket's interface that Wire uses; raises ssl.SSLError when the peer is not trusted."""

    def __init__(self, sock: socket.socket, name: str, files: TlsFiles) -> None:
        self._sock = sock
        self._arrived, self._leaving = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = _context(files).wrap_bio(self._arrived, self._leaving, server_hostname=name)
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self._held = b""  # read before the sending side was ended
        self._until_done(self._tls.do_handshake)

    def recv(self, size: int) -> bytes:
        try:
            return self._until_done(lambda: self._read(size))
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return b""

    def sendall(self, data: bytes) -> None:
        with self._lock:
            self._tls.write(data)
        self._flush()

    def shutdown(self, how: int) -> None:
        """Ends our sending side with close_notify (RFC 8446, section 6.1), or both sides at once."""
        if how == socket.SHUT_RDWR:
            return self._sock.shutdown(how)
        with self._lock:
            with suppress(ssl.SSLError):
                while data := self._tls.read(_READ):
                    self._held += data
            with suppress(ssl.SSLWantReadError):  # the peer answers with its own when it is done
                self._tls.unwrap()
        self._flush()

    def close(self) -> None:
        self._sock.close()

    def _read(self, size: int) -> bytes:
        if self._held:
            data, self._held = self._held[:size], self._held[size:]
            return data
        return self._tls.read(size)

    def _until_done(self, step: Callable[[], _T]) -> _T:
        """Repeats a step of TLS, feeding it from the socket, until it needs nothing more."""
        while True:
            with self._lock, suppress(ssl.SSLWantReadError):
                return step()
            self._flush()
            data = self._sock.recv(_READ)
            with self._lock:
                self._arrived.write(data) if data else self._arrived.write_eof()

    def _flush(self) -> None:
        with self._sending:
            with self._lock:
                data = self._leaving.read()
            if data:
                self._sock.sendall(data)


def _context(files: TlsFiles) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=files.ca if files.verify else None)
    if not files.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if files.verify or os.path.exists(files.cert):
        context.load_cert_chain(files.cert, files.key)
    return context
