"""What flows in and out of containers: attach, logs, terminal size, the process list; their execs."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from functools import partial
from typing import Any

from netd.containers.execs import Execs
from netd.containers.manager import ContainerManager
from netd.core.errors import Conflict
from netd.core.events import EventBus
from netd.launcher import Launcher
from netd.launcher.streams import PendingStreams, Streams


class ContainerStreams:
    """The streams of this host's containers."""

    def __init__(self, containers: ContainerManager, launcher: Launcher, events: EventBus) -> None:
        self._containers = containers
        self._launcher = launcher
        self.execs = Execs(containers, launcher, events)

    async def close(self) -> None:
        """Follow no process any longer; they go on."""
        await self.execs.close()

    async def attach(self, ref: str, *, stdin: bool, stdout: bool, stderr: bool, logs: bool, stream: bool) -> Streams:
        """The container's streams; before a start they begin to flow with it."""
        live = self._containers.find(ref)
        if live.record.state.paused:
            raise Conflict(f"container {ref} is paused, unpause the container before attach")
        if live.record.state.restarting:
            raise Conflict(f"container {ref} is restarting, wait until the container is running")
        try:
            return self._launcher.attach(live.record.id)  # also when it is just being started
        except Conflict:
            streams = PendingStreams(live.record.config.tty, partial(_forget, live.pending))
        if live.record.state.running:  # it ends at this moment: nothing will come any more
            streams.cancel()
        else:
            live.pending.append(streams)
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
    ) -> tuple[bool, AsyncGenerator[tuple[int, bytes]]]:
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


def _forget(pending: list[PendingStreams], streams: PendingStreams) -> None:
    """The client has gone before the start."""
    if streams in pending:
        pending.remove(streams)
