"""conmon, the small process beside each container (and each exec session) that holds its streams, writes its
log and remembers its exit code, so that none of it depends on the daemon. conmon(8).

Everything about one such process is in one directory, where conmon also finds its working directory: its pid
file, the runtime's pid file, the attach socket, the control fifo, the exit file and the `oom` marker.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from netd.core.times import timestamp
from netd.launcher import processes
from netd.launcher.spec import ExitStatus, LaunchError, Unkillable

log = logging.getLogger(__name__)

_RESIZE = 1  # conmon's WIN_RESIZE_EVENT
_MAX_SIZE = 1000  # conmon refuses larger windows
_MESSAGE_LIMIT = 64 * 1024
_PATIENCE = 60.0  # seconds for a runtime to make a container or to start a process, on a machine that is busy


class Report(msgspec.Struct):
    """One line of conmon's sync pipe: a pid, or a negative number and what went wrong."""

    data: int
    message: str = ""


class StartFailed(Exception):
    """The runtime did not start the process; `text` is what it or conmon said."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


@dataclass(frozen=True, slots=True)
class Monitored:
    """The directory of one conmon and what can be learned and done through it. `container` is the container's id."""

    directory: Path
    container: str

    @property
    def pid(self) -> int | None:
        """Pid of the process it looks after, as the runtime wrote it: to be checked before use."""
        return _read_pid(self.directory / "pid")

    def monitor(self) -> int | None:
        """A pidfd of the conmon, None if it has ended. Checked against its command line."""
        pid = _read_pid(self.directory / "conmon.pid")
        pidfd = processes.open_pidfd(pid) if pid else None
        if pidfd is not None and str(self.directory) not in processes.command_line(pid or 0):
            os.close(pidfd)
            return None
        return pidfd

    def exit_status(self) -> ExitStatus | None:
        """What its conmon left when the process ended."""
        path = self.directory / self.container
        try:
            code = int(path.read_text())
            finished = path.stat().st_mtime_ns
        except (FileNotFoundError, ValueError):
            return None
        return ExitStatus(code, timestamp(finished), (self.directory / "oom").exists())

    def connect(self) -> socket.socket:
        """A new connection to the process's streams; raises OSError if its conmon has ended."""
        directory = os.open(self.directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        try:
            # through the descriptor: a path under a long exec root exceeds the 108 bytes of unix(7)
            connection.connect(f"/proc/self/fd/{directory}/attach")
        except OSError:
            connection.close()
            raise
        finally:
            os.close(directory)
        return connection

    def resize(self, height: int, width: int) -> None:
        """Set the size of its terminal, in characters; nothing happens once it has ended."""
        with suppress(OSError):
            fifo = os.open(self.directory / "ctl", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                os.write(fifo, b"%d %d %d\n" % (_RESIZE, min(height, _MAX_SIZE), min(width, _MAX_SIZE)))
            finally:
                os.close(fifo)


_Process = subprocess.Popen[bytes]


@dataclass(frozen=True, slots=True)
class Conmon:
    """How to start one: the executables and the runtime's state directory."""

    program: str
    runtime: str
    runtime_root: Path

    async def create(self, target: Monitored, log: Path, flags: Sequence[str]) -> int:
        """Have the runtime create the container whose bundle is the target's directory; its first process's pid."""
        arguments = self._arguments(target, f"k8s-file:{log}", flags)
        with _Pipes() as pipes:
            sync = pipes.from_child("_OCI_SYNCPIPE")
            async with self._running(target, arguments, pipes) as process:
                return await self._started(target, process, sync)

    async def exec(self, target: Monitored, flags: Sequence[str], *, attach: bool) -> tuple[int, socket.socket | None]:
        """Run one more process (`process.json` in the target's directory) in the container: its pid, and a
        connection to its streams made before its first output."""
        flags = [*flags, "--exec", "--exec-attach", "--exec-process-spec", str(target.directory / "process.json")]
        with _Pipes() as pipes:
            sync = pipes.from_child("_OCI_SYNCPIPE")
            ready = pipes.from_child("_OCI_ATTACHPIPE")
            go = pipes.to_child("_OCI_STARTPIPE")
            os.write(go, b"\0")
            async with self._running(target, self._arguments(target, "none", flags), pipes) as process:
                await _line(ready)
                with ExitStack() as undo:
                    connection = undo.enter_context(target.connect()) if attach else None
                    os.write(go, b"\0")
                    pid = await self._started(target, process, sync)
                    undo.pop_all()
                return pid, connection

    def _arguments(self, target: Monitored, log: str, flags: Sequence[str]) -> list[str]:
        directory = str(target.directory)
        runtime = ["--root", str(self.runtime_root), "--log", f"{directory}/runtime.log", "--log-format", "json"]
        return [
            self.program,
            *("--api-version", "1", "--full-attach", "--no-sync-log"),
            *("--cid", target.container, "--cuuid", target.container, "--name", target.container),
            *("--runtime", self.runtime, "--bundle", directory, "--exit-dir", directory, "--log-path", log),
            *("--conmon-pidfile", f"{directory}/conmon.pid", "--container-pidfile", f"{directory}/pid"),
            *(word for argument in runtime for word in ("--runtime-arg", argument)),
            *flags,
        ]

    @asynccontextmanager
    async def _running(self, target: Monitored, arguments: list[str], pipes: _Pipes) -> AsyncIterator[_Process]:
        """A conmon, while it says how the runtime fares. If we are interrupted its pid file tells whom to stop."""
        process = self._spawn(target, arguments, pipes)
        try:
            async with asyncio.timeout(_PATIENCE):
                yield process
        except TimeoutError as error:
            await _reap(process)
            await stop_monitor(target, patience=0)
            raise StartFailed(f"the runtime did not answer within {_PATIENCE:.0f} s") from error
        finally:
            await _reap(process)

    def _spawn(self, target: Monitored, arguments: list[str], pipes: _Pipes) -> _Process:
        # TMPDIR: its console socket, by a relative path because of the length limit of unix(7)
        # GOMAXPROCS: runc, a Go program too short-lived for more threads, starts a sixth faster with one
        path = os.environ.get("PATH", os.defpath)
        environment = {"PATH": path, "TMPDIR": ".", "GOMAXPROCS": "1", **pipes.environment}
        with open(target.directory / "conmon.log", "ab") as errors:
            process = subprocess.Popen(
                arguments,
                cwd=target.directory,
                env=environment,
                pass_fds=pipes.inherited,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
            )
        pipes.close_inherited()
        return process

    async def _started(self, target: Monitored, process: _Process, sync: int) -> int:
        line = await _line(sync)
        await _reap(process)
        report = msgspec.json.decode(line, type=Report) if line else Report(-1)
        if report.data > 0:
            return report.data
        await stop_monitor(target, patience=1)
        raise StartFailed(report.message or (target.directory / "conmon.log").read_text(errors="replace"))


class _Pipes:
    """The pipes conmon finds by environment variables; all our ends are closed on leaving."""

    def __init__(self) -> None:
        self.environment: dict[str, str] = {}
        self.inherited: list[int] = []
        self._ours: list[int] = []

    def __enter__(self) -> _Pipes:
        return self

    def __exit__(self, *_: object) -> None:
        self.close_inherited()
        for descriptor in self._ours:
            os.close(descriptor)

    def from_child(self, name: str) -> int:
        ours, theirs = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(ours, False)
        return self._add(name, ours, theirs)

    def to_child(self, name: str) -> int:
        theirs, ours = os.pipe2(os.O_CLOEXEC)
        return self._add(name, ours, theirs)

    def close_inherited(self) -> None:
        for descriptor in self.inherited:
            os.close(descriptor)
        self.inherited = []

    def _add(self, name: str, ours: int, theirs: int) -> int:
        self.environment[name] = str(theirs)
        self.inherited.append(theirs)
        self._ours.append(ours)
        return ours


async def _line(descriptor: int) -> bytes:
    """The first line from a pipe, without its end; what there is if the writer goes away before."""
    data = b""
    while len(data) < _MESSAGE_LIMIT and b"\n" not in data:
        await processes.readable(descriptor)
        chunk = os.read(descriptor, _MESSAGE_LIMIT)
        if not chunk:
            break
        data += chunk
    return data.partition(b"\n")[0]


def _read_pid(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (FileNotFoundError, ValueError):
        return None


def find_program(name: str) -> str:
    """Absolute path of an executable we cannot do without; raises `LaunchError`."""
    directories = [*os.environ.get("PATH", os.defpath).split(os.pathsep), "/usr/local/sbin", "/usr/sbin", "/sbin"]
    for directory in directories:
        path = os.path.join(directory, name)
        if os.access(path, os.X_OK) and os.path.isfile(path):
            return path
    raise LaunchError(f"{name} is not installed; containers cannot be started without it")


async def _reap(process: _Process) -> None:
    """Let our child end, which it does once its pid file is there and its own child goes on in the background."""
    if process.poll() is not None:
        return
    pidfd = os.pidfd_open(process.pid)
    try:
        if not await processes.ended_within(pidfd, processes.DEADLINE):
            log.warning("conmon, process %d, does not go into the background", process.pid)
    finally:
        os.close(pidfd)
        process.poll()


async def monitor_ended(target: Monitored) -> None:
    """Wait until its conmon has ended; at once if it has."""
    pidfd = target.monitor()
    if pidfd is None:
        return
    try:
        await processes.ended(pidfd)
    finally:
        os.close(pidfd)


async def stop_monitor(target: Monitored, patience: float) -> bool:
    """Give its conmon `patience` seconds to end by itself, then kill it; whether it had to be killed.

    Raises `Unkillable`.
    """
    pidfd = target.monitor()
    if pidfd is None:
        return False
    try:
        if await processes.ended_within(pidfd, patience):
            return False
        processes.send(pidfd, signal.SIGKILL)
        if not await processes.ended_within(pidfd, processes.DEADLINE):
            raise Unkillable("its conmon does not end although it was killed")
        return True
    finally:
        os.close(pidfd)
