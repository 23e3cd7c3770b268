"""The `netd-dns` process: its control socket, and its life."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import gc
import logging
import os
import resource
import signal
import socket
import struct
from collections import deque
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from dns import control, wire
from dns.control import Frames, Reply, Request
from dns.netns import Namespace
from dns.service import Service, ServiceError
from dns.zone import ZoneError

log = logging.getLogger(__name__)

_DESCRIPTORS = 64  # of one recvmsg
_MAX_UNSENT = 4 << 20  # bytes a log follower may lag behind before lines are dropped
_FAREWELL = 5.0  # seconds a retired process still has for what is in flight: no question takes longer


class ControlServer:
    """Listens for daemons on a unix socket; only root and the process's own user may speak."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, service: Service, path: Path, lock: int, stop: asyncio.Event
    ) -> None:
        self._loop = loop
        self._lock = lock
        self._stop = stop
        self._retired = False
        self._service = service
        self._path = path
        self._clients: set[_Client] = set()
        path.unlink(missing_ok=True)
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        unheard = path.with_name(f"{path.name}~")
        unheard.unlink(missing_ok=True)
        old = os.umask(0o177)
        try:
            self._sock.bind(str(unheard))
        finally:
            os.umask(old)
        self._sock.listen(16)
        unheard.rename(path)  # whoever finds it finds somebody who listens
        loop.add_reader(self._sock, self._accept)

    @property
    def idle(self) -> bool:
        return not self._clients

    def close(self) -> None:
        if not self._retired:
            self._stop_listening()
        for client in list(self._clients):
            client.close()

    def retire(self) -> None:
        """Make room for a successor; the process ends some time after its last client has gone."""
        log.info("a process of another version takes over")
        self._service.retire()
        self._stop_listening()
        self._retired = True
        os.close(self._lock)

    def gone(self, client: _Client) -> None:
        self._clients.discard(client)
        if self._retired and not self._clients:
            self._loop.call_later(_FAREWELL, self._stop.set)

    def _stop_listening(self) -> None:
        self._loop.remove_reader(self._sock)
        self._sock.close()
        self._path.unlink(missing_ok=True)

    def _accept(self) -> None:
        sock, _ = self._sock.accept()
        sock.setblocking(False)
        _, uid, _ = struct.unpack("iii", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if uid not in (0, os.getuid()):
            sock.close()
            return
        self._clients.add(_Client(self._loop, self._service, sock, self))


class _Client:
    """One daemon's connection. Requests are carried out as they come, each in one step."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, service: Service, sock: socket.socket, server: ControlServer
    ) -> None:
        self._loop = loop
        self._service = service
        self._sock = sock
        self._server = server
        self._closed = False
        self._frames = Frames()
        self._descriptors: deque[int] = deque()
        self._unsent = bytearray()
        self._decoder = msgspec.msgpack.Decoder(Request)
        self._follows: list[Any] = []
        loop.add_reader(sock, self._receive)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._server.gone(self)
        for listener in self._follows:
            self._service.log.forget(listener)
        self._loop.remove_reader(self._sock)
        self._loop.remove_writer(self._sock)
        self._sock.close()
        while self._descriptors:
            os.close(self._descriptors.popleft())

    def _receive(self) -> None:
        try:
            data, descriptors, _, _ = socket.recv_fds(self._sock, 1 << 18, _DESCRIPTORS)
        except BlockingIOError:
            return
        except OSError:
            data, descriptors = b"", []
        self._descriptors += descriptors
        if not data:
            self.close()
            return
        try:
            for body in self._frames.feed(data):
                self._handle(body)
        except (ValueError, msgspec.DecodeError) as error:
            log.error("the daemon's message cannot be read, its connection is closed: %s", error)
            self.close()

    def _handle(self, body: bytes) -> None:
        request = self._decoder.decode(body)
        try:
            if isinstance(request.message, control.Surrender):
                self._surrender(request.number, request.message)
                return
            value = self._carry_out(request)
        except (ServiceError, ZoneError, wire.Malformed) as error:
            self._send(Reply(request.number, str(error)))
        except Exception as error:
            # one bad request must not end the answers of every sandbox
            log.exception("request failed")
            self._send(Reply(request.number, f"the resolver failed: {error!r}"))
        else:
            self._send(Reply(request.number, value=value, more=isinstance(request.message, control.Follow)))

    def _carry_out(self, request: Request) -> Any:
        service = self._service
        match request.message:
            case control.PutNetwork() as message:
                return service.put_network(message)
            case control.DeleteNetwork() as message:
                return service.delete_network(message)
            case control.Join() as message:
                return service.join(message)
            case control.Leave() as message:
                return service.leave(message)
            case control.PutRecord() as message:
                return service.put_record(message)
            case control.DeleteRecord() as message:
                return service.delete_record(message)
            case control.PutSandbox() as message:
                return service.put_sandbox(message.view, *self._take(message))
            case control.DeleteSandbox() as message:
                return service.delete_sandbox(message)
            case control.GetState():
                return service.state()
            case control.Retire():
                return self._server.retire()
            case control.Explain() as message:
                return service.explain(message)
            case control.Follow() as message:
                return self._follow(request.number, message.sandbox)

    def _take(self, message: control.PutSandbox) -> tuple[tuple[socket.socket, socket.socket] | None, Namespace | None]:
        sockets = None
        if message.sockets:
            udp, tcp = self._descriptors.popleft(), self._descriptors.popleft()
            sockets = socket.socket(fileno=udp), socket.socket(fileno=tcp)
        return sockets, Namespace(self._descriptors.popleft()) if message.netns else None

    def _surrender(self, number: int, message: control.Surrender) -> None:
        """The descriptors go with the reply, at once: whoever takes over asks for one thing at a time."""
        socket.send_fds(self._sock, [control.frame(Reply(number))], self._service.surrender(message))

    def _follow(self, number: int, sandbox: str) -> None:
        def listener(entry: control.LogEntry) -> None:
            if len(self._unsent) < _MAX_UNSENT:
                self._send(Reply(number, value=entry, more=True))

        self._follows.append(listener)
        self._service.log.listen(listener, sandbox)

    def _send(self, reply: Reply) -> None:
        if not self._unsent:
            self._loop.add_writer(self._sock, self._flush)
        self._unsent += control.frame(reply)

    def _flush(self) -> None:
        try:
            sent = self._sock.send(self._unsent)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        del self._unsent[:sent]
        if not self._unsent:
            self._loop.remove_writer(self._sock)


def run(path: Path, idle_check: float = 30.0, kernel: str = "off") -> int:
    """Serve until SIGTERM, or until nobody needs it for twice `idle_check` seconds.

    `kernel` says whether questions are answered in the kernel: auto, on or off.

    Returns at once when another process serves the same socket already.
    """
    path = path.absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        log.info("the resolver runs already")
        return 0
    os.chdir("/")
    prepare_process()
    uvloop.run(_serve(path, lock, idle_check, kernel))
    return 0


def prepare_process() -> None:
    """As many descriptors as the system gives, and no pauses for garbage that the hot path does not make."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


async def _serve(path: Path, lock: int, idle_check: float, kernel: str) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    status = os.fstat(lock)  # whoever holds the lock owns what is in the kernel
    service = Service(loop, kernel, (status.st_dev, status.st_ino))
    server = ControlServer(loop, service, path, lock, stop)
    log.info("netd-dns is ready")
    idle = 0
    while idle < 2 and not stop.is_set():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), idle_check)
        # nobody to serve and nobody to hear from: the next daemon starts another
        idle = idle + 1 if server.idle and service.idle else 0
    server.close()
    service.close()
