"""Exec sessions: further commands in a running container, each under a conmon of its own."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import dataclass

from netd.core.tasks import Tasks
from netd.launcher.attach import Attachment
from netd.launcher.conmon import Monitored, monitor_ended
from netd.launcher.spec import KILLED


@dataclass(frozen=True, slots=True)
class ExecSession:
    """One command; `streams` is None if nobody asked to see it. `pid` is seen from the host."""

    pid: int
    streams: Attachment | None
    _target: Monitored
    _exit_code: asyncio.Task[int]

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return not self._exit_code.done()

    async def wait(self) -> int:
        """Its exit code; 137 if it was killed together with its conmon."""
        return await asyncio.shield(self._exit_code)

    async def resize(self, height: int, width: int) -> None:
        """Set the size of its terminal, in characters."""
        self._target.resize(height, width)


def follow(pid: int, streams: Attachment | None, target: Monitored, tasks: Tasks) -> ExecSession:
    """The session of a command just started; its directory goes when it ends."""
    return ExecSession(pid, streams, target, tasks.start(_exit_code(target), f"exec {target.directory.name}"))


async def _exit_code(target: Monitored) -> int:
    await monitor_ended(target)
    status = target.exit_status()
    await asyncio.to_thread(shutil.rmtree, target.directory, ignore_errors=True)
    return status.exit_code if status else KILLED
