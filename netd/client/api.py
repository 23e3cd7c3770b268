"""The daemon's API as the verbs use it: requests, answers, errors, and hijacked streams."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from netd.client.wire import Head, ProtocolError, Stream, Wire

if TYPE_CHECKING:
    from netd.client.tls import TlsFiles

API_VERSION = "1.48"
_PATH_SAFE = "/:@&=+$,;~!*'()"


class Unreachable(Exception):
    """No daemon answers at the address, or it will not talk with us."""

    def __init__(self, host: str, error: Exception | None = None) -> None:
        text = f"Cannot connect to the netd daemon at {host}. Is the netd daemon running?"
        if isinstance(error, PermissionError):
            text = f"permission denied while trying to connect to the netd daemon socket at {host}"
        elif type(error).__name__.startswith("SSL"):
            text = f"error during connect to {host}: {error}"
        super().__init__(text)


class ApiError(Exception):
    """The daemon refused; its text begins as Docker's client begins it."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"Error response from daemon: {message}")
        self.status = status
        self.message = message


Query = Mapping[str, Any] | Sequence[tuple[str, Any]]


class Client:
    """Speaks to one daemon; keeps one connection for requests, opens others for streams."""

    def __init__(self, host: str, tls: TlsFiles | None = None) -> None:
        self.host = host
        self._tls = tls
        self._idle: Wire | None = None
        self._version = ""

    @property
    def version(self) -> str:
        """The API version in use: the daemon's, at most our own."""
        if not self._version:
            head, _ = self._exchange("HEAD", "/_ping", {}, b"")
            offered = head.headers.get("api-version", API_VERSION)
            self._version = min(offered, API_VERSION, key=version_key)
        return self._version

    def get(self, path: str, query: Query | None = None) -> Any:
        return self.request("GET", path, query)

    def post(self, path: str, query: Query | None = None, body: Any = None) -> Any:
        return self.request("POST", path, query, body)

    def delete(self, path: str, query: Query | None = None) -> Any:
        return self.request("DELETE", path, query)

    def request(self, method: str, path: str, query: Query | None = None, body: Any = None) -> Any:
        """The decoded answer (None for an empty one); raises ApiError or Unreachable."""
        _, data = self.raw(method, path, query, body)
        return json.loads(data) if data.strip() else None

    def raw(self, method: str, path: str, query: Query | None = None, body: Any = None) -> tuple[Head, bytes]:
        """The answer's head and undecoded body; raises ApiError or Unreachable."""
        headers = {"Content-Type": "application/json"} if body is not None else {}
        payload = json.dumps(body).encode() if body is not None else b""
        head, data = self._exchange(method, self._target(path, query), headers, payload)
        _check(head, data)
        return head, data

    def stream(
        self, method: str, path: str, query: Query | None = None, body: bytes | Iterable[bytes] = b""
    ) -> Iterator[bytes]:
        """Sends the request on a connection of its own, now; gives the pieces of the answer as they arrive."""
        target = self._target(path, query)
        wire = self._connect()
        headers = {"Content-Type": "application/x-tar"} if body else {}
        with suppress(BrokenPipeError, ConnectionResetError):  # refused half-way: the answer says why
            wire.send(method, target, self._headers(headers), body)
        head = wire.head()
        if head.status >= 400:
            _check(head, b"".join(wire.body(method, head)))
        return self._pieces(wire, method, head)

    def _pieces(self, wire: Wire, method: str, head: Head) -> Iterator[bytes]:
        try:
            yield from wire.body(method, head)
        finally:
            wire.close()

    def close(self) -> None:
        """Gives up the connection that is kept for requests."""
        if self._idle is not None:
            self._idle.close()
            self._idle = None

    def another(self) -> Client:
        """A client of the same daemon with connections of its own, for another thread or a signal handler."""
        twin = Client(self.host, self._tls)
        twin._version = self.version
        return twin

    def hijack(self, path: str, query: Query | None = None, body: Any = None) -> Wire:
        """A two-way byte stream in place of the answer to a POST; the caller closes it."""
        target = self._target(path, query)
        wire = self._connect()
        payload = b"" if body is None else json.dumps(body).encode()
        headers = {"Connection": "Upgrade", "Upgrade": "tcp", "Content-Type": "application/json"}
        wire.send("POST", target, self._headers(headers), payload)
        head = wire.head()
        if head.status not in (101, 200):
            data = b"".join(wire.body("POST", head))
            wire.close()
            _check(head, data)
            raise ApiError(head.status, f"unable to upgrade to tcp, received {head.status}")
        return wire

    def _target(self, path: str, query: Query | None) -> str:
        pairs = query.items() if isinstance(query, Mapping) else query or ()
        given = [(key, _query_value(value)) for key, value in pairs if value not in (None, "", {})]
        tail = f"?{urlencode(given)}" if given else ""
        return f"/v{self.version}{quote(path, safe=_PATH_SAFE)}{tail}"

    def _headers(self, headers: dict[str, str]) -> dict[str, str]:
        return {"Host": "netd", "User-Agent": "netd-cli"} | headers

    def _exchange(self, method: str, target: str, headers: dict[str, str], body: bytes) -> tuple[Head, bytes]:
        wire, self._idle = self._idle or self._connect(), None
        try:
            wire.send(method, target, self._headers(headers), body)
            head = wire.head()
            data = b"".join(wire.body(method, head))
        except (ProtocolError, ConnectionError) as error:
            wire.close()
            raise Unreachable(self.host, error) from error
        if wire.reusable:
            self._idle = wire
        else:
            wire.close()
        return head, data

    def _connect(self) -> Wire:
        try:
            return Wire(self._socket())
        except OSError as error:
            raise Unreachable(self.host, error) from error

    def _socket(self) -> Stream:
        scheme, _, address = self.host.partition("://")
        if scheme == "unix":
            sock = socket.socket(socket.AF_UNIX)
            with _closed_on_error(sock):
                sock.connect(address)
            return sock
        name, _, port = (address or scheme).rstrip("/").rpartition(":")
        if not port.isdigit():
            name, port = address or scheme, "2376" if self._tls else "2375"
        sock = socket.create_connection((name.strip("[]"), int(port)))
        if self._tls is None:
            return sock
        from netd.client.tls import TlsSocket

        with _closed_on_error(sock):
            return TlsSocket(sock, name.strip("[]"), self._tls)


@contextmanager
def _closed_on_error(sock: socket.socket) -> Iterator[None]:
    try:
        yield
    except OSError:
        sock.close()
        raise


def json_lines(pieces: Iterable[bytes]) -> Iterator[Any]:
    """The values of a stream of JSON lines, cut into pieces anywhere."""
    held = b""
    for piece in pieces:
        *complete, held = (held + piece).split(b"\n")
        yield from (json.loads(line) for line in complete if line)
    if held.strip():
        yield json.loads(held)


def version_key(version: str) -> tuple[int, ...]:
    """`1.9` before `1.41`."""
    return tuple(int(part) for part in version.split("."))


def _query_value(value: Any) -> Any:
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, dict):
        return json.dumps(value, separators=(",", ":"))
    return value


def _check(head: Head, data: bytes) -> None:
    if head.status < 400:
        return
    text = data.decode(errors="replace").strip()
    if head.headers.get("content-type", "").startswith("application/json"):
        answer = json.loads(text) if text else {}
        text = str(answer.get("message", "") if isinstance(answer, dict) else answer).strip()
    if not text:
        text = f"request returned {head.status} {head.reason} without a message"
    raise ApiError(head.status, text)
