"""Containers in memory: each name is one's, one change at a time, an end wakes whoever waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from netd.containers.live import Containers, LiveContainer
from netd.core.errors import Conflict, InvalidParameter, NotFound
from netd.launcher.streams import PendingStreams
from netd.model.containers import Container, ContainerConfig, HostConfig, State
from tests.fakes.loop import Loop


@pytest.fixture(autouse=True)
def loop() -> Iterator[Loop]:
    with Loop() as made:
        yield made


def container(name: str = "web", id: str = "a1" * 32, state: State | None = None) -> Container:
    return Container(
        id=id,
        name=name,
        created="",
        image_id="",
        config=ContainerConfig(),
        host_config=HostConfig(),
        state=state or State(),
    )


def no_name() -> str:
    raise AssertionError("a name is invented although one was given")


# ---- names ----------------------------------------------------------------------------------------------


def test_a_name_is_refused_with_the_id_of_its_holder() -> None:
    containers = Containers()
    containers.add(container())
    with pytest.raises(Conflict) as refused:
        containers.take_name("web", no_name)
    assert str(refused.value) == (
        f'Conflict. The container name "/web" is already in use by container "{"a1" * 32}". You have to remove (or '
        "rename) that container to be able to reuse that name."
    )


def test_a_name_is_taken_before_there_is_a_container_of_it_and_until_it_is_freed() -> None:
    containers = Containers()
    assert containers.take_name("web", no_name) == "web"
    with pytest.raises(Conflict, match='in use by container ""'):
        containers.take_name("web", no_name)
    containers.free_name("web")
    assert containers.take_name("web", no_name) == "web"


def test_whoever_gives_no_name_gets_an_invented_one_that_is_nobody_elses() -> None:
    containers = Containers()
    first = containers.take_name("", lambda: "calm_otter")
    second = containers.take_name("", lambda: "calm_otter")
    assert first == "calm_otter"
    assert second.startswith("calm_otter_")
    for name in (first, second):
        with pytest.raises(Conflict):
            containers.take_name(name, no_name)


def test_a_container_is_found_by_whatever_means_one() -> None:
    containers = Containers()
    one, other = containers.add(container("web", "a1" * 32)), containers.add(container("db", "a2" * 32))
    assert [containers.find(ref) for ref in ("a1" * 32, "web", "/web", "a1a")] == [one] * 4
    assert containers.record("db") is other.record
    with pytest.raises(InvalidParameter, match="ambiguous"):
        containers.find("a")
    with pytest.raises(NotFound, match="No such container: shop"):
        containers.find("/shop")


def test_a_container_that_is_dropped_is_not_found_and_its_name_is_free() -> None:
    containers = Containers()
    containers.drop(containers.add(container()))
    with pytest.raises(NotFound):
        containers.find("web")
    assert containers.take_name("web", no_name) == "web"


# ---- changes --------------------------------------------------------------------------------------------


def test_who_waits_for_a_container_that_goes_meanwhile_is_told_that_there_is_none(loop: Loop) -> None:
    containers, go = Containers(), asyncio.Event()
    live = containers.add(container())

    async def remove() -> None:
        async with live.changing():
            await go.wait()
            containers.drop(live)

    async def change() -> None:
        async with live.changing():
            raise AssertionError("it is changed although it has gone")

    removal, other = loop.create_task(remove()), loop.create_task(change())
    loop.settle(0)
    assert not other.done()
    go.set()
    loop.settle(0)
    assert removal.exception() is None
    assert isinstance(other.exception(), NotFound)
    assert str(other.exception()) == f"No such container: {'a1' * 32}"


def test_one_change_is_made_after_the_other_also_if_one_fails(loop: Loop) -> None:
    live, done, go = LiveContainer(container()), list[str](), asyncio.Event()

    async def change(what: str) -> None:
        async with live.changing():
            done.append(f"{what} begins")
            await go.wait()
            if what == "first":
                raise Conflict("not now")
            done.append(f"{what} ends")

    first, second = loop.create_task(change("first")), loop.create_task(change("second"))
    loop.settle(0)
    assert done == ["first begins"]
    go.set()
    loop.settle(0)
    assert done == ["first begins", "second begins", "second ends"]
    assert isinstance(first.exception(), Conflict)
    assert second.exception() is None


# ---- the end --------------------------------------------------------------------------------------------


def test_an_end_wakes_all_who_wait_for_it_and_later_ones_wait_for_the_next(loop: Loop) -> None:
    live = LiveContainer(container())

    async def wait() -> int:
        return (await asyncio.shield(live.ended)).exit_code

    early = [loop.create_task(wait()) for _ in range(2)]
    loop.settle(0)
    live.record = replace(live.record, state=State(status="exited", exit_code=3))
    live.tell_end()
    late = loop.create_task(wait())
    loop.settle(0)
    assert [task.result() for task in early] == [3, 3]
    assert not late.done()
    live.record = replace(live.record, state=State(status="exited", exit_code=4))
    live.tell_end()
    loop.settle(0)
    assert late.result() == 4


# ---- what needs a process -------------------------------------------------------------------------------


def test_what_runs_or_is_paused_has_a_process() -> None:
    LiveContainer(container(state=State(status="running", running=True))).must_run()
    LiveContainer(container(state=State(status="paused", running=True, paused=True))).must_run()


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (State(), "cannot exec: container {id} is not running"),
        (State(status="exited", exit_code=1), "cannot exec: container {id} is not running"),
        (
            State(status="restarting", running=True, restarting=True),
            "Container {id} is restarting, wait until the container is running",
        ),
    ],
)
def test_what_has_no_process_says_why(state: State, words: str) -> None:
    with pytest.raises(Conflict) as refused:
        LiveContainer(container(state=state)).must_run("cannot exec: ")
    assert str(refused.value) == words.format(id="a1" * 32)


def test_who_attached_to_a_start_that_does_not_come_sees_the_end(loop: Loop) -> None:
    live = LiveContainer(container())
    streams = PendingStreams(tty=False)
    live.pending.append(streams)

    async def read() -> list[tuple[int, bytes]]:
        return [frame async for frame in streams.frames()]

    reader = loop.create_task(read())
    loop.settle(0)
    assert not reader.done()
    live.drop_pending()
    loop.settle(0)
    assert reader.result() == []
    assert not live.pending
