"""Execs when two calls meet, when their container ends, and how long they are kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from msgspec.structs import replace

from netd.containers import execs as module
from netd.containers.execs import Execs
from netd.core.errors import Conflict, NotFound
from netd.core.events import EventBus
from netd.core.filters import Filters
from netd.launcher import ExecSpec, LaunchError
from netd.launcher.streams import STDOUT
from netd.model.containers import Container, ContainerConfig, ExecConfig, HostConfig, State

WEB = Container(
    id="c" * 64,
    name="web",
    created="2026-01-02T03:04:05Z",
    image_id="sha256:" + "1" * 64,
    config=ContainerConfig(image="box"),
    host_config=HostConfig(),
    state=State(status="running", running=True, started_at="2026-01-02T03:04:05Z"),
)
LS = ExecConfig(cmd=["ls", "-l"], attach_stdout=True)


@dataclass
class Live:
    record: Container

    def must_run(self) -> None:
        if not self.record.state.running:
            raise Conflict(f"container {self.record.id} is not running")

    def become(self, **state: Any) -> None:
        self.record = replace(self.record, state=replace(self.record.state, **state))


class Containers:
    """One container that runs."""

    def __init__(self) -> None:
        self.live = {WEB.id: Live(WEB)}

    def find(self, ref: str) -> Live:
        for live in self.live.values():
            if ref in (live.record.id, live.record.name):
                return live
        raise NotFound(f"No such container: {ref}")


class Session:
    """A process that says hello and ends when told to."""

    def __init__(self, seen: bool) -> None:
        self.pid = 7
        self.streams = self if seen else None
        self.tty = False
        self.exit_code: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.closed = False

    async def wait(self) -> int:
        return await asyncio.shield(self.exit_code)

    async def frames(self) -> AsyncIterator[tuple[int, bytes]]:
        yield STDOUT, b"hello"

    async def write(self, data: bytes) -> None:
        return None

    async def close_stdin(self) -> None:
        return None

    async def close(self) -> None:
        self.closed = True


@dataclass
class Launcher:
    """Starts a process in a moment, when it may."""

    sessions: list[Session] = field(default_factory=list)
    error: Exception | None = None
    may_start: asyncio.Event = field(default_factory=asyncio.Event)

    async def exec(self, id: str, spec: ExecSpec, *, attach: bool) -> Session:
        await self.may_start.wait()
        if self.error is not None:
            raise self.error
        self.sessions.append(Session(attach))
        return self.sessions[-1]


class World:
    def __init__(self) -> None:
        self.containers = Containers()
        self.launcher = Launcher()
        self.launcher.may_start.set()
        self.events = EventBus()
        self.execs = Execs(cast(Any, self.containers), cast(Any, self.launcher), self.events)

    @property
    def web(self) -> Live:
        return self.containers.live[WEB.id]

    def told(self) -> list[str]:
        """The events so far."""
        with self.events.subscribe(Filters(), 0, None) as events:
            return [f"{event['Action']} of {event['Actor']['Attributes']['name']}" for event in events._backlog]


async def settle() -> None:
    """Let everything go on that can."""
    for _ in range(20):
        await asyncio.sleep(0)


async def read(streams: Any) -> bytes:
    return b"".join([data async for _, data in streams.frames()])


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 10))


def test_of_two_starts_at_once_one_starts() -> None:
    async def scenario() -> None:
        here = World()
        exec_id = here.execs.create("web", LS)
        outcomes = await asyncio.gather(here.execs.start(exec_id), here.execs.start(exec_id), return_exceptions=True)
        assert outcomes[0] is None
        assert str(outcomes[1]) == f"Error: Exec command {exec_id} is already running"
        with pytest.raises(Conflict, match="is already running"):
            here.execs.attach(exec_id)
        assert len(here.launcher.sessions) == 1
        here.launcher.sessions[0].exit_code.set_result(0)
        await settle()
        with pytest.raises(Conflict, match=f"^Error: Exec command {exec_id} has already run$"):
            await here.execs.start(exec_id)
        assert here.told() == ["exec_create: ls -l of web", "exec_start: ls -l of web", "exec_die of web"]
        await here.execs.close()

    run(scenario())


def test_the_output_ends_when_the_exit_code_is_known() -> None:
    async def scenario() -> None:
        here = World()
        exec_id = here.execs.create("web", LS)
        reading = asyncio.create_task(read(here.execs.attach(exec_id)))
        await settle()
        assert not reading.done()
        assert here.execs.inspect(exec_id)["Running"]
        here.launcher.sessions[0].exit_code.set_result(4)
        assert await reading == b"hello"
        found = here.execs.inspect(exec_id)
        assert (found["Running"], found["ExitCode"], found["Pid"]) == (False, 4, 7)
        await here.execs.close()

    run(scenario())


def test_one_that_cannot_start_says_why_and_has_an_exit_code() -> None:
    async def scenario() -> None:
        here = World()
        here.launcher.error = LaunchError("no such file", 127)
        seen, unseen, odd = (here.execs.create("web", LS) for _ in range(3))
        assert await read(here.execs.attach(seen)) == b"no such file\r\n"
        with pytest.raises(LaunchError, match="no such file"):
            await here.execs.start(unseen)
        here.launcher.error = Conflict("container is not running")
        with pytest.raises(Conflict):
            await here.execs.start(odd)
        for exec_id, code in ((seen, 127), (unseen, 127), (odd, 126)):
            found = here.execs.inspect(exec_id)
            assert (found["Running"], found["ExitCode"]) == (False, code)
            with pytest.raises(Conflict, match="has already run"):
                await here.execs.start(exec_id)
        await here.execs.close()

    run(scenario())


def test_a_process_is_let_go_of_when_its_client_went_before_it_started() -> None:
    async def scenario() -> None:
        here = World()
        here.launcher.may_start.clear()
        streams = here.execs.attach(here.execs.create("web", LS))
        await settle()
        await streams.close()
        here.launcher.may_start.set()
        await settle()
        assert here.launcher.sessions[0].closed
        await here.execs.close()

    run(scenario())


def test_it_is_started_even_if_its_client_does_not_wait_for_that() -> None:
    async def scenario() -> None:
        here = World()
        here.launcher.may_start.clear()
        exec_id = here.execs.create("web", LS)
        starting = asyncio.create_task(here.execs.start(exec_id))
        await settle()
        starting.cancel()
        await settle()
        here.launcher.may_start.set()
        await settle()
        assert here.execs.inspect(exec_id)["Pid"] == 7
        await here.execs.close()

    run(scenario())


def test_a_container_is_asked_for_its_state_and_name_when_it_matters() -> None:
    async def scenario() -> None:
        here = World()
        exec_id = here.execs.create("web", LS)
        here.web.become(status="paused", paused=True)
        for call in (lambda: here.execs.create("web", LS), lambda: here.execs.attach(exec_id)):
            with pytest.raises(Conflict, match="is paused, unpause the container before exec"):
                call()
        here.web.become(status="running", paused=False)
        here.web.record = replace(here.web.record, name="shop")
        await here.execs.start(exec_id)
        assert here.told()[-1] == "exec_start: ls -l of shop"
        await here.execs.close()

    run(scenario())


def test_what_was_not_started_goes_with_the_containers_run() -> None:
    async def scenario() -> None:
        here = World()
        unstarted, ended = here.execs.create("web", LS), here.execs.create("web", LS)
        await here.execs.start(ended)
        here.launcher.sessions[0].exit_code.set_result(0)
        await settle()
        here.web.become(status="exited", running=False)
        with pytest.raises(NotFound, match=f"No such exec instance: {unstarted}"):
            await here.execs.start(unstarted)
        with pytest.raises(Conflict, match="is not running"):
            here.execs.create("web", LS)
        assert here.execs.inspect(ended)["ExitCode"] == 0
        here.web.become(status="running", running=True, started_at="2026-01-02T04:00:00Z")
        with pytest.raises(NotFound):
            here.execs.inspect(unstarted)
        here.containers.live.clear()
        with pytest.raises(NotFound):
            here.execs.inspect(ended)
        assert len(here.execs) == 0
        await here.execs.close()

    run(scenario())


def test_nobody_has_to_ask_for_those_of_containers_that_have_gone() -> None:
    async def scenario() -> None:
        here = World()
        for number in range(10):
            here.web.become(started_at=f"2026-01-02T03:04:{number:02}Z")
            here.execs.create("web", LS)
        assert len(here.execs) == 1
        await here.execs.close()

    run(scenario())


def test_they_are_dropped_after_their_time_but_not_while_they_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT_UNSTARTED", 0.0)
    monkeypatch.setattr(module, "KEPT_ENDED", 0.0)

    async def scenario() -> None:
        here = World()
        unstarted, started = here.execs.create("web", LS), here.execs.create("web", LS)
        await here.execs.start(started)
        await asyncio.sleep(0.01)
        with pytest.raises(NotFound):
            here.execs.inspect(unstarted)
        assert here.execs.inspect(started)["Running"]
        here.launcher.sessions[0].exit_code.set_result(0)
        await asyncio.sleep(0.01)
        assert len(here.execs) == 0
        await here.execs.close()

    run(scenario())


def test_closing_leaves_nothing_running() -> None:
    async def scenario() -> None:
        here = World()
        before = asyncio.all_tasks()
        here.execs.create("web", LS)
        await here.execs.start(here.execs.create("web", LS))
        assert asyncio.all_tasks() > before
        await here.execs.close()
        assert len(here.execs) == 0
        assert asyncio.all_tasks() == before

    run(scenario())
