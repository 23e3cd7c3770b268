"""Background work: started here and nowhere else, so that nothing runs that nobody waits for, or fails unheard."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")
U = TypeVar("U")

PAUSE = 1.0  # seconds until a job that must not end, or that has failed, is begun again
LONGEST_PAUSE = 30.0

Job = Callable[[], Coroutine[Any, Any, None]]


class Tasks:
    """The background jobs of one owner, who ends them with `close`. A job that fails says so in the log."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._running)

    def start(self, job: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Run a job beside everything else; whoever awaits the task sees its failure too."""
        task = asyncio.get_running_loop().create_task(job, name=name)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    def keep_running(self, job: Job, name: str, pause: float = PAUSE) -> asyncio.Task[None]:
        """Run a job that must not end: when it does, or fails, it is begun again after `pause` seconds."""
        return self.start(_for_ever(job, name, pause), name)

    def until_done(
        self, job: Job, name: str, pause: float = PAUSE, longest: float = LONGEST_PAUSE
    ) -> asyncio.Task[None]:
        """Run a job that must succeed: when it fails it is begun again after `pause` seconds, which double each time
        until they are `longest`. A reason is told when it is not the one before."""
        return self.start(_until_done(job, name, pause, longest), name)

    async def now_or_later(self, job: Job, name: str, pause: float = PAUSE, longest: float = LONGEST_PAUSE) -> None:
        """The same for who waits for the first try only."""
        try:
            await job()
        except Exception as error:
            said = _told(error, name)
            self.start(_until_done(job, name, pause, longest, said), name)

    async def settled(self) -> None:
        """Wait for the jobs that run now, however they end."""
        if self._running:
            await asyncio.wait(set(self._running))

    def cancel(self) -> None:
        """Cancel all jobs that run now."""
        for task in self._running:
            task.cancel()

    async def close(self) -> None:
        """Cancel all jobs and wait until they have ended."""
        while self._running:
            self.cancel()
            # a library may swallow a cancellation: ask again
            await asyncio.wait(set(self._running), timeout=1)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s failed: %s", task.get_name(), error, exc_info=error)


async def _for_ever(job: Job, name: str, pause: float) -> None:
    while True:
        try:
            await job()
            log.warning("%s ended, it is begun again", name)
        except Exception:
            log.exception("%s failed, it is begun again", name)
        await asyncio.sleep(pause)


async def _until_done(job: Job, name: str, pause: float, longest: float, said: str = "") -> None:
    while True:
        if said:
            await asyncio.sleep(pause)
            pause = min(2 * pause, longest)
        try:
            return await job()
        except Exception as error:
            said = _told(error, name, said)


def _told(error: Exception, name: str, said: str = "") -> str:
    """Why a job failed, told unless it was `said` before."""
    why = str(error) or repr(error)
    if why != said:
        log.error("%s failed, it is tried again: %s", name, why, exc_info=error)
    return why


async def both(first: Awaitable[T], second: Awaitable[U]) -> tuple[T, U]:
    """Let both end, then raise the first failure: neither is cut off half-way, and neither goes on alone."""
    one, other = await asyncio.gather(first, second, return_exceptions=True)
    for outcome in (one, other):
        if isinstance(outcome, BaseException):
            raise outcome
    return one, other  # type: ignore[return-value]
