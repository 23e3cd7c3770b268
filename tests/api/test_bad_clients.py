"""Clients that break off, send garbage, or stop listening: they get a plain answer or none, and change nothing."""

from __future__ import annotations

import socket
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.api.double import Double, read_all
from tests.daemon.harness import eventually
from tests.unix_http import UnixConnection

CREATE = b"POST /networks/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"

TRUNCATED = {
    "in the request line": b"POST /networks/cre",
    "in the headers": b"POST /networks/create HTTP/1.1\r\nHost: x\r\nContent-",
    "in the body": CREATE + b'Content-Length: 13\r\n\r\n{"Name":"x"',
    "in a chunk": CREATE + b'Transfer-Encoding: chunked\r\n\r\nd\r\n{"Name":"x"',
    "before the last chunk": CREATE + b'Transfer-Encoding: chunked\r\n\r\nc\r\n{"Name":"x"}\r\n',
    "in a hijacking request": b"POST /exec/x/start HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{",
}


@pytest.mark.parametrize("sent", TRUNCATED.values(), ids=TRUNCATED)
def test_a_truncated_request_changes_nothing(api: Double, sent: bytes) -> None:
    api.raw(sent, half_close=True)
    assert not api.networks.created
    assert api.request("GET", "/_ping").status == 200


GARBAGE = {
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "another protocol": b"GET / ICE/1.0\r\nHost: x\r\n\r\n",
    "no host": b"GET /_ping HTTP/1.1\r\n\r\n",
    "a negative length": CREATE + b"Content-Length: -1\r\n\r\n",
    "two lengths": CREATE + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
    "a bad chunk": CREATE + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n",
    "a huge header": b"GET /_ping HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
    "a huge path": b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "very many headers": b"GET /_ping HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 10_000 + b"\r\n",
    "a huge head of a hijack": b"POST /exec/x/start HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 100_000,
}


@pytest.mark.parametrize("sent", GARBAGE.values(), ids=GARBAGE)
def test_garbage_is_refused(api: Double, sent: bytes, caplog: pytest.LogCaptureFixture) -> None:
    answer = api.raw(sent)
    assert answer.split(b" ")[1] == b"400", answer
    assert b'{"message":"' in answer
    assert not api.networks.created
    assert "Traceback" not in caplog.text
    assert api.request("GET", "/_ping").status == 200


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200))
def test_any_bytes(api: Double, sent: bytes) -> None:
    api.raw(sent, half_close=True)
    assert not api.networks.created


def test_a_change_under_way_is_finished_when_its_client_leaves(api: Double) -> None:
    api.containers.slow = 0.2
    with api.connect() as connection:
        connection.sendall(b"POST /containers/idle/start HTTP/1.1\r\nHost: x\r\n\r\n")
        eventually(lambda: api.containers.starting)
    eventually(lambda: api.containers.started)
    assert api.containers.started == 1


def test_a_stopping_daemon_finishes_what_a_client_began_that_has_gone(api: Double) -> None:
    api.containers.slow = 0.5
    with api.connect() as connection:
        connection.sendall(b"POST /containers/idle/start HTTP/1.1\r\nHost: x\r\n\r\n")
        eventually(lambda: api.containers.starting)
    eventually(lambda: not api.api.connections)
    api.run(api.api.close())
    assert api.containers.started == 1


def test_an_upload_that_breaks_off_is_no_image(api: Double) -> None:
    head = b"POST /images/create?fromSrc=-&repo=x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    api.raw(head + b"5\r\nhello\r\n", half_close=True)
    time.sleep(0.05)
    assert api.images.imported == b""


def test_an_upload_larger_than_a_body_may_be(api: Double) -> None:
    reply = api.request("POST", "/images/create?fromSrc=-&repo=x", bytes(5_000_000), headers={"Content-Type": "x"})
    assert reply.json == {"status": "sha256:5000000"}


def test_pipelined_requests_are_answered_in_order(api: Double) -> None:
    one = b"GET /%s HTTP/1.1\r\nHost: x\r\n\r\n"
    with api.connect() as connection:
        connection.sendall(one % b"_ping" + one % b"nosuch" + one % b"networks/shop")
        data = b""
        while b'"Name":"shop"' not in data:
            data += connection.recv(65536)
    assert data.index(b"OK") < data.index(b"page not found") < data.index(b"shop")


def test_a_waiting_client_that_leaves_is_forgotten(api: Double) -> None:
    connection = UnixConnection(api.path, timeout=10)
    connection.request("POST", "/containers/web/wait")
    answer = connection.getresponse()
    assert api.containers.ended
    connection.sock.shutdown(socket.SHUT_RDWR) if connection.sock else None
    answer.close()
    connection.close()
    eventually(api.containers.ended.cancelled)


# ---- clients that say no more, but listen ----

LAST_WORDS = {
    "without a body": b"GET /networks HTTP/1.1\r\nHost: x\r\n\r\n",
    "with a body": CREATE + b'Content-Length: 12\r\n\r\n{"Name":"x"}',
    "in chunks": CREATE + b'Transfer-Encoding: chunked\r\n\r\nc\r\n{"Name":"x"}\r\n0\r\n\r\n',
}


@pytest.mark.parametrize("sent", LAST_WORDS.values(), ids=LAST_WORDS)
@pytest.mark.parametrize("pause", [0, 0.05])
def test_a_client_that_closes_its_side_after_a_request_gets_the_answer(api: Double, sent: bytes, pause: float) -> None:
    with api.connect() as connection:
        connection.sendall(sent)
        time.sleep(pause)
        connection.shutdown(socket.SHUT_WR)
        answer = read_all(connection)
    assert answer.startswith(b"HTTP/1.1 20")


def test_a_slow_answer_comes_too(api: Double) -> None:
    api.containers.slow = 0.3
    with api.connect() as connection:
        connection.sendall(b"POST /containers/idle/start HTTP/1.1\r\nHost: x\r\n\r\n")
        connection.shutdown(socket.SHUT_WR)
        assert read_all(connection).startswith(b"HTTP/1.1 204")


def test_a_listener_that_goes_without_a_word_is_noticed(api: Double) -> None:
    with api.connect() as connection:
        connection.sendall(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(17) == b"HTTP/1.1 200 OK\r\n"
        assert len(api.api.connections) == 1
    eventually(lambda: not api.api.connections)
