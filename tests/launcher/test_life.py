"""A container's life: made, started, signalled, ended, cleaned away."""

from __future__ import annotations

import asyncio
import signal

import pytest

from netd.core.errors import Conflict
from netd.launcher import LaunchError, processes
from netd.model.containers import HostConfig
from tests.launcher.conftest import Lab, collect

pytestmark = pytest.mark.root


def test_exit_code_and_output_are_those_of_the_command(lab: Lab) -> None:
    async def scenario() -> None:
        id = await lab.start("sh", "-c", "echo out; echo err >&2; exit 3")
        status = await lab.launcher.wait(id)
        assert status.exit_code == 3
        assert status.finished_at.endswith("Z")
        assert not status.oom_killed
        assert sorted([frame async for frame in lab.launcher.logs(id)]) == [(1, b"out\n"), (2, b"err\n")]

    lab.run(scenario())


def test_the_command_does_not_run_before_start(lab: Lab) -> None:
    async def scenario() -> None:
        spec = lab.spec("sh", "-c", "echo ran")
        pid = await lab.launcher.create(spec)
        assert pid in processes.all_pids()
        await asyncio.sleep(0.05)
        assert await collect(lab.launcher.logs(spec.id)) == ""
        await lab.launcher.start(spec.id)
        await lab.launcher.wait(spec.id)
        assert await collect(lab.launcher.logs(spec.id)) == "ran\n"
        with pytest.raises((Conflict, LaunchError)):
            await lab.launcher.start(spec.id)

    lab.run(scenario())


@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        ("nosuch", 127, 'exec: "nosuch": executable file not found in $PATH: unknown'),
        ("/no/such", 127, 'exec: "/no/such": stat /no/such: no such file or directory: unknown'),
        ("/etc/passwd", 126, 'exec: "/etc/passwd": permission denied: unknown'),
    ],
)
def test_a_command_that_cannot_be_executed_fails_in_dockers_words(
    lab: Lab, command: str, code: int, words: str
) -> None:
    async def scenario() -> None:
        with pytest.raises(LaunchError) as failure:
            await lab.launcher.create(lab.spec(command))
        assert failure.value.exit_code == code
        assert failure.value.status == 400
        assert str(failure.value).startswith("failed to create task for container: failed to create shim task: ")
        assert str(failure.value).endswith(words)
        assert await lab.launcher.owned() == set()

    lab.run(scenario())


def test_signals_reach_the_first_process(lab: Lab) -> None:
    async def scenario() -> None:
        trap = "trap 'echo got; exit 9' TERM; echo ready; while :; do sleep 0.01; done"
        id = await lab.start("sh", "-c", trap)
        async for _, data in lab.launcher.logs(id, follow=True):
            if data == b"ready\n":
                await lab.launcher.kill(id, signal.SIGTERM)
        assert (await lab.launcher.wait(id)).exit_code == 9
        with pytest.raises(Conflict, match="is not running"):
            await lab.launcher.kill(id, signal.SIGTERM)

    lab.run(scenario())


def test_a_killed_container_ends_with_137_even_when_paused(lab: Lab) -> None:
    async def scenario() -> None:
        id = await lab.start("sleep", "1000")
        await lab.launcher.pause(id)
        await lab.launcher.kill(id, signal.SIGKILL)
        assert (await lab.launcher.wait(id)).exit_code == 137

    lab.run(scenario())


def test_a_paused_container_stands_still(lab: Lab) -> None:
    async def scenario() -> None:
        id = await lab.start("sh", "-c", "while :; do echo tick; sleep 0.01; done")

        async def said() -> str:
            await asyncio.sleep(0.1)
            return await collect(lab.launcher.logs(id))

        async with asyncio.timeout(20):
            while not await said():
                pass
            await lab.launcher.pause(id)
            while (before := await said()) != await said():  # its last words are on their way
                pass
            assert await said() == before
            await lab.launcher.resume(id)
            while len(await said()) <= len(before):
                pass

    lab.run(scenario())


def test_delete_kills_and_leaves_only_the_writable_layer_and_the_log(lab: Lab) -> None:
    async def scenario() -> None:
        id = await lab.start("sh", "-c", "echo kept > /file; echo said; sleep 1000")
        async for _ in lab.launcher.logs(id, follow=True):
            break
        await lab.launcher.delete(id)
        await lab.launcher.delete(id)
        assert await lab.launcher.owned() == set()
        assert [line for line in lab.leftovers() if not line.startswith(str(lab.directory / "data"))] == []
        assert await collect(lab.launcher.logs(id)) == "said\n"
        await lab.launcher.discard(id)
        await lab.launcher.discard(id)

    lab.run(scenario())


def test_a_second_start_sees_what_the_first_wrote(lab: Lab) -> None:
    async def scenario() -> None:
        spec = lab.spec("sh", "-c", "cat /file 2>/dev/null; echo again >> /file", host=HostConfig())
        for _ in range(3):
            await lab.launcher.create(spec)
            await lab.launcher.start(spec.id)
            await lab.launcher.wait(spec.id)
            await lab.launcher.delete(spec.id)
        assert await collect(lab.launcher.logs(spec.id)) == "again\n" * 3
        assert not (lab.image / "file").exists()

    lab.run(scenario())


def test_many_at_once_leave_nothing(lab: Lab) -> None:
    async def one(number: int) -> None:
        id = await lab.start("sh", "-c", f"exit {number}")
        assert (await lab.launcher.wait(id)).exit_code == number
        await lab.remove(id)

    async def scenario() -> None:
        await asyncio.gather(*(one(number) for number in range(8)))
        assert lab.leftovers() == []

    lab.run(scenario())


def test_a_memory_limit_that_is_exceeded_is_reported(lab: Lab) -> None:
    async def scenario() -> None:
        host = HostConfig(memory=16 * 2**20, auto_remove=True)
        id = await lab.start("sh", "-c", "head -c 100m /dev/zero | tail", host=host)
        status = await lab.launcher.wait(id)
        assert status.oom_killed
        assert status.exit_code == 137

    lab.run(scenario())


def test_an_exec_root_with_a_long_path_works(lab: Lab) -> None:
    async def scenario() -> None:
        lab.directory = lab.directory / ("d" * 120)
        lab.launcher = lab.new_launcher()
        for tty in (False, True):
            assert (await lab.output("echo", "hello", tty=tty)).strip() == "hello"

    lab.run(scenario())


def test_a_creation_given_up_at_any_moment_leaves_nothing(lab: Lab) -> None:
    async def scenario() -> None:
        for milliseconds in range(0, 50, 4):
            spec = lab.spec("sleep", "1000")
            task = asyncio.create_task(lab.launcher.create(spec))
            await asyncio.sleep(milliseconds / 1000)
            task.cancel()
            await asyncio.wait([task])
            await lab.remove(spec.id)
            assert lab.leftovers() == []

    lab.run(scenario())
