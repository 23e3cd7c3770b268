"""The client's own HTTP: sockets of all kinds, answers of all shapes, streams taken over."""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netd.client.api import ApiError, Client, Unreachable
from netd.client.tls import TlsFiles
from netd.client.wire import ProtocolError, Wire

PONG = b"HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nContent-Length: 2\r\n\r\n"


def answered(*pieces: bytes) -> Wire:
    """A wire on which these bytes arrive, then nothing more."""
    ours, theirs = socket.socketpair()
    with theirs:
        for piece in pieces:
            theirs.sendall(piece)
    return Wire(ours)


@given(st.lists(st.binary(min_size=1, max_size=50)))
def test_chunks_are_put_together(chunks: list[bytes]) -> None:
    body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    wire = answered(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", body, b"0\r\n\r\nnext")
    assert b"".join(wire.body("GET", wire.head())) == b"".join(chunks)
    assert wire.read() == b"next"
    wire.close()


def test_a_body_without_length_ends_with_the_connection() -> None:
    wire = answered(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 200 OK\r\n\r\nall ", b"of it")
    assert b"".join(wire.body("GET", wire.head())) == b"all of it"
    assert not wire.reusable
    wire.close()


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\n", b"SSH-2.0-x\r\n\r\n"])
def test_half_an_answer_is_an_error(answer: bytes) -> None:
    wire = answered(answer)
    with pytest.raises(ProtocolError):
        wire.head()
    wire.close()


def test_no_daemon_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(
        Unreachable, match=r"Cannot connect to the netd daemon at unix:///.* Is the netd daemon running\?"
    ):
        Client(f"unix://{tmp_path}/nothing.sock").get("/networks")


@pytest.fixture(params=["unix", "tcp", "tls"])
def echo(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Client]:
    """A client of a server that knows a ping, an error, and one path where it sends back what it gets."""
    if request.param == "unix":
        path = tmp_path / "api.sock"
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        client = Client(f"unix://{path}")
    else:
        listener = socket.create_server(("127.0.0.1", 0))
        files = certificates(tmp_path) if request.param == "tls" else None
        client = Client(f"tcp://127.0.0.1:{listener.getsockname()[1]}", files)
    listener.listen()
    secure = server_context(tmp_path).wrap_socket if request.param == "tls" else None
    threading.Thread(target=serve, args=(listener, secure), daemon=True).start()
    yield client
    client.close()
    listener.close()


def serve(listener: socket.socket, secure: Callable[..., socket.socket] | None) -> None:
    with contextlib.suppress(OSError):
        while True:
            connection = listener.accept()[0]
            connection = secure(connection, server_side=True) if secure else connection
            threading.Thread(target=answer, args=(connection,), daemon=True).start()


def answer(connection: socket.socket) -> None:
    with connection, contextlib.suppress(OSError, ProtocolError):
        wire = Wire(connection)
        while request := wire.line():
            while wire.line():
                pass
            if "/_ping" in request:
                connection.sendall(PONG)
            elif "/echo" in request:
                connection.sendall(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
                while data := wire.read():
                    connection.sendall(data)
                return
            else:
                connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 6\r\n\r\n no \r\n")


def test_errors_carry_status_and_trimmed_words(echo: Client) -> None:
    with pytest.raises(ApiError) as error:
        echo.get("/nothing")
    assert (error.value.status, str(error.value)) == (404, "Error response from daemon: no")
    assert echo.version == "1.41"


def test_a_stream_carries_much_both_ways_at_once_and_half_closes(echo: Client) -> None:
    wire = echo.hijack("/echo")
    sent = bytes(range(256)) * 4096

    def send() -> None:
        wire.sock.sendall(sent)
        wire.sock.shutdown(socket.SHUT_WR)

    writer = threading.Thread(target=send)
    writer.start()
    assert wire.read_exactly(len(sent)) == sent
    writer.join(10)
    assert wire.read() == b""
    wire.close()


def test_an_untrusted_daemon_is_refused_with_the_reason(tmp_path: Path) -> None:
    files = certificates(tmp_path)
    context = server_context(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=serve, args=(listener, context.wrap_socket), daemon=True).start()
    stranger = files._replace(ca=certificates(other).ca)
    with pytest.raises(Unreachable, match=r"error during connect to .*certificate verify failed"):
        Client(f"tcp://127.0.0.1:{listener.getsockname()[1]}", stranger).get("/networks")
    listener.close()


def certificates(root: Path) -> TlsFiles:
    """A certificate for 127.0.0.1 that is its own authority, for both sides."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs openssl to make certificates")
    key, certificate = root / "key.pem", root / "cert.pem"
    words = f"""req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout {key} -out {certificate}
        -subj /CN=netd -days 1 -addext subjectAltName=IP:127.0.0.1"""
    subprocess.run([openssl, *words.split()], check=True, capture_output=True)
    return TlsFiles(ca=str(certificate), cert=str(certificate), key=str(key), verify=True)


def server_context(root: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(root / "cert.pem"))
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(root / "cert.pem", root / "key.pem")
    return context
