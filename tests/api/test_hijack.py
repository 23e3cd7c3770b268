"""Attach, exec, logs and wait: answers that are streams, as the stock CLI and bare sockets see them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import struct
import subprocess
import time
from typing import Any, cast

import pytest

from netd.api.routes.containers import wait as wait_for_container
from netd.launcher.streams import STDOUT
from tests.api.double import EXEC_ID, Double, read_all
from tests.daemon.harness import eventually
from tests.unix_http import UnixConnection

ATTACH = "POST /v1.48/containers/web/attach?stdin=1&stdout=1&stderr=1&stream=1 HTTP/1.1\r\nHost: x\r\n"
UPGRADE = "Connection: Upgrade\r\nUpgrade: tcp\r\n"


def docker(api: Double, *arguments: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    env = {**os.environ, "DOCKER_HOST": f"unix://{api.path}"}
    options = {"capture_output": True, "timeout": 20, **options}
    return subprocess.run(["docker", *arguments], env=env, check=False, **options)


def attached(api: Double, *, head: str = ATTACH + UPGRADE, early: bytes = b"") -> socket.socket:
    connection = api.connect()
    connection.sendall(head.encode() + b"\r\n" + early)
    return connection


def read_head(connection: socket.socket) -> str:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += connection.recv(1)
    return head.decode()


def frames(data: bytes) -> list[tuple[int, bytes]]:
    """A multiplexed stream, with neighbours of one stream joined."""
    found: list[tuple[int, bytearray]] = []
    start = 0
    while start < len(data):
        stream, length = struct.unpack_from(">BxxxL", data, start)
        if not found or found[-1][0] != stream:
            found.append((stream, bytearray()))
        found[-1][1].extend(data[start + 8 : start + 8 + length])
        start += 8 + length
    assert start == len(data)
    return [(stream, bytes(joined)) for stream, joined in found]


# ---- the stock CLI ----


def test_docker_exec_passes_both_streams_and_the_end_of_input(api: Double) -> None:
    done = docker(api, "exec", "-i", "web", "cat", input=b"one\ntwo\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"one\ntwo\n", b"read 8 bytes\n")


def test_docker_exec_of_much_input(api: Double) -> None:
    data = os.urandom(8 << 20)
    done = docker(api, "exec", "-i", "web", "cat", input=data)
    assert done.stdout == data
    assert done.stderr == b"read 8388608 bytes\n"


def test_docker_attach(api: Double) -> None:
    env = {**os.environ, "DOCKER_HOST": f"unix://{api.path}"}
    command = ["docker", "attach", "--sig-proxy=false", "web"]
    with subprocess.Popen(command, env=env, stdin=-1, stdout=-1, stderr=-1) as client:
        assert client.stdin and client.stdout
        client.stdin.write(b"hello\n")
        client.stdin.flush()
        assert client.stdout.readline() == b"hello\n"
        client.stdin.close()
        eventually(lambda: api.containers.ended is not None)
        api.call(api.containers.ended.set_result, (7, ""))  # type: ignore[union-attr]
        assert client.wait(10) == 7
    assert api.process().read == 6


def test_docker_logs(api: Double) -> None:
    done = docker(api, "logs", "web")
    assert (done.stdout, done.stderr) == (b"out\n", b"err\n")


def test_docker_wait(api: Double) -> None:
    env = {**os.environ, "DOCKER_HOST": f"unix://{api.path}"}
    with subprocess.Popen(["docker", "wait", "web"], env=env, stdout=-1) as client:
        assert client.stdout and eventually(lambda: api.containers.ended is not None)
        api.call(api.containers.ended.set_result, (3, ""))  # type: ignore[union-attr]
        assert client.stdout.read() == b"3\n"


# ---- heads ----


@pytest.mark.parametrize(
    ("version", "tty", "upgrade", "status", "content_type"),
    [
        ("1.48", False, True, "101 UPGRADED", "application/vnd.docker.multiplexed-stream"),
        ("1.48", True, True, "101 UPGRADED", "application/vnd.docker.raw-stream"),
        ("1.41", False, True, "101 UPGRADED", "application/vnd.docker.raw-stream"),
        ("1.41", False, False, "200 OK", "application/vnd.docker.raw-stream"),
    ],
)
def test_the_head(api: Double, version: str, tty: bool, upgrade: bool, status: str, content_type: str) -> None:
    api.streams.tty = tty
    head = ATTACH.replace("1.48", version) + (UPGRADE if upgrade else "")
    with attached(api, head=head) as connection:
        answer = read_head(connection)
    assert answer.startswith(f"HTTP/1.1 {status}\r\n")
    assert f"Content-Type: {content_type}\r\n" in answer
    assert ("Upgrade: tcp\r\n" in answer) == upgrade
    assert "Api-Version: 1.48\r\n" in answer


def test_a_terminal_has_no_frames(api: Double) -> None:
    api.streams.tty = True
    with attached(api) as connection:
        read_head(connection)
        connection.sendall(b"hello")
        assert connection.recv(100) == b"hello"


def test_a_refused_attach_is_an_ordinary_error(api: Double) -> None:
    answer = api.raw((ATTACH.replace("web", "paused") + UPGRADE + "\r\n").encode())
    assert answer.startswith(b"HTTP/1.1 409 ")
    assert b"unpause the container before attach" in answer


# ---- bytes and ends ----


@pytest.mark.parametrize("upgrade", [UPGRADE, ""])
def test_what_is_sent_before_the_answer_is_not_lost(api: Double, upgrade: str) -> None:
    with attached(api, head=ATTACH + upgrade, early=b"GET / HTTP/1.1\r\n\r\n") as connection:
        read_head(connection)
        connection.sendall(b"and more")
        connection.shutdown(socket.SHUT_WR)
        assert frames(read_all(connection)) == [
            (1, b"GET / HTTP/1.1\r\n\r\nand more"),
            (2, b"read 26 bytes\n"),
        ]


def test_a_request_in_small_pieces(api: Double) -> None:
    body = b'{"Detach":false}'
    request = (
        f"POST /exec/{EXEC_ID}/start HTTP/1.1\r\nHost: x\r\n{UPGRADE}Content-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode()
    with api.connect() as connection:
        connection.sendall(request[:120])
        time.sleep(0.05)
        connection.sendall(request[120:] + body[:5])
        time.sleep(0.05)
        connection.sendall(body[5:] + b"early")
        connection.shutdown(socket.SHUT_WR)
        assert "101 UPGRADED" in read_head(connection)
        assert frames(read_all(connection)) == [(1, b"early"), (2, b"read 5 bytes\n")]


def test_after_the_end_of_input_output_goes_on(api: Double) -> None:
    with attached(api) as connection:
        read_head(connection)
        process = api.process()
        process.close_stdin = _nothing  # type: ignore[method-assign]
        connection.shutdown(socket.SHUT_WR)
        time.sleep(0.1)
        api.call(process.output.put_nowait, (STDOUT, b"still here"))
        api.call(process.output.put_nowait, None)
        assert frames(read_all(connection)) == [(1, b"still here")]
    eventually(process.closed.is_set)


async def _nothing() -> None:
    return None


def test_a_client_that_leaves_is_detached(api: Double) -> None:
    with attached(api) as connection:
        read_head(connection)
        process = api.process()
        process.close_stdin = _nothing  # type: ignore[method-assign]
    eventually(process.closed.is_set)
    eventually(lambda: not api.api.connections)


def test_input_is_ignored_when_it_is_not_asked_for(api: Double) -> None:
    with attached(api, head=ATTACH.replace("stdin=1", "stdin=0") + UPGRADE, early=b"nobody") as connection:
        read_head(connection)
        connection.sendall(b" listens")
        process = api.process()
        api.call(process.output.put_nowait, (STDOUT, b"x"))
        api.call(process.output.put_nowait, None)
        assert frames(read_all(connection)) == [(1, b"x")]
    assert process.read == 0


def test_only_the_streams_asked_for(api: Double) -> None:
    with attached(api, head=ATTACH.replace("stdout=1", "stdout=0") + UPGRADE, early=b"data") as connection:
        read_head(connection)
        connection.shutdown(socket.SHUT_WR)
        assert frames(read_all(connection)) == [(2, b"read 4 bytes\n")]


def test_a_process_that_does_not_read_holds_the_client_back(api: Double) -> None:
    with attached(api) as connection:
        read_head(connection)
        process = api.process()
        api.call(process.may_read.clear)
        connection.settimeout(0.3)
        sent = 0
        with pytest.raises(TimeoutError):
            while sent < 64 << 20:
                sent += connection.send(bytes(65536))
        assert sent < 4 << 20
        process.echo = False
        api.call(process.may_read.set)
        connection.settimeout(10)
        connection.shutdown(socket.SHUT_WR)
        assert frames(read_all(connection)) == [(2, b"read %d bytes\n" % sent)]


def test_a_client_that_does_not_read_holds_the_process_back(api: Double) -> None:
    with attached(api) as connection:
        read_head(connection)
        process = api.process()
        for _ in range(200):
            api.call(process.output.put_nowait, (STDOUT, bytes(65536)))
        time.sleep(0.2)
        assert process.output.qsize() > 100
        api.call(process.output.put_nowait, None)
        assert frames(read_all(connection)) == [(1, bytes(200 * 65536))]


def test_a_client_that_goes_on_sending_still_reads_the_end(api: Double) -> None:
    """Closing a socket with unread input would reset the connection, and the client would lose output."""
    with attached(api) as connection:
        read_head(connection)
        process = api.process()
        process.echo = False
        connection.sendall(bytes(100_000))
        api.call(process.output.put_nowait, (STDOUT, b"bye"))
        api.call(process.output.put_nowait, None)
        connection.sendall(bytes(50_000))
        assert frames(read_all(connection)) == [(1, b"bye")]


@pytest.mark.parametrize("tty", [False, True])
def test_a_command_that_cannot_start_is_told_in_the_stream(api: Double, tty: bool) -> None:
    api.streams.tty = tty
    answer = api.raw(f"POST /exec/{'f' * 64}/start HTTP/1.1\r\nHost: x\r\n{UPGRADE}\r\n".encode())
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"101 UPGRADED" in head
    words = b'OCI runtime exec failed: "nosuch": executable file not found in $PATH\r\n'
    assert (body if tty else frames(body)) == (words if tty else [(STDOUT, words)])


def test_the_process_reads_all_input_and_its_end_when_the_client_goes_away(api: Double) -> None:
    with attached(api, early=b"hello") as connection:
        read_head(connection)
        process = api.process()
    eventually(process.input_ended.is_set)
    eventually(process.closed.is_set)
    assert process.read == 5


def test_a_client_that_goes_away_ends_the_input_of_a_process_that_does_not_read(api: Double) -> None:
    with attached(api) as connection:
        read_head(connection)
        process = api.process()
        api.call(process.may_read.clear)
        connection.sendall(b"hello")
    eventually(process.input_ended.is_set)
    eventually(process.closed.is_set)


def test_a_detached_exec_has_no_stream(api: Double) -> None:
    reply = api.request("POST", f"/exec/{EXEC_ID}/start", {"Detach": True})
    assert (reply.status, reply.body) == (200, b"")


def test_past_output_comes_first(api: Double) -> None:
    with attached(api, head=ATTACH.replace("stream=1", "stream=1&logs=1") + UPGRADE) as connection:
        read_head(connection)
        api.call(api.process().output.put_nowait, (STDOUT, b"now"))
        api.call(api.process().output.put_nowait, None)
        assert frames(read_all(connection)) == [(1, b"out\n"), (2, b"err\n"), (1, b"now")]


def test_only_past_output(api: Double) -> None:
    with attached(api, head=ATTACH.replace("stream=1", "stream=0&logs=1") + UPGRADE) as connection:
        read_head(connection)
        assert frames(read_all(connection)) == [(1, b"out\n"), (2, b"err\n")]


# ---- wait ----


def test_the_head_of_wait_comes_before_the_container_ends(api: Double) -> None:
    connection = UnixConnection(api.path, timeout=10)
    connection.request("POST", "/containers/web/wait?condition=next-exit")
    answer = connection.getresponse()
    assert answer.status == 200
    assert api.containers.ended and not api.containers.ended.done()
    api.call(api.containers.ended.set_result, (137, ""))
    assert json.loads(answer.read()) == {"StatusCode": 137}
    connection.close()


def test_a_client_that_hung_up_before_the_head_does_not_begin_to_wait(api: Double) -> None:
    class Gone:
        services = api

        def text(self, name: str) -> str:
            return ""

        async def stream(self, content_type: str, pieces: Any) -> None:
            raise ConnectionResetError

    async def wait() -> int:
        with contextlib.suppress(ConnectionResetError):
            await wait_for_container(cast(Any, Gone()), "web")
        await asyncio.sleep(0)
        return api.containers.waiting

    assert api.run(wait()) == 0


def test_wait_for_an_unknown_container(api: Double) -> None:
    assert api.request("POST", "/containers/nosuch/wait").status == 404


def test_a_stopping_daemon_lets_streams_end(api: Double) -> None:
    with attached(api) as connection:
        read_head(connection)
        process = api.process()
        api.call(process.output.put_nowait, (STDOUT, b"last words"))
        time.sleep(0.1)
        began = time.monotonic()
        api.run(api.api.close())
        assert time.monotonic() - began < 3
        assert frames(read_all(connection)) == [(1, b"last words")]
    assert process.closed.is_set()
