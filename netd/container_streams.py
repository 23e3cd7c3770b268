"""What flows in and out of containers: attach, logs, exec, terminal size, the process list."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from netd.containers import ContainerManager
from netd.errors import Conflict
from netd.events import EventBus
from netd.execs import Execs
from netd.launcher import Launcher
from netd.launcher.streams import Streams
from netd.model import ExecConfig
from netd.pending import PendingStreams


class ContainerStreams:
    """The streams of this host's containers."""

    def __init__(self, containers: ContainerManager, launcher: Launcher, events: EventBus) -> None:
        self._containers = containers
        self._launcher = launcher
        self._execs = Execs(launcher, events)

    async def attach(self, ref: str, *, stdin: bool, stdout: bool, stderr: bool, logs: bool, stream: bool) -> Streams:
        """The container's streams; before a start they begin to flow with it."""
        live = self._containers.find(ref)
        if live.record.state.paused:
            raise Conflict(f"container {ref} is paused, unpause the container before attach")
        streams = PendingStreams(live.record.config.tty)
        if not live.record.state.running:
            live.pending.append(streams)
            return streams
        try:
            return self._launcher.attach(live.record.id)
        except Conflict:  # it ends at this moment: nothing will come any more
            streams.cancel()
            return streams

    async def logs(
        self,
        ref: str,
        *,
        follow: bool,
        stdout: bool,
        stderr: bool,
        since: float,
        until: float,
        tail: int | None,
        timestamps: bool,
    ) -> tuple[bool, AsyncIterator[tuple[int, bytes]]]:
        """Whether the container has a terminal, and its output so far or as it comes."""
        live = self._containers.find(ref)
        frames = self._launcher.logs(
            live.record.id,
            follow=follow and live.record.state.running,
            stdout=stdout,
            stderr=stderr,
            since=since,
            until=until,
            tail=tail,
            timestamps=timestamps,
        )
        return live.record.config.tty, frames

    async def resize(self, ref: str, height: int, width: int) -> None:
        live = self._containers.find(ref)
        live.must_run()
        await self._launcher.resize(live.record.id, height, width)

    async def top(self, ref: str, ps_args: str) -> dict[str, Any]:
        live = self._containers.find(ref)
        live.must_run()
        return await self._launcher.top(live.record.id, ps_args)

    async def exec_create(self, ref: str, config: ExecConfig) -> str:
        """Prepare a process inside a running container; its id."""
        live = self._containers.find(ref)
        live.must_run()
        if live.record.state.paused:
            raise Conflict(f"container {ref} is paused, unpause the container before exec")
        return self._execs.create(live.record, config)

    async def exec_start(self, exec_id: str, *, detach: bool, tty: bool) -> Streams | None:
        return await self._execs.start(exec_id, detach=detach)

    def exec_inspect(self, exec_id: str) -> dict[str, Any]:
        return self._execs.inspect(exec_id)

    async def exec_resize(self, exec_id: str, height: int, width: int) -> None:
        await self._execs.resize(exec_id, height, width)
