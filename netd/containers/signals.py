"""Signals to containers: as users write them, and what follows from them for a container."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal as signals

from msgspec.structs import replace

from netd.containers.lifecycle import Lifecycle
from netd.containers.live import LiveContainer, Outcome
from netd.core.errors import Conflict, InvalidParameter, NetdError, NotModified
from netd.launcher import Launcher
from netd.model.containers import State

log = logging.getLogger(__name__)

DEFAULT_SIGNAL = "SIGTERM"
DEFAULT_STOP_SECONDS = 10
KILL_SECONDS = 10.0  # for a killed process to end


class Signals:
    """Stops, kills, pauses."""

    def __init__(self, life: Lifecycle, launcher: Launcher) -> None:
        self._life = life
        self._launcher = launcher

    async def stop(self, live: LiveContainer, signal: str = "", timeout: int | None = None) -> None:
        """Ask the process to end, and kill it after `timeout` seconds (negative: wait for ever)."""
        config = live.record.config
        number = signal_number(signal or config.stop_signal or DEFAULT_SIGNAL)
        seconds = timeout if timeout is not None else config.stop_timeout
        if seconds is None:
            seconds = DEFAULT_STOP_SECONDS
        async with live.changing():  # a start that is under way comes first
            if not live.record.state.running:
                raise NotModified("container already stopped")
            ended = live.ended
            await self._signal(live, number, ends=True)
        try:
            async with asyncio.timeout(None if seconds < 0 else seconds):
                await asyncio.shield(ended)
        except TimeoutError:
            await self.kill_and_wait(live, ended)
        self._life.publish("stop", live.record)

    async def kill(self, live: LiveContainer, signal: str) -> None:
        """Send a signal to a running container's process. One that asks it to end also ends its restarts, and any
        the wait for one."""
        number = signal_number(signal)
        ends = number in (signals.SIGKILL, signal_number(live.record.config.stop_signal or DEFAULT_SIGNAL))
        async with live.changing():
            if not live.record.state.running:
                raise Conflict(f"cannot kill container: {live.record.name}: container {live.record.id} is not running")
            await self._signal(live, number, ends=ends or live.record.state.restarting)

    async def _signal(self, live: LiveContainer, number: int, *, ends: bool) -> None:
        """Send a signal; `ends` says that the process is to end by it and not to be restarted."""
        record = live.record
        if ends:
            await self._life.note(live, replace(record, stopped_by_user=True))
            await self._life.give_up_restart(live)
            if record.state.paused:
                await self._thaw(live)
        if record.state.alive:
            with contextlib.suppress(Conflict):  # it has just ended by itself
                await self._launcher.kill(record.id, number)
        self._life.publish("kill", record, {"signal": str(number)})

    async def _thaw(self, live: LiveContainer) -> None:
        """Let a paused process notice its signal."""
        try:
            await self._launcher.resume(live.record.id)
        except NetdError as error:  # it has just ended, or will be killed
            log.warning("container %s cannot be unpaused: %s", live.record.name, error)
            return
        await self._life.note(live, replace(live.record, state=_resumed(live.record.state)))
        self._life.publish("unpause", live.record)

    async def kill_and_wait(self, live: LiveContainer, ended: asyncio.Future[Outcome]) -> None:
        """Kill the process whose end is `ended`; `NetdError` if it does not end all the same."""
        async with live.lock:
            if not ended.done():
                with contextlib.suppress(Conflict):
                    await self._launcher.kill(live.record.id, signals.SIGKILL)
        try:
            async with asyncio.timeout(KILL_SECONDS):
                await asyncio.shield(ended)
        except TimeoutError:
            raise NetdError(
                f"cannot stop container: {live.record.name}: tried to kill container, but did not receive an exit event"
            ) from None

    async def pause(self, live: LiveContainer) -> None:
        """Freeze the processes of a running container."""
        async with live.changing():
            live.must_run()
            if live.record.state.paused:
                raise Conflict(f"Container {live.record.id} is already paused")
            state = replace(live.record.state, status="paused", paused=True)
            async with self._life.saved(live, replace(live.record, state=state)):
                await self._launcher.pause(live.record.id)
            self._life.publish("pause", live.record)

    async def unpause(self, live: LiveContainer) -> None:
        """Let them run again."""
        async with live.changing():
            if not live.record.state.paused:
                raise Conflict(f"Container {live.record.id} is not paused")
            async with self._life.saved(live, replace(live.record, state=_resumed(live.record.state))):
                await self._launcher.resume(live.record.id)
            self._life.publish("unpause", live.record)


def _resumed(state: State) -> State:
    return replace(state, status="running", paused=False)


def signal_number(text: str) -> int:
    """`SIGTERM`, `term`, `15` or `RTMIN+3` to its number."""
    name = text.strip().upper()
    if name.isdecimal() and 0 < int(name) < signals.NSIG:
        return int(name)
    base, _, offset = name.removeprefix("SIG").partition("+")
    found = getattr(signals, f"SIG{base}", None)
    if isinstance(found, signals.Signals) and (not offset or offset.isdecimal()):
        return int(found) + int(offset or 0)
    raise InvalidParameter(f"invalid signal: {text}")
