"""A process in uninterruptible sleep: killed, it does not end, and nothing waits for it without a limit."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from netd.launcher import ExecSpec, ExitStatus, LaunchError, Running, Unkillable, conmon, launcher, processes
from tests.launcher.conftest import Lab, collect

pytestmark = pytest.mark.root

SHORT = 0.2  # seconds, of every limit here


@pytest.fixture(autouse=True)
def limits(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as short:
        for module, name in ((processes, "DEADLINE"), (launcher, "RECOVERY"), (launcher, "_PATIENCE")):
            short.setattr(module, name, SHORT)
        yield


@contextmanager
def asleep() -> Iterator[None]:
    """No signal reaches any process."""
    with pytest.MonkeyPatch.context() as sleep:
        sleep.setattr(processes, "send", lambda pidfd, number: not processes.has_ended(pidfd))
        yield


async def orphan(lab: Lab) -> str:
    """A container that has lost its conmon."""
    id = await lab.start("sleep", "1000")
    pidfd = os.pidfd_open(int((lab.directory / "exec/containers" / id / "conmon.pid").read_text()))
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    await processes.ended(pidfd)
    os.close(pidfd)
    return id


async def within(seconds: float, work: Coroutine[Any, Any, Any]) -> Any:
    async with asyncio.timeout(seconds):
        return await work


def test_one_that_runs_on_is_recovered_as_running(lab: Lab) -> None:
    async def scenario() -> None:
        id = await lab.start("sleep", "1000")
        with asleep():
            await lab.launcher.kill(id, signal.SIGKILL)
            assert isinstance(await within(5, lab.new_launcher().recover(id)), Running)

    lab.run(scenario())


def test_a_recovery_that_cannot_end_it_says_so_and_succeeds_later(lab: Lab) -> None:
    async def scenario() -> None:
        id = await orphan(lab)
        with asleep():
            with pytest.raises(Unkillable, match="does not end although it was killed"):
                await within(5, lab.launcher.recover(id))
            with pytest.raises(Unkillable):
                await within(5, lab.launcher.wait(id))
        status = await lab.launcher.recover(id)
        assert isinstance(status, ExitStatus) and status.exit_code == 137

    lab.run(scenario())


def test_a_conmon_that_does_not_end_is_not_waited_for_in_a_recovery(lab: Lab) -> None:
    async def scenario() -> None:
        id = await lab.start("sleep", "1000")
        pid = int((lab.directory / "exec/containers" / id / "conmon.pid").read_text())
        os.kill(pid, signal.SIGSTOP)
        try:
            init = os.pidfd_open(int((lab.directory / "exec/containers" / id / "pid").read_text()))
            await lab.launcher.kill(id, signal.SIGKILL)
            await processes.ended(init)
            os.close(init)
            with pytest.raises(Unkillable, match="conmon"):
                await within(5, lab.launcher.recover(id))
        finally:
            os.kill(pid, signal.SIGCONT)
        assert (await lab.launcher.wait(id)).exit_code == 137

    lab.run(scenario())


def test_a_removal_goes_on_as_far_as_it_can_and_is_finished_later(lab: Lab) -> None:
    async def scenario() -> None:
        id = await lab.start("sleep", "1000")
        told = f"container {id} could not be cleaned up completely: its process"
        with asleep(), pytest.raises(LaunchError, match=told):
            await within(10, lab.launcher.delete(id))
        assert await lab.launcher.owned() == {id}
        await lab.launcher.delete(id)
        assert await lab.launcher.owned() == set()

    lab.run(scenario())


def test_leftovers_are_found_although_a_process_cannot_be_looked_at(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        id = await lab.start("sleep", "1000")
        released = threading.Event()

        def blocked(pid: int) -> list[str]:
            released.wait()
            return []

        with monkeypatch.context() as held:
            held.setattr(processes, "command_line", blocked)
            assert await within(5, lab.launcher.owned()) == {id}
            released.set()
        assert "could not all be looked at" in caplog.text

    lab.run(scenario())


@pytest.fixture
def slow_runtime(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A runtime that never answers but to what makes containers."""
    runtime = lab.directory / "slow"
    runtime.write_text(
        f"#!/bin/sh\nfor word; do case $word in pause|exec) exec sleep 1000;; esac; done\nexec {lab.launcher.runtime} "
        '"$@"\n'
    )
    runtime.chmod(0o755)
    monkeypatch.setattr(conmon, "_PATIENCE", 2.0)
    yield runtime


def test_a_runtime_that_does_not_answer_is_given_up(lab: Lab, slow_runtime: Path) -> None:
    async def scenario() -> None:
        slow = launcher.Launcher(lab.directory / "data", lab.directory / "exec", str(slow_runtime))
        id = await lab.start("sh", "-c", "echo hello; sleep 1000")
        with pytest.raises(LaunchError, match="did not end within"):
            await within(5, slow.pause(id))
        with pytest.raises(LaunchError, match="the runtime did not answer within 2 s"):
            await within(10, slow.exec(id, ExecSpec(("true",))))
        assert not list((lab.directory / "exec/containers" / id / "exec").iterdir())
        assert await collect(lab.launcher.logs(id)) == "hello\n"

    lab.run(scenario())


def test_starting_never_keeps_others_from_going_on(lab: Lab) -> None:
    """The conmon that is our child goes into the background at once; should it not, nobody else waits for it."""

    async def scenario() -> None:
        runtime = lab.directory / "late"
        runtime.write_text(f'#!/bin/sh\nsleep 1\nexec {lab.launcher.runtime} "$@"\n')
        runtime.chmod(0o755)
        lab.launcher = launcher.Launcher(lab.directory / "data", lab.directory / "exec", str(runtime))
        spec = lab.spec("true")
        creating = asyncio.create_task(lab.launcher.create(spec))
        longest = last = 0.0
        while not creating.done():
            last = time.monotonic()
            await asyncio.sleep(0)
            longest = max(longest, time.monotonic() - last)
        await creating
        assert longest < 0.5
        await lab.launcher.delete(spec.id)

    lab.run(scenario())
