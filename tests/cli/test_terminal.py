"""On a terminal: raw keys, window size, the detach keys, signals."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator

import pytest

from tests.cli.conftest import netd

pytestmark = pytest.mark.root

NETD = [sys.executable, "-m", "netd"]
DETACH = b"\x10\x11"


class Terminal:
    """A client on a pseudo-terminal of its own."""

    def __init__(self, engine: str, *arguments: str) -> None:
        self.screen = b""
        pid, self.descriptor = pty.fork()
        if pid == 0:
            os.environ.update(NETD_HOST=engine)
            os.execvp(NETD[0], [*NETD, *arguments])
        self.pid = pid
        self.resize(30, 90)

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, keys: bytes) -> None:
        os.write(self.descriptor, keys)

    def ask(self, keys: bytes, text: str) -> None:
        """Types until `text` is on the screen: what the container does, and when, is not ours to know."""
        for _ in range(60):
            self.type(keys)
            until = time.monotonic() + 0.5
            while text.encode() not in self.screen and (left := until - time.monotonic()) > 0:
                self._read(left)
            if text.encode() in self.screen:
                return
        raise AssertionError(f"{text!r} did not appear on: {self.screen!r}")

    def see(self, text: str, seconds: float = 30) -> None:
        """Waits until `text` is on the screen."""
        deadline = time.monotonic() + seconds
        while text.encode() not in self.screen:
            left = deadline - time.monotonic()
            assert left > 0 and self._read(left), f"{text!r} did not appear on: {self.screen!r}"

    def end(self) -> int:
        """Waits for the client; its exit code."""
        while self._read(30):
            pass
        _, status = os.waitpid(self.pid, 0)
        os.close(self.descriptor)
        return os.waitstatus_to_exitcode(status)

    def _read(self, seconds: float) -> bool:
        if not select.select([self.descriptor], [], [], seconds)[0]:
            return False
        try:
            data = os.read(self.descriptor, 65536)
        except OSError:  # how Linux says that the other side is closed
            return False
        self.screen += data
        return bool(data)


@pytest.fixture
def terminal(engine: str) -> Iterator[Callable[..., Terminal]]:
    """Opens terminals; a container called `term` is removed before and after."""
    netd(engine, "rm", "-f", "term")
    yield lambda *arguments: Terminal(engine, *arguments)
    netd(engine, "rm", "-f", "term")


def test_a_shell_reads_keys_and_its_exit_code_is_ours(terminal: Callable[..., Terminal]) -> None:
    screen = terminal("run", "-it", "--rm", "busybox", "sh")
    screen.see("# ")
    screen.type(b"echo $((6*7))\r")
    screen.see("42")
    screen.type(b"exit 5\r")
    assert screen.end() == 5


def test_the_window_size_reaches_the_container(terminal: Callable[..., Terminal]) -> None:
    screen = terminal("run", "-it", "--rm", "busybox", "sh", "-c", "while read x; do stty size; done")
    screen.ask(b"\r", "30 90")
    screen.resize(41, 101)
    screen.ask(b"\r", "41 101")
    screen.type(b"\x04")
    assert screen.end() == 0


def test_detach_keys_leave_the_container_running(terminal: Callable[..., Terminal], engine: str) -> None:
    screen = terminal("run", "-it", "--name", "term", "busybox", "sh")
    screen.see("# ")
    screen.type(DETACH)
    assert screen.end() == 0
    assert netd(engine, "ps", "--format", "{{.Names}}", "--filter", "name=term").stdout == "term\n"


def test_attach_joins_a_running_shell_and_leaves_it(terminal: Callable[..., Terminal], engine: str) -> None:
    assert netd(engine, "run", "-dit", "--name", "term", "busybox", "sh").returncode == 0
    screen = terminal("attach", "--detach-keys", "ctrl-x,x", "term")
    screen.ask(b"echo $((6*7))\r", "42")
    screen.type(b"\x18x")
    assert screen.end() == 1
    assert screen.screen.rstrip().endswith(b"read escape sequence")


def test_exec_with_a_terminal(terminal: Callable[..., Terminal], engine: str) -> None:
    assert netd(engine, "run", "-d", "--name", "term", "busybox", "sleep", "100").returncode == 0
    screen = terminal("exec", "-it", "term", "sh", "-c", 'tty; while [ "$x" != q ]; do read x; stty size; done; exit 9')
    screen.see("/dev/pts/")
    screen.ask(b"\r", "30 90")
    screen.type(b"q\r")
    assert screen.end() == 9


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1], ids=str)
def test_signals_go_to_the_process_in_the_container(engine: str, number: signal.Signals) -> None:
    script = "trap 'echo got it; exit 3' TERM INT USR1; echo ready; while :; do sleep 0.1; done"
    process = subprocess.Popen(
        [*NETD, "run", "--rm", "busybox", "sh", "-c", script],
        env={**os.environ, "NETD_HOST": engine},
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(number)
    rest, _ = process.communicate(timeout=10)
    assert (rest, process.returncode) == (b"got it\n", 3)


def test_the_terminal_is_left_as_it_was_found(engine: str) -> None:
    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    words = [*NETD, "run", "-it", "--rm", "busybox", "true"]
    environment = {**os.environ, "NETD_HOST": engine}
    assert subprocess.run(words, stdin=theirs, stdout=theirs, stderr=theirs, env=environment).returncode == 0
    assert termios.tcgetattr(theirs) == before
    os.close(ours)
    os.close(theirs)
