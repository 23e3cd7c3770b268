"""A terminal and a process in a container: streams both ways, raw mode, window size, signals, detaching."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from netd.cli.command import Cli, Failure, command
from netd.cli.words import flags
from netd.cli.words.flags import Options
from netd.client.api import ApiError, Client, Unreachable
from netd.client.wire import Wire

DETACH_KEYS = flags.string("detach-keys", "", "Override the key sequence for detaching a container")
SIG_PROXY = flags.boolean("sig-proxy", "", "Proxy all received signals to the process", default=True)

_NOT_PROXIED = {signal.SIGCHLD, signal.SIGPIPE, signal.SIGURG, signal.SIGKILL, signal.SIGSTOP, signal.SIGWINCH}
_KEYS = {"@": 0, "[": 27, "\\": 28, "]": 29, "^": 30, "_": 31}


class Detached(Exception):
    """The user typed the detach keys."""


def parse_detach_keys(text: str) -> bytes:
    """`ctrl-p,ctrl-q` -> b"\\x10\\x11"; raises ValueError."""
    keys = bytearray()
    for key in text.split(",") if text else ():
        control = key.removeprefix("ctrl-")
        if len(key) == 1:
            keys.append(ord(key))
        elif len(control) == 1 and control != key and "a" <= control <= "z":
            keys.append(ord(control) - ord("a") + 1)
        elif control != key and control in _KEYS:
            keys.append(_KEYS[control])
        else:
            raise ValueError(f"Unknown character: '{key}'")
    return bytes(keys)


class DetachScanner:
    """Passes typed bytes on, holding back what may be the beginning of the detach keys."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._held = b""

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """What to send, and whether the keys were completed."""
        out = bytearray()
        for byte in data:
            self._held += bytes([byte])
            if self._held == self._keys:
                return bytes(out), True
            while self._held and not self._keys.startswith(self._held):
                out.append(self._held[0])
                self._held = self._held[1:]
        return bytes(out), False


class Session:
    """The hijacked connection of an attach or exec, joined to this process's own streams."""

    def __init__(self, wire: Wire, *, tty: bool, stdin: bool, stdout: bool = True, detach_keys: str = "") -> None:
        self.wire = wire
        self.tty = tty
        self.stdin = stdin
        self._out = 1 if stdout else None
        keys = parse_detach_keys(detach_keys) if detach_keys else b"\x10\x11"
        self._scanner = DetachScanner(keys) if tty else None
        self._detached = False

    def run(self) -> None:
        """Copies until the process's output ends; raises Detached when the user detached first."""
        with raw_terminal(self.tty and self.stdin):
            if self.stdin:
                threading.Thread(target=self._copy_stdin, daemon=True).start()
            with suppress(ConnectionError):  # the daemon or the process is gone: its exit code tells
                copy_output(self.wire, tty=self.tty)
        if self._detached:
            raise Detached

    def _copy_stdin(self) -> None:
        import socket

        try:
            while data := os.read(0, 32768):
                if self._scanner is not None:
                    data, self._detached = self._scanner.feed(data)
                self.wire.sock.sendall(data)
                if self._detached:
                    self.wire.sock.shutdown(socket.SHUT_RDWR)
                    return
            self.wire.sock.shutdown(socket.SHUT_WR)  # its stdin has ended, while its output goes on
        except OSError:
            return  # the other side is gone, or stdin is closed: nothing is left to send


def copy_output(wire: Wire, *, tty: bool) -> None:
    """Everything the process writes, to our stdout and stderr."""
    sys.stdout.flush()
    if tty:
        while data := wire.read():
            write_all(1, data)
        return
    for stream, data in frames(wire.read_exactly):
        write_all(2 if stream == 2 else 1, data)


def frames(read_exactly: Callable[[int], bytes]) -> Iterator[tuple[int, bytes]]:
    """The multiplexed stream of a process without a terminal: stream number and data of every frame."""
    while len(head := read_exactly(8)) == 8:
        data = read_exactly(int.from_bytes(head[4:], "big"))
        if head[0] == 3:
            raise Failure(f"error from daemon in stream: {data.decode(errors='replace')}")
        yield head[0], data


def write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


@contextmanager
def raw_terminal(wanted: bool) -> Iterator[None]:
    """Keys go to the container one by one, unechoed, as long as this lasts."""
    if not wanted or not os.isatty(0):
        yield
        return
    import termios
    import tty

    before = termios.tcgetattr(0)
    tty.setraw(0)
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)


def terminal_size() -> tuple[int, int]:
    """Height and width; zeros without a terminal."""
    try:
        size = os.get_terminal_size(1)
    except OSError:
        return 0, 0
    return size.lines, size.columns


def follow_window(client: Client, path: str) -> None:
    """Gives the container's terminal our size, now and whenever it changes. `path` is `/exec/ID` or alike."""

    def resize(*_: Any) -> None:
        height, width = terminal_size()
        if not (height or width):
            return
        for attempt in range(5):
            try:
                client.another().post(f"{path}/resize", {"h": height, "w": width})
                return
            except (ApiError, Unreachable):
                time.sleep(0.01 * (attempt + 1))  # the process may not have started yet

    signal.signal(signal.SIGWINCH, resize)
    resize()


def proxy_signals(client: Client, container: str) -> None:
    """Every signal we get goes to the container's process instead."""

    def forward(number: int, _: Any) -> None:
        try:
            client.another().post(f"/containers/{container}/kill", {"signal": str(number)})
        except (ApiError, Unreachable):
            return  # it has ended meanwhile

    for number in signal.valid_signals() - _NOT_PROXIED:
        try:
            signal.signal(number, forward)
        except (OSError, ValueError):
            continue  # reserved by the C library


def check_tty(*, stdin: bool, tty: bool) -> None:
    """A terminal in the container needs one here to type on."""
    if stdin and tty and not os.isatty(0):
        raise Failure("the input device is not a TTY")


def attach_session(client: Client, container: str, config: dict[str, Any], detach_keys: str) -> Session:
    """Opens the streams of a container that `config` says to attach."""
    query = {
        "stream": True,
        "stdin": config["AttachStdin"],
        "stdout": config["AttachStdout"],
        "stderr": config["AttachStderr"],
        "detachKeys": detach_keys,
    }
    wire = client.hijack(f"/containers/{container}/attach", query)
    return Session(wire, tty=config["Tty"], stdin=config["AttachStdin"], detach_keys=detach_keys)


@command(
    "[OPTIONS] CONTAINER",
    (1, 1),
    DETACH_KEYS,
    flags.boolean("no-stdin", "", "Do not attach STDIN"),
    SIG_PROXY,
)
def attach(cli: Cli, options: Options, arguments: list[str]) -> int:
    (name,) = arguments
    found = cli.client.get(f"/containers/{name}/json")
    state, config = found["State"], found["Config"]
    if not state["Running"]:
        raise Failure("You cannot attach to a stopped container, start it first")
    if state["Paused"]:
        raise Failure("You cannot attach to a paused container, unpause it first")
    if state.get("Restarting"):
        raise Failure("You cannot attach to a restarting container, wait until it is running")
    stdin = not options.no_stdin and config["OpenStdin"]
    check_tty(stdin=stdin, tty=config["Tty"])
    streams = {"AttachStdin": stdin, "AttachStdout": True, "AttachStderr": True, "Tty": config["Tty"]}
    session = attach_session(cli.client, found["Id"], streams, options.detach_keys)
    if options.sig_proxy and not config["Tty"]:
        proxy_signals(cli.client, found["Id"])
    if config["Tty"]:
        follow_window(cli.client, f"/containers/{found['Id']}")
    try:
        session.run()
    except Detached:
        raise Failure("read escape sequence") from None
    return int(cli.client.post(f"/containers/{found['Id']}/wait")["StatusCode"])
