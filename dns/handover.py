"""From a resolver process of another version to its successor, without losing a question.

The old process gives up its control socket first and serves on. The successor is told all tables; then each
sandbox's sockets move, with the questions that wait in them. What the old one has in flight it still answers.
These calls block, for local answers: run them in a thread.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import socket
import threading
from pathlib import Path
from typing import Any

import msgspec

from dns import control
from dns.control import Frames, Message, Ports, Reply, Request, ResolverState

log = logging.getLogger(__name__)

_TIMEOUT = 2.0  # seconds for an answer of the old process, and for its end


class Predecessor:
    """The old process, retired: sandboxes that still have to be taken from it."""

    def __init__(self, path: Path) -> None:
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._sock.settimeout(_TIMEOUT)
        self._asking = threading.Lock()
        self._sock.connect(str(path))
        self.pid, _, _ = _credentials(self._sock)
        self.sandboxes: dict[str, Ports] = {}

    def retire(self) -> None:
        """Let it make room for a successor. Raises `OSError` or `ValueError` when it cannot do that."""
        state, _ = self._ask(control.GetState())
        self._ask(control.Retire())
        self.sandboxes = msgspec.convert(state, ResolverState).sandboxes

    def take(self, sandbox: str) -> list[int]:
        """Descriptors of a sandbox's UDP and TCP socket, and of its namespace; none if it has them no more."""
        if self.sandboxes.pop(sandbox, None) is None:
            return []
        try:
            with self._asking:
                return self._ask(control.Surrender(sandbox))[1]
        except (OSError, ValueError) as error:
            log.error("sandbox %s cannot be taken from the old resolver process: %s", sandbox[:12], error)
            return []
        finally:
            if not self.sandboxes:
                self.close()

    def end(self) -> None:
        """End the process, and wait until it has."""
        self.close()
        with contextlib.suppress(ProcessLookupError):
            process = os.pidfd_open(self.pid)
            try:
                for number in (signal.SIGTERM, signal.SIGKILL):
                    os.kill(self.pid, number)
                    if select.select([process], [], [], _TIMEOUT)[0]:
                        return
            finally:
                os.close(process)

    def close(self) -> None:
        """Say good-bye: it ends when it has answered all that is in flight."""
        self._sock.close()

    def _ask(self, message: Message) -> tuple[Any, list[int]]:
        self._sock.sendall(control.frame(Request(1, message)))  # type: ignore[arg-type]
        frames = Frames()
        descriptors: list[int] = []
        while True:
            data, more, _, _ = socket.recv_fds(self._sock, 1 << 18, 3)
            descriptors += more
            if not data:
                raise ConnectionError("it does not know how to hand over")
            for body in frames.feed(data):
                reply = msgspec.msgpack.decode(body, type=Reply)
                if reply.error:
                    raise ConnectionError(reply.error)
                return reply.value, descriptors


def retire(path: Path) -> Predecessor | None:
    """Retire the process that serves `path`; None if there is nothing to take from it, and then it has ended."""
    try:
        old = Predecessor(path)
    except OSError:
        return None
    try:
        old.retire()
    except (OSError, ValueError) as error:
        log.warning("the old resolver process is replaced without a handover: %s", error)
        old.end()
        return None
    if old.sandboxes:
        return old
    old.close()
    return None


def _credentials(sock: socket.socket) -> tuple[int, int, int]:
    pid, uid, gid = memoryview(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)).cast("i")
    return pid, uid, gid
