"""HTTP/1.1 on one socket, as far as a client of one daemon needs it.

http.client would do, but doubles the start-up time of every command (it imports ssl and the email package:
40 of 90 ms where measured) and hides the socket that attach and exec take over after `101 Switching Protocols`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol

_READ = 64 * 1024


class ProtocolError(Exception):
    """The peer does not speak HTTP/1.1, or hung up in the middle of an answer."""


class Stream(Protocol):
    """The part of a socket that is used here; one thread may read while another writes."""

    def recv(self, size: int, /) -> bytes: ...

    def sendall(self, data: bytes, /) -> None: ...

    def shutdown(self, how: int, /) -> None: ...

    def close(self) -> None: ...


class Head(NamedTuple):
    """Status line and headers of an answer; header names in lower case."""

    status: int
    reason: str
    headers: dict[str, str]


class Wire:
    """A connected socket with a read buffer: one request at a time, or a byte stream once it is hijacked."""

    def __init__(self, sock: Stream) -> None:
        self.sock = sock
        self._buffer = b""
        self.reusable = True

    def send(self, method: str, target: str, headers: dict[str, str], body: bytes | Iterable[bytes] = b"") -> None:
        """One request; a body that is not bytes is sent in chunks (RFC 9112, section 7.1)."""
        framing = {"Transfer-Encoding": "chunked"}
        if isinstance(body, bytes):
            framing = {"Content-Length": str(len(body))} if body or method == "POST" else {}
        lines = "".join(f"{name}: {value}\r\n" for name, value in (headers | framing).items())
        head = f"{method} {target} HTTP/1.1\r\n{lines}\r\n".encode()
        if isinstance(body, bytes):
            self.sock.sendall(head + body)
            return
        self.sock.sendall(head)
        for chunk in body:
            if chunk:
                self.sock.sendall(b"%x\r\n%b\r\n" % (len(chunk), chunk))
        self.sock.sendall(b"0\r\n\r\n")

    def head(self) -> Head:
        """The head of the next answer that is not `100 Continue`."""
        while True:
            version, _, rest = self.line().partition(" ")
            status, _, reason = rest.partition(" ")
            if not version.startswith("HTTP/1.") or not status.isdigit():
                raise ProtocolError("the daemon's answer is not HTTP")
            headers = {}
            while line := self.line():
                name, _, value = line.partition(":")
                headers[name.strip().lower()] = value.strip()
            if status != "100":
                self.reusable = headers.get("connection", "").lower() != "close"
                return Head(int(status), reason, headers)

    def body(self, method: str, head: Head) -> Iterator[bytes]:
        """The pieces of an answer's body as they arrive."""
        if method == "HEAD" or head.status in (204, 304) or head.status < 200:
            return
        if head.headers.get("transfer-encoding", "").lower() == "chunked":
            while size := int(self.line().partition(";")[0], 16):
                yield from self._exactly(size)
                self.line()
            while self.line():
                pass
        elif "content-length" in head.headers:
            yield from self._exactly(int(head.headers["content-length"]))
        else:
            self.reusable = False
            while piece := self.read():
                yield piece

    def line(self) -> str:
        """One line without its end."""
        while b"\n" not in self._buffer:
            self._fill()
        line, self._buffer = self._buffer.split(b"\n", 1)
        return line.rstrip(b"\r").decode("latin-1")

    def read(self) -> bytes:
        """What is there, waiting for at least one byte; b"" at the end of the stream."""
        if self._buffer:
            data, self._buffer = self._buffer, b""
            return data
        return self.sock.recv(_READ)

    def read_exactly(self, size: int) -> bytes:
        """`size` bytes, or fewer if the stream ends before."""
        while len(self._buffer) < size:
            data = self.sock.recv(max(_READ, size - len(self._buffer)))
            if not data:
                break
            self._buffer += data
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data

    def close(self) -> None:
        self.sock.close()

    def _exactly(self, size: int) -> Iterator[bytes]:
        while size:
            if not self._buffer:
                self._fill()
            piece, self._buffer = self._buffer[:size], self._buffer[size:]
            size -= len(piece)
            yield piece

    def _fill(self) -> None:
        data = self.sock.recv(_READ)
        if not data:
            raise ProtocolError("the daemon closed the connection before its answer was complete")
        self._buffer += data
