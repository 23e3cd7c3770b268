"""The loop that is stepped by hand: nothing happens by itself, and time passes only when nothing else can."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tests.fakes.calls import step
from tests.fakes.loop import ACTOR, Loop, NeverQuiet, lock_awaited, where


@pytest.fixture
def loop() -> Iterator[Loop]:
    with Loop() as found:
        yield found


def test_hours_pass_at_once_and_in_order(loop: Loop) -> None:
    async def sleeper(seconds: float) -> float:
        await asyncio.sleep(seconds)
        return loop.time()

    async def both() -> list[float]:
        return await asyncio.gather(sleeper(7200), sleeper(3600))

    with pytest.raises(NeverQuiet):
        loop.run(both())  # further away than anything in netd
    loop.settle(10_000)
    assert loop.time() == 7200


def test_a_step_is_one_callback(loop: Loop) -> None:
    seen: list[int] = []

    async def count() -> None:
        for number in range(3):
            seen.append(number)
            await asyncio.sleep(0)

    task = loop.create_task(count())
    loop.step()
    assert seen == [0]
    loop.step()
    assert seen == [0, 1] and not task.done()


def test_an_actor_can_go_before_all_others_with_the_tasks_that_it_started(loop: Loop) -> None:
    order: list[str] = []

    async def child(name: str) -> None:
        order.append(name)

    async def work(name: str) -> None:
        ACTOR.set(name)
        await asyncio.sleep(0)
        await asyncio.create_task(child(name))
        order.append(f"{name} ends")

    for name in ("one", "other"):
        loop.create_task(work(name))
    loop.step()
    loop.step()
    loop.first_goes = "other"
    loop.settle()
    assert order == ["other", "other ends", "one", "one ends"]


def test_the_work_of_a_thread_is_a_step_of_its_own(loop: Loop) -> None:
    done: list[str] = []
    task = loop.create_task(asyncio.to_thread(done.append, "work"))
    loop.step()
    assert not done
    loop.step()
    assert done and not task.done()
    loop.settle()
    assert task.done()


def test_a_time_limit_ends_what_waits_for_ever(loop: Loop) -> None:
    async def impatient() -> None:
        async with asyncio.timeout(2):
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        loop.run(impatient())
    assert loop.time() == 2


def test_it_says_where_a_task_waits_and_for_which_lock(loop: Loop) -> None:
    lock = asyncio.Lock()

    async def holder() -> None:
        async with lock:
            await asyncio.sleep(1)

    async def waiter() -> None:
        async with lock:
            return

    loop.create_task(holder())
    first, second = loop.create_task(waiter()), loop.create_task(waiter())
    loop.settle(0)
    assert where(first).endswith("Lock.acquire")
    assert lock_awaited(first) == (id(lock), 1) or lock_awaited(second) == (id(lock), 1)


def test_what_goes_round_and_round_is_told(loop: Loop) -> None:
    async def spin() -> None:
        while True:
            await step()

    loop.create_task(spin())
    with pytest.raises(NeverQuiet, match="spin"):
        loop.settle()
