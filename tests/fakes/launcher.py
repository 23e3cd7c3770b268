"""Containers' processes that react to signals, and outlive the daemon as the real ones under conmon do."""

from __future__ import annotations

import asyncio
import itertools
import shutil
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from netd.core.errors import Conflict, NotFound
from netd.core.times import timestamp
from netd.launcher import ExecSpec, ExitStatus, LaunchError, LaunchSpec, Running
from netd.model.containers import HostConfig
from tests.fakes.calls import Calls, before, step, stepped

_DEADLY = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)


@dataclass(slots=True, eq=False)
class Process:
    """A process under its conmon: `end` says how it ended, to those who wait now and later."""

    pid: int
    spec: LaunchSpec | ExecSpec
    started: bool = False
    paused: bool = False
    status: ExitStatus | None = None
    execs: list[Process] = field(default_factory=list)
    pending: list[int] = field(default_factory=list)  # signals that a frozen process does not see
    _waiters: list[asyncio.Future[None]] = field(default_factory=list)

    @property
    def runs(self) -> bool:
        return self.started and self.status is None

    def twin(self) -> Process:
        """The same process on another machine, where nobody waits for it yet."""
        return Process(self.pid, self.spec, self.started, self.paused, self.status)

    def end(self, code: int) -> None:
        if self.status is not None:
            return
        self.status = ExitStatus(code, timestamp())
        self.paused = False
        for other in self.execs:
            other.end(137)
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    def deliver(self, number: int) -> None:
        if number == signal.SIGKILL:
            self.end(137)
        elif self.paused:
            self.pending.append(number)
        elif number in _DEADLY:
            self.end(128 + number)

    async def ended(self) -> ExitStatus:
        if self.status is None:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter
        assert self.status is not None
        return self.status


class FakeStreams:
    """An attachment that says nothing until the process ends."""

    def __init__(self, process: Process, tty: bool) -> None:
        self.tty = tty
        self._process = process

    async def frames(self) -> AsyncIterator[tuple[int, bytes]]:
        await self._process.ended()
        yield 1, b"bye\n"

    async def write(self, data: bytes) -> None:
        """It reads nothing."""

    async def close_stdin(self) -> None:
        """It reads nothing."""

    async def close(self) -> None:
        """There is nothing to let go of."""


@dataclass(frozen=True, slots=True)
class FakeExecSession:
    pid: int
    streams: FakeStreams | None
    process: Process

    @property
    def running(self) -> bool:
        return self.process.runs

    async def wait(self) -> int:
        return (await self.process.ended()).exit_code

    async def resize(self, height: int, width: int) -> None:
        """It has no terminal."""


class FakeLauncher:
    """`processes` are the bundles, by container. A writable layer is a real directory, in the container's own."""

    def __init__(self, calls: Calls, data_root: Path) -> None:
        self.calls = calls
        self.processes: dict[str, Process] = {}
        self._root = data_root / "containers"
        self.runtime = "fake"
        self._pids = itertools.count(1000)

    def running(self) -> dict[str, Process]:
        """Those that execute their command."""
        return {id: process for id, process in self.processes.items() if process.runs}

    # ---- life ----

    @stepped(LaunchError)
    def create(self, spec: LaunchSpec) -> int:
        self._delete(spec.id)
        (self._root / spec.id / "diff").mkdir(parents=True, exist_ok=True)
        process = self.processes[spec.id] = Process(next(self._pids), spec)
        return process.pid

    @stepped(LaunchError)
    def start(self, id: str) -> None:
        process = self._alive(id, LaunchError(f"container {id} ended before it was started"))
        if process.started:
            raise Conflict(f"container {id} is already started")
        process.started = True

    @stepped(LaunchError)
    def kill(self, id: str, number: int) -> None:
        self._alive(id, Conflict(f"container {id} is not running")).deliver(number)

    @stepped(LaunchError)
    def pause(self, id: str) -> None:
        process = self._alive(id, LaunchError("OCI runtime pause failed: container not running"))
        if process.paused or not process.started:
            raise LaunchError("OCI runtime pause failed: container not running")
        process.paused = True

    @stepped(LaunchError)
    def resume(self, id: str) -> None:
        process = self._alive(id, LaunchError("OCI runtime resume failed: container not paused"))
        if not process.paused:
            raise LaunchError("OCI runtime resume failed: container not paused")
        process.paused = False
        while process.pending:
            process.deliver(process.pending.pop(0))

    @stepped(LaunchError)
    def update(self, id: str, host: HostConfig) -> None:
        self._alive(id, LaunchError("OCI runtime update failed: container not running"))

    async def wait(self, id: str) -> ExitStatus:
        await step()
        if id not in self.processes:
            raise NotFound(f"No such container: {id}")
        return await self.processes[id].ended()

    @stepped(LaunchError)
    def recover(self, id: str) -> Running | ExitStatus | None:
        process = self.processes.get(id)
        if process is None:
            return None
        if process.status is not None:
            return process.status
        return Running(process.pid, process.paused) if process.started else None

    @stepped(LaunchError)
    def delete(self, id: str) -> None:
        self._delete(id)

    @stepped(LaunchError)
    def discard(self, id: str) -> None:
        shutil.rmtree(self._root / id, ignore_errors=True)

    @stepped(LaunchError)
    def owned(self) -> set[str]:
        return set(self.processes)

    # ---- streams and more processes ----

    def attach(self, id: str) -> FakeStreams:
        process = self._alive(id, Conflict(f"container {id} is not running"))
        return FakeStreams(process, tty=False)

    def log_path(self, id: str) -> Path:
        return self._root / id / "container.log"

    async def exec(self, id: str, spec: ExecSpec, *, attach: bool = True) -> FakeExecSession:
        await before(self.calls, "Launcher.exec", LaunchError)
        container = self._alive(id, Conflict(f"container {id} is not running"))
        if container.paused or not container.started:
            raise LaunchError("OCI runtime exec failed: container is not running")
        process = Process(next(self._pids), spec, started=True)
        container.execs.append(process)
        await step()
        return FakeExecSession(process.pid, FakeStreams(process, spec.tty) if attach else None, process)

    # ---- inside ----

    def _alive(self, id: str, error: Exception) -> Process:
        process = self.processes.get(id)
        if process is None or process.status is not None:
            raise error
        return process

    def _delete(self, id: str) -> None:
        process = self.processes.pop(id, None)
        if process is not None:
            process.end(137)
