"""Processes started inside running containers by `exec`: created, started once, inspected afterwards."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from netd.errors import Conflict, InvalidParameter, NotFound
from netd.events import EventBus
from netd.launcher import ExecSession, ExecSpec, Launcher
from netd.launcher.streams import Streams
from netd.model import Container, ExecConfig

_KEPT_ENDED = 300.0  # seconds an ended exec can still be inspected, as in Docker
_KEPT_UNSTARTED = 3600.0


@dataclass(slots=True)
class _Exec:
    """One exec: its configuration, then its session, then its exit code."""

    container: Container
    config: ExecConfig
    session: ExecSession | None = None
    exit_code: int | None = None
    waiter: asyncio.Task[None] | None = None


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

    def __init__(self, launcher: Launcher, events: EventBus) -> None:
        self._launcher = launcher
        self._events = events
        self._execs: dict[str, _Exec] = {}

    def create(self, container: Container, config: ExecConfig) -> str:
        if not config.cmd:
            raise InvalidParameter("no exec command specified")
        exec_id = secrets.token_hex(32)
        self._execs[exec_id] = _Exec(container, config)
        asyncio.get_running_loop().call_later(_KEPT_UNSTARTED, self._drop_unstarted, exec_id)
        self._publish("exec_create", exec_id)
        return exec_id

    async def start(self, exec_id: str, *, detach: bool) -> Streams | None:
        """Run it; returns its streams unless detached."""
        found = self._find(exec_id)
        if found.session is not None or found.exit_code is not None:
            raise Conflict(f"exec instance {exec_id} has already been started")
        config = found.config
        spec = ExecSpec(
            args=tuple(config.cmd or ()),
            env=tuple(config.env or ()),
            user=config.user,
            working_dir=config.working_dir,
            tty=config.tty,
            stdin=config.attach_stdin and not detach,
            privileged=config.privileged,
        )
        try:
            found.session = await self._launcher.exec(found.container.id, spec, attach=not detach)
        except Exception as error:
            found.exit_code = getattr(error, "exit_code", 126)
            raise
        self._publish("exec_start", exec_id)
        found.waiter = asyncio.create_task(self._wait(exec_id, found, found.session))
        if detach or found.session.streams is None:
            return None
        return _UntilExit(found.session.streams, found.waiter)

    async def _wait(self, exec_id: str, found: _Exec, session: ExecSession) -> None:
        found.exit_code = await session.wait()
        self._publish("exec_die", exec_id, {"exitCode": str(found.exit_code)})
        asyncio.get_running_loop().call_later(_KEPT_ENDED, self._execs.pop, exec_id, None)

    def _drop_unstarted(self, exec_id: str) -> None:
        found = self._execs.get(exec_id)
        if found is not None and found.session is None:
            del self._execs[exec_id]

    async def resize(self, exec_id: str, height: int, width: int) -> None:
        session = self._find(exec_id).session
        if session is None:
            raise Conflict(f"exec instance {exec_id} is not running")
        await session.resize(height, width)

    def inspect(self, exec_id: str) -> dict[str, Any]:
        """GET /exec/{id}/json."""
        found = self._find(exec_id)
        config = found.config
        command = config.cmd or [""]
        return {
            "ID": exec_id,
            "Running": found.session is not None and found.exit_code is None,
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
            "ContainerID": found.container.id,
            "DetachKeys": "",
            "Pid": found.session.pid if found.session else 0,
        }

    def _find(self, exec_id: str) -> _Exec:
        try:
            return self._execs[exec_id]
        except KeyError:
            raise NotFound(f"No such exec instance: {exec_id}") from None

    def _publish(self, action: str, exec_id: str, extra: dict[str, str] | None = None) -> None:
        found = self._execs[exec_id]
        record = found.container
        if action != "exec_die":
            action = f"{action}: {' '.join(found.config.cmd or ())}"
        attributes = {"image": record.config.image, "name": record.name, "execID": exec_id, **(extra or {})}
        self._events.publish("container", action, record.id, attributes)
