"""Attaching, terminals, stdin, and the log."""

from __future__ import annotations

import asyncio
import contextlib
import os
from datetime import datetime

import pytest

from netd.core.errors import Conflict
from tests.launcher.conftest import Lab, collect, read_until

pytestmark = pytest.mark.root


def test_attached_before_start_nothing_is_lost(lab: Lab) -> None:
    async def scenario() -> None:
        spec = lab.spec("sh", "-c", "echo out; echo err >&2")
        await lab.launcher.create(spec)
        streams = lab.launcher.attach(spec.id)
        await lab.launcher.start(spec.id)
        assert sorted([frame async for frame in streams.frames()]) == [(1, b"out\n"), (2, b"err\n")]
        await streams.close()

    lab.run(scenario())


def test_large_output_arrives_whole(lab: Lab) -> None:
    async def scenario() -> None:
        spec = lab.spec("sh", "-c", "seq 1 100000")
        await lab.launcher.create(spec)
        streams = lab.launcher.attach(spec.id)
        await lab.launcher.start(spec.id)
        expected = "".join(f"{n}\n" for n in range(1, 100001))
        assert await collect(streams.frames()) == expected
        assert await collect(lab.launcher.logs(spec.id)) == expected
        await streams.close()

    lab.run(scenario())


def test_stdin_is_forwarded_until_it_is_closed(lab: Lab) -> None:
    async def scenario() -> None:
        spec = lab.spec("cat", open_stdin=True, stdin_once=True)
        await lab.launcher.create(spec)
        streams = lab.launcher.attach(spec.id)
        await lab.launcher.start(spec.id)
        data = b"".join(b"%d\n" % n for n in range(20000))
        output = asyncio.create_task(collect(streams.frames()))
        await streams.write(data)
        await streams.close_stdin()
        assert await output == data.decode()
        assert (await lab.launcher.wait(spec.id)).exit_code == 0
        await streams.write(b"too late")
        await streams.close()

    lab.run(scenario())


def test_all_who_are_attached_see_the_same_and_one_leaving_disturbs_nothing(lab: Lab) -> None:
    async def scenario() -> None:
        spec = lab.spec("cat", open_stdin=True, stdin_once=True)
        await lab.launcher.create(spec)
        first, second, third = (lab.launcher.attach(spec.id) for _ in range(3))
        await lab.launcher.start(spec.id)
        await third.close()
        await first.write(b"hello\n")
        assert await read_until(first, "hello\n") == await read_until(second, "hello\n")
        await second.close()
        await first.write(b"again\n")
        await read_until(first, "again\n")
        await first.close_stdin()
        assert (await lab.launcher.wait(spec.id)).exit_code == 0
        await first.close()

    lab.run(scenario())


def test_open_stdin_that_is_not_for_once_outlives_who_attached(lab: Lab) -> None:
    async def scenario() -> None:
        id = await lab.start("cat", open_stdin=True)
        for text in ("one\n", "two\n"):
            streams = lab.launcher.attach(id)
            await streams.write(text.encode())
            assert await read_until(streams, text) == text
            await streams.close_stdin()
            await streams.close()
        await lab.launcher.kill(id, 9)
        assert await collect(lab.launcher.logs(id, follow=True)) == "one\ntwo\n"

    lab.run(scenario())


def test_closing_ends_a_reader_that_waits(lab: Lab) -> None:
    async def scenario() -> None:
        id = await lab.start("sleep", "1000")
        streams = lab.launcher.attach(id)
        reader = asyncio.create_task(collect(streams.frames()))
        await asyncio.sleep(0.05)
        await streams.close()
        assert await reader == ""

    lab.run(scenario())


def test_a_terminal_has_one_stream_and_a_size(lab: Lab) -> None:
    async def scenario() -> None:
        spec = lab.spec("sh", tty=True, open_stdin=True, stdin_once=True)
        await lab.launcher.create(spec)
        streams = lab.launcher.attach(spec.id)
        assert streams.tty
        await lab.launcher.start(spec.id)
        await read_until(streams, "# ")
        await lab.launcher.resize(spec.id, 33, 99)
        await streams.write(b"stty size; echo $TERM; echo err >&2\n")
        assert "33 99\r\nxterm\r\nerr\r\n" in await read_until(streams, "err\r\n/ #")
        await streams.close()
        streams = lab.launcher.attach(spec.id)
        await streams.write(b"exit 5\n")
        assert (await lab.launcher.wait(spec.id)).exit_code == 5
        await streams.close()

    lab.run(scenario())


def test_nobody_attaches_to_what_does_not_run(lab: Lab) -> None:
    async def scenario() -> None:
        id = await lab.start("true")
        await lab.launcher.wait(id)
        with pytest.raises(Conflict):
            lab.launcher.attach(id)

    lab.run(scenario())


def test_following_a_log_ends_with_the_container(lab: Lab) -> None:
    async def scenario() -> None:
        id = await lab.start("sh", "-c", "for i in 1 2 3; do echo $i; sleep 0.05; done; printf end")
        assert await collect(lab.launcher.logs(id, follow=True)) == "1\n2\n3\nend"
        assert await collect(lab.launcher.logs(id, follow=True, tail=0)) == ""

    lab.run(scenario())


def test_a_follower_that_leaves_leaves_nothing_open(lab: Lab) -> None:
    async def scenario() -> None:
        id = await lab.start("sh", "-c", "echo hello; sleep 1000")
        before = os.listdir("/proc/self/fd")
        async with contextlib.aclosing(lab.launcher.logs(id, follow=True)) as frames:
            assert await anext(frames) == (1, b"hello\n")
            reading = asyncio.create_task(anext(frames))
            await asyncio.sleep(0.05)
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
        lab.launcher.logs(id, follow=True)
        assert os.listdir("/proc/self/fd") == before

    lab.run(scenario())


def test_a_log_can_be_cut_by_time_stream_and_number(lab: Lab) -> None:
    async def scenario() -> None:
        id = await lab.start("sh", "-c", "echo early; sleep 0.3; echo late; echo bad >&2; echo last")
        await lab.launcher.wait(id)
        logs = lab.launcher.logs
        stamps = (await collect(logs(id, stderr=False, timestamps=True))).split()[::2]
        early, late = (datetime.fromisoformat(stamp[:26] + "Z").timestamp() for stamp in stamps[:2])
        middle = (early + late) / 2
        assert await collect(logs(id, since=middle, stderr=False)) == "late\nlast\n"
        assert await collect(logs(id, until=middle)) == "early\n"
        assert await collect(logs(id, tail=2, stderr=False)) == "late\nlast\n"
        assert await collect(logs(id, stdout=False)) == "bad\n"
        stamp, _, text = (await collect(logs(id, tail=1, stderr=False, timestamps=True))).partition(" ")
        assert (len(stamp), stamp[-1], text) == (30, "Z", "last\n")

    lab.run(scenario())


def test_there_is_no_log_of_an_unknown_container(lab: Lab) -> None:
    assert lab.run(collect(lab.launcher.logs("0" * 64))) == ""
