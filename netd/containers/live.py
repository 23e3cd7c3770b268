"""The containers of this host as they are in memory: found by reference, named uniquely, changed one at a time."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from netd.core.errors import Conflict, NotFound
from netd.core.identity import by_reference
from netd.launcher.streams import PendingStreams
from netd.model.containers import Container


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a container ended, as `wait` tells it."""

    exit_code: int
    error: str = ""


def _future() -> asyncio.Future[Outcome]:
    return asyncio.get_running_loop().create_future()


@dataclass(slots=True, eq=False)
class LiveContainer:
    """A container with what is only in memory: who waits for it and what is under way."""

    record: Container
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    ended: asyncio.Future[Outcome] = field(default_factory=_future)  # the next end, or the removal
    gone: bool = False  # there is no record of it any more
    removed: asyncio.Event = field(default_factory=asyncio.Event)  # nor anything else
    restarter: asyncio.Task[None] | None = None
    pending: list[PendingStreams] = field(default_factory=list)
    restarting: bool = False  # by `restart`: its end is not the end
    storing: bool = False  # again and again, until the store has the record
    removing: bool = False  # by `rm -f`: what is killed is not started again
    leftovers: bool = False  # of its process, which could not be cleared yet
    delay: float = 0  # seconds, of the last restart by policy

    @asynccontextmanager
    async def changing(self) -> AsyncIterator[None]:
        """Hold the container, for one change at a time. Raises `NotFound` if it has gone while we waited."""
        async with self.lock:
            if self.gone:
                raise NotFound(f"No such container: {self.record.id}")
            yield

    def tell_end(self) -> None:
        """Wake everyone who waits for the end."""
        told, self.ended = self.ended, _future()
        told.set_result(Outcome(self.record.state.exit_code))

    def must_run(self, prefix: str = "") -> None:
        """`Conflict` unless the container has a process."""
        state = self.record.state
        if state.restarting:
            raise Conflict(f"Container {self.record.id} is restarting, wait until the container is running")
        if not state.running:
            raise Conflict(f"{prefix}container {self.record.id} is not running")

    def drop_pending(self) -> None:
        """Whoever attached to a start that does not come sees the end of the streams."""
        for streams in self.pending:
            streams.cancel()
        self.pending.clear()


class Containers:
    """All of them, by id."""

    def __init__(self) -> None:
        self.live: dict[str, LiveContainer] = {}
        self._names: set[str] = set()  # also of containers that are being made or renamed

    def find(self, ref: str) -> LiveContainer:
        """By full id, name (with or without its slash) or unique id prefix."""
        return by_reference(ref.removeprefix("/"), self.live, lambda c: c.record.name, "container")

    def record(self, ref: str) -> Container:
        """The same, as it is stored."""
        return self.find(ref).record

    def add(self, record: Container) -> LiveContainer:
        """Take up a container that is stored."""
        live = self.live[record.id] = LiveContainer(record)
        self._names.add(record.name)
        return live

    def drop(self, live: LiveContainer) -> None:
        """Forget a container that has been removed; its name is free."""
        del self.live[live.record.id]
        self.free_name(live.record.name)
        live.gone = True

    def take_name(self, name: str, invent: Callable[[], str]) -> str:
        """Take a name for a container, an invented one if it is empty. Raises `Conflict` if it is another's."""
        if name in self._names:
            holder = next((c.record.id for c in self.live.values() if c.record.name == name), "")
            raise Conflict(
                f'Conflict. The container name "/{name}" is already in use by container "{holder}". You have '
                "to remove (or rename) that container to be able to reuse that name."
            )
        while not name:
            candidate = invent()
            name = candidate if candidate not in self._names else f"{candidate}_{secrets.token_hex(2)}"
        self._names.add(name)
        return name

    def free_name(self, name: str) -> None:
        """Let others have a name."""
        self._names.discard(name)
