"""Processes started inside running containers by `exec`: created, started once, inspected afterwards."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from netd.containers.manager import ContainerManager
from netd.core.errors import Conflict, InvalidParameter, NetdError, NotFound
from netd.core.events import EventBus
from netd.core.tasks import Tasks
from netd.launcher import ExecSession, ExecSpec, Launcher
from netd.launcher.streams import PendingStreams, Streams, Told
from netd.model.containers import Container, ExecConfig

KEPT_ENDED = 300.0  # seconds an ended exec can still be inspected, as in Docker
KEPT_UNSTARTED = 3600.0
_CANNOT_START = 126  # the exit code if nothing else is known, as in Docker


@dataclass(slots=True, eq=False)
class Exec:
    """One exec of one run of a container: its configuration, then its session, then its exit code."""

    id: str
    container: str  # its id
    run: str  # when the container was started: with its end, what was not started is gone
    config: ExecConfig
    started: bool = False
    session: ExecSession | None = None
    exit_code: int | None = None
    expiry: asyncio.TimerHandle | None = None

    @property
    def running(self) -> bool:
        return self.started and self.exit_code is None


class _UntilExit:
    """Streams whose output ends only when the exit code is known: clients ask for it right after."""

    def __init__(self, streams: Streams, ended: asyncio.Task[None]) -> None:
        self._streams = streams
        self._ended = ended
        self.write = streams.write
        self.close_stdin = streams.close_stdin
        self.close = streams.close

    @property
    def tty(self) -> bool:
        return self._streams.tty

    async def frames(self) -> AsyncIterator[tuple[int, bytes]]:
        async for frame in self._streams.frames():
            yield frame
        await asyncio.shield(self._ended)


class Execs:
    """All exec instances of this daemon; they are not kept over a restart."""

    def __init__(self, containers: ContainerManager, launcher: Launcher, events: EventBus) -> None:
        self._containers = containers
        self._launcher = launcher
        self._events = events
        self._execs: dict[str, Exec] = {}
        self._tasks = Tasks()

    def __len__(self) -> int:
        return len(self._execs)

    async def close(self) -> None:
        """Follow them no longer; their processes go on."""
        for each in list(self._execs.values()):
            self._drop(each)
        await self._tasks.close()

    def create(self, ref: str, config: ExecConfig) -> str:
        """Prepare a process inside a running container; its id."""
        record = self._running(ref)
        if not config.cmd:
            raise InvalidParameter("no exec command specified")
        for each in list(self._execs.values()):
            if self._is_over(each):
                self._drop(each)
        fresh = Exec(secrets.token_hex(32), record.id, record.state.started_at, config)
        self._execs[fresh.id] = fresh
        self._expire(fresh, KEPT_UNSTARTED)
        self._publish("exec_create", fresh)
        return fresh.id

    async def start(self, exec_id: str) -> None:
        """Run it unseen. It is started whoever waits for that."""
        found = self._claim(exec_id)
        error = await asyncio.shield(self._tasks.start(self._run(found), f"exec {exec_id[:12]}"))
        if error is not None:
            raise error

    def attach(self, exec_id: str) -> Streams:
        """Run it in the background; its streams, which begin to flow with it. What keeps it from starting is told
        on its output, as the answer's head has gone out by then, and by its exit code."""
        found = self._claim(exec_id)
        pending = PendingStreams(found.config.tty)
        self._tasks.start(self._connect(found, pending), f"exec {exec_id[:12]}")
        return pending

    async def resize(self, exec_id: str, height: int, width: int) -> None:
        """Set the size of its terminal, in characters."""
        session = self.find(exec_id).session
        if session is None:
            raise Conflict(f"exec instance {exec_id} is not running")
        await session.resize(height, width)

    def inspect(self, exec_id: str) -> dict[str, Any]:
        """GET /exec/{id}/json."""
        found = self.find(exec_id)
        config = found.config
        command = config.cmd or [""]
        return {
            "ID": exec_id,
            "Running": found.running,
            "ExitCode": found.exit_code,
            "ProcessConfig": {
                "tty": config.tty,
                "entrypoint": command[0],
                "arguments": command[1:],
                "privileged": config.privileged,
                "user": config.user,
            },
            "OpenStdin": config.attach_stdin,
            "OpenStderr": config.attach_stderr,
            "OpenStdout": config.attach_stdout,
            "CanRemove": found.exit_code is not None,
            "ContainerID": found.container,
            "DetachKeys": "",
            "Pid": found.session.pid if found.session else 0,
        }

    def find(self, exec_id: str) -> Exec:
        """`NotFound` also for one whose container has gone, or has ended before it was started."""
        found = self._execs.get(exec_id)
        if found is not None and self._is_over(found):
            self._drop(found)
            found = None
        if found is None:
            raise NotFound(f"No such exec instance: {exec_id}")
        return found

    # ---- inside: starting ----

    def _claim(self, exec_id: str) -> Exec:
        """Mark it as started, which only one of several can."""
        found = self.find(exec_id)
        if found.started:
            state = "is already running" if found.running else "has already run"
            raise Conflict(f"Error: Exec command {exec_id} {state}")
        self._running(found.container)
        found.started = True
        self._publish("exec_start", found)
        return found

    async def _run(self, found: Exec) -> NetdError | None:
        """What kept it from starting: not an error of ours, so not one of the background either."""
        try:
            await self._launch(found, attach=False)
        except NetdError as error:
            return error
        return None

    async def _connect(self, found: Exec, pending: PendingStreams) -> None:
        streams: Streams | None
        try:
            streams = await self._launch(found, attach=True)
        except NetdError as error:
            streams = Told(str(error), tty=pending.tty)
        except BaseException:
            pending.cancel()
            raise
        if streams is None:
            pending.cancel()
        elif pending.cancelled:  # the client went while its process was being started
            await streams.close()
        else:
            pending.connect(streams)

    async def _launch(self, found: Exec, *, attach: bool) -> Streams | None:
        config = found.config
        spec = ExecSpec(
            args=tuple(config.cmd or ()),
            env=tuple(config.env or ()),
            user=config.user,
            working_dir=config.working_dir,
            tty=config.tty,
            stdin=config.attach_stdin and attach,
            privileged=config.privileged,
        )
        try:
            found.session = await self._launcher.exec(found.container, spec, attach=attach)
        except BaseException as error:
            self._ended(found, getattr(error, "exit_code", _CANNOT_START))
            raise
        ended = self._tasks.start(self._follow(found, found.session), f"exec {found.id[:12]}")
        return _UntilExit(found.session.streams, ended) if found.session.streams is not None else None

    async def _follow(self, found: Exec, session: ExecSession) -> None:
        code = await session.wait()
        self._ended(found, code)
        self._publish("exec_die", found, {"exitCode": str(code)})

    def _ended(self, found: Exec, code: int) -> None:
        found.exit_code = code
        self._expire(found, KEPT_ENDED)

    # ---- inside: containers and time ----

    def _running(self, ref: str) -> Container:
        """The container as it is now; `Conflict` unless a process can be started in it."""
        live = self._containers.find(ref)
        live.must_run()
        if live.record.state.paused:
            raise Conflict(f"container {ref} is paused, unpause the container before exec")
        return live.record

    def _is_over(self, each: Exec) -> bool:
        live = self._containers.live.get(each.container)
        if live is None:
            return True
        state = live.record.state
        return not each.started and not (state.running and state.started_at == each.run)

    def _expire(self, each: Exec, seconds: float) -> None:
        """Drop it after so many seconds; one that runs then is kept."""
        if each.expiry is not None:
            each.expiry.cancel()
        if self._execs.get(each.id) is each:
            each.expiry = asyncio.get_running_loop().call_later(seconds, self._expired, each)

    def _expired(self, each: Exec) -> None:
        if not each.running:
            self._drop(each)

    def _drop(self, each: Exec) -> None:
        self._execs.pop(each.id, None)
        if each.expiry is not None:
            each.expiry.cancel()

    def _publish(self, action: str, each: Exec, extra: dict[str, str] | None = None) -> None:
        live = self._containers.live.get(each.container)
        if live is None:
            return
        if action != "exec_die":
            action = f"{action}: {' '.join(each.config.cmd or ())}"
        record = live.record
        attributes = {"image": record.config.image, "name": record.name, "execID": each.id, **(extra or {})}
        self._events.publish("container", action, record.id, attributes)
