"""Background work is named, watched and ended with its owner."""

from __future__ import annotations

import asyncio
import logging

import pytest

from netd.core.tasks import Tasks, both
from tests.fakes.loop import Loop


async def fails(error: Exception) -> None:
    raise error


async def answers(value: str) -> str:
    await asyncio.sleep(0)
    return value


def test_a_job_that_fails_says_so_in_the_log_with_its_name(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        tasks = Tasks()
        tasks.start(fails(OSError("the disk is full")), "the watch of container web")
        await tasks.settled()
        await asyncio.sleep(0)

    asyncio.run(scenario())
    assert [r.getMessage() for r in caplog.records] == ["the watch of container web failed: the disk is full"]


def test_whoever_waits_for_a_job_gets_its_result() -> None:
    async def scenario() -> str:
        return await Tasks().start(answers("done"), "a job")

    assert asyncio.run(scenario()) == "done"


def test_a_job_that_must_not_end_is_begun_again(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        tasks, enough, begun = Tasks(), asyncio.Event(), []

        async def follow() -> None:
            begun.append(len(begun))
            if len(begun) == 1:
                raise OSError("one unreadable moment")
            if len(begun) == 3:
                enough.set()
                await asyncio.Event().wait()

        tasks.keep_running(follow, "following the host's resolv.conf", pause=0)
        await enough.wait()
        await tasks.close()
        assert not tasks

    caplog.set_level(logging.WARNING)
    asyncio.run(scenario())
    assert [r.getMessage() for r in caplog.records] == [
        "following the host's resolv.conf failed, it is begun again",
        "following the host's resolv.conf ended, it is begun again",
    ]


def test_a_job_that_must_succeed_is_done_again_until_it_does_and_told_once(caplog: pytest.LogCaptureFixture) -> None:
    tries = iter([OSError("no room"), OSError("no room"), OSError("no such thing"), None])

    async def take_away() -> None:
        if (error := next(tries)) is not None:
            raise error

    async def scenario() -> None:
        await Tasks().until_done(take_away, "taking it away", pause=0)

    asyncio.run(scenario())
    assert [(r.getMessage(), str(r.exc_info and r.exc_info[1])) for r in caplog.records] == [
        ("taking it away failed, it is tried again: no room", "no room"),
        ("taking it away failed, it is tried again: no such thing", "no such thing"),
    ]


def test_whoever_waits_for_the_first_try_only_goes_on_when_that_has_failed() -> None:
    tries: list[float] = []

    async def take_away() -> None:
        tries.append(asyncio.get_running_loop().time())
        if len(tries) < 5:
            raise OSError("no room")

    with Loop() as loop:
        tasks = Tasks()
        loop.run(tasks.now_or_later(take_away, "taking it away", pause=1, longest=4))
        assert len(tries) == 1
        loop.settle(60)
        assert tries == [0, 1, 3, 7, 11], "each pause is twice the one before, until it is the longest"
        assert not tasks


def test_nothing_runs_once_its_owner_has_closed() -> None:
    async def scenario() -> None:
        tasks, undone = Tasks(), []

        async def patient() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0)
                undone.append(True)

        tasks.start(patient(), "a job")
        await asyncio.sleep(0)
        await tasks.close()
        assert undone
        assert not tasks

    asyncio.run(scenario())


def test_both_gives_what_the_two_gave() -> None:
    async def scenario() -> tuple[str, str]:
        return await both(answers("a"), answers("b"))

    assert asyncio.run(scenario()) == ("a", "b")


def test_both_lets_the_other_end_before_it_tells_of_a_failure() -> None:
    async def scenario() -> None:
        done = []

        async def slow() -> None:
            for _ in range(5):
                await asyncio.sleep(0)
            done.append(True)

        with pytest.raises(OSError, match="first"):
            await both(fails(OSError("first")), slow())
        assert done

    asyncio.run(scenario())
