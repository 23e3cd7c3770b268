"""Attaching to a container that runs, that does not run yet, that is just being started and that just ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any, cast

import pytest
from msgspec.structs import replace

from netd.containers.streams import ContainerStreams
from netd.core.errors import Conflict
from netd.core.events import EventBus
from netd.launcher.streams import STDOUT, PendingStreams
from tests.containers.test_execs import WEB, Live

IDLE = replace(WEB, state=replace(WEB.state, status="created", running=False))


class Output:
    """Streams that say hello."""

    tty = False

    async def frames(self) -> AsyncIterator[tuple[int, bytes]]:
        yield STDOUT, b"hello"

    async def write(self, data: bytes) -> None:
        return None

    async def close_stdin(self) -> None:
        return None

    async def close(self) -> None:
        return None


class Waiting(Live):
    """A container with those who attached before its start."""

    def __init__(self, record: Any) -> None:
        super().__init__(record)
        self.pending: list[PendingStreams] = []


class World:
    """One container, and a launcher that knows whether it has a process."""

    def __init__(self, record: Any, *, process: bool) -> None:
        self.web = Waiting(record)
        self.process = process
        self.streams = ContainerStreams(cast(Any, self), cast(Any, self), EventBus())

    def find(self, ref: str) -> Waiting:
        return self.web

    def attach(self, id: str) -> Output:
        if not self.process:
            raise Conflict(f"container {id} is not running")
        return Output()

    async def attached(self) -> Any:
        return await self.streams.attach("web", stdin=True, stdout=True, stderr=True, logs=False, stream=True)


async def read(streams: Any) -> bytes:
    return b"".join([data async for _, data in streams.frames()])


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 10))


def test_one_that_runs_is_heard_at_once() -> None:
    async def scenario() -> None:
        here = World(WEB, process=True)
        assert await read(await here.attached()) == b"hello"
        here.web.become(status="paused", paused=True)
        with pytest.raises(Conflict, match="is paused, unpause the container before attach"):
            await here.attached()
        here.web.become(status="restarting", paused=False, restarting=True)
        with pytest.raises(Conflict, match="is restarting, wait until the container is running"):
            await here.attached()

    run(scenario())


def test_one_that_does_not_run_is_heard_from_its_start_on() -> None:
    async def scenario() -> None:
        here = World(IDLE, process=False)
        reading = asyncio.create_task(read(await here.attached()))
        await asyncio.sleep(0)
        for streams in here.web.pending:
            streams.connect(Output())
        assert await reading == b"hello"

    run(scenario())


def test_one_that_is_just_being_started_is_heard_although_it_does_not_run_yet() -> None:
    async def scenario() -> None:
        here = World(IDLE, process=True)
        assert await read(await here.attached()) == b"hello"
        assert not here.web.pending

    run(scenario())


def test_one_that_has_just_ended_says_nothing_more() -> None:
    async def scenario() -> None:
        here = World(WEB, process=False)
        assert await read(await here.attached()) == b""
        assert not here.web.pending

    run(scenario())


def test_a_client_that_goes_before_the_start_is_forgotten() -> None:
    async def scenario() -> None:
        here = World(IDLE, process=False)
        first, second = await here.attached(), await here.attached()
        await first.close()
        await first.close()
        assert here.web.pending == [second]
        second.connect(Output())
        here.web.pending.clear()
        await second.close()

    run(scenario())
