"""A daemon that was killed, and the one that comes after it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time

import pytest

from netd.launcher import ExecSpec, ExitStatus, Running, processes
from tests.launcher.conftest import Lab, collect, read_until

pytestmark = pytest.mark.root

# makes and removes containers until it is killed
BUSY = """
import asyncio, os, sys
from pathlib import Path
from netd.launcher import ExecSpec, Launcher, LaunchSpec
from netd.model.containers import ContainerConfig, HostConfig

async def main(directory, image):
    launcher = Launcher(Path(directory) / "data", Path(directory) / "exec")
    async def one():
        while True:
            config = ContainerConfig(cmd=["sleep", "0.02"])
            spec = LaunchSpec(os.urandom(32).hex(), "x", Path(image), config, HostConfig())
            await launcher.create(spec)
            await launcher.start(spec.id)
            session = await launcher.exec(spec.id, ExecSpec(("true",)))
            await session.streams.close()
            await launcher.wait(spec.id)
            await launcher.delete(spec.id)
            await launcher.discard(spec.id)
            print("round", flush=True)
    await asyncio.gather(one(), one(), return_exceptions=False)

asyncio.run(main(*sys.argv[1:]))
"""

# starts a container as a daemon would, then dies as daemons do
DAEMON = """
import asyncio, os, sys
from pathlib import Path
from netd.launcher import Launcher, LaunchSpec
from netd.model.containers import ContainerConfig, HostConfig

async def main(directory, image, id, stage, *command):
    launcher = Launcher(Path(directory) / "data", Path(directory) / "exec")
    config = ContainerConfig(cmd=list(command), open_stdin=True)
    await launcher.create(LaunchSpec(id, "x", Path(image), config, HostConfig()))
    if stage == "started":
        launcher.attach(id)
        await launcher.start(id)
    os.kill(os.getpid(), 9)

asyncio.run(main(*sys.argv[1:]))
"""


def killed_daemon(lab: Lab, stage: str, *command: str) -> str:
    id = lab.spec().id
    arguments = [sys.executable, "-c", DAEMON, str(lab.directory), str(lab.image), id, stage, *command]
    assert subprocess.run(arguments, check=False).returncode == -signal.SIGKILL
    return id


def test_a_container_outlives_the_daemon_with_its_streams_and_exit_code(lab: Lab) -> None:
    async def scenario(id: str) -> None:
        assert await lab.launcher.owned() == {id}
        found = await lab.launcher.recover(id)
        assert isinstance(found, Running)
        assert processes.command_line(found.pid)[0] == "sh"
        streams = lab.launcher.attach(id)
        session = await lab.launcher.exec(id, ExecSpec(("true",)))
        assert await session.wait() == 0
        assert session.streams is not None
        await session.streams.close()
        await streams.write(b"go\n")
        assert await read_until(streams, "told\n") == "told\n"
        await streams.close()
        assert (await lab.launcher.wait(id)).exit_code == 7
        assert await collect(lab.launcher.logs(id)) == "before\ntold\n"

    id = killed_daemon(lab, "started", "sh", "-c", "echo before; read x; echo told; exit 7")
    lab.run(scenario(id))


def test_whether_it_is_paused_is_known(lab: Lab) -> None:
    async def scenario() -> None:
        id = await lab.start("sleep", "1000")
        for paused, change in ((True, lab.launcher.pause), (False, lab.launcher.resume)):
            await change(id)
            found = await lab.new_launcher().recover(id)
            assert isinstance(found, Running) and found.paused == paused

    lab.run(scenario())


def test_the_exit_code_of_one_that_ended_meanwhile_is_known(lab: Lab) -> None:
    async def scenario(id: str) -> None:
        first = await lab.launcher.wait(id)
        again = await lab.new_launcher().recover(id)
        assert isinstance(again, ExitStatus)
        assert again == first
        assert again.exit_code == 9

    lab.run(scenario(killed_daemon(lab, "started", "sh", "-c", "exit 9")))


def test_one_that_was_never_started_is_cleaned_away(lab: Lab) -> None:
    async def scenario(id: str) -> None:
        assert await lab.launcher.owned() == {id}
        assert await lab.launcher.recover(id) is None
        await lab.launcher.delete(id)
        assert await lab.launcher.owned() == set()

    lab.run(scenario(killed_daemon(lab, "created", "sleep", "1000")))


def test_one_that_lost_its_conmon_is_killed(lab: Lab) -> None:
    async def scenario() -> None:
        for recovering in (False, True):
            id = await lab.start("sleep", "1000")
            pid = int((lab.directory / "exec/containers" / id / "conmon.pid").read_text())
            pidfd = os.pidfd_open(pid)
            waiting = asyncio.create_task(lab.launcher.wait(id))
            await asyncio.sleep(0)
            os.kill(pid, signal.SIGKILL)
            if recovering:
                await processes.ended(pidfd)
            os.close(pidfd)
            status = await (lab.launcher.recover(id) if recovering else waiting)
            assert isinstance(status, ExitStatus)
            assert status.exit_code == 137
            await waiting

    lab.run(scenario())


def test_nothing_is_known_after_a_restart_of_the_machine(lab: Lab) -> None:
    assert lab.run(lab.launcher.recover("0" * 64)) is None


def test_a_reused_pid_is_not_taken_for_the_container(lab: Lab) -> None:
    async def scenario() -> None:
        id = await lab.start("true")
        await lab.launcher.wait(id)
        bundle = lab.directory / "exec/containers" / id
        (bundle / id).unlink()
        innocent = await asyncio.create_subprocess_exec("sleep", "1000")
        for file in ("pid", "conmon.pid"):
            (bundle / file).write_text(str(innocent.pid))
        assert isinstance(await lab.launcher.recover(id), ExitStatus)
        await lab.launcher.delete(id)
        assert innocent.returncode is None
        innocent.kill()
        await innocent.wait()

    lab.run(scenario())


def test_every_kind_of_leftover_is_found(lab: Lab) -> None:
    async def scenario() -> None:
        id = await lab.start("sleep", "1000")
        assert await lab.new_launcher().owned() == {id}
        await lab.launcher.delete(id)
        for directory in (lab.directory / "exec/runtime", *lab.launcher.cgroups.roots):
            other = os.urandom(32).hex()
            (directory / other).mkdir(parents=True)
            lab.ids.append(other)
        assert await lab.launcher.owned() == set(lab.ids) - {id}

    lab.run(scenario())


def test_daemons_side_by_side_do_not_see_each_other(lab: Lab) -> None:
    from netd.launcher import Launcher

    async def scenario() -> None:
        await lab.start("sleep", "1000")
        other = Launcher(lab.directory / "other/data", lab.directory / "other/exec")
        assert await other.owned() == set()

    lab.run(scenario())


def test_whenever_it_is_killed_the_next_one_finds_and_removes_everything(lab: Lab) -> None:
    async def sweep() -> None:
        launcher = lab.new_launcher()
        data = lab.directory / "data/containers"
        for id in await launcher.owned() | set(os.listdir(data)):
            await launcher.recover(id)
            await launcher.delete(id)
            await launcher.discard(id)

    for number in range(8):
        arguments = [sys.executable, "-c", BUSY, str(lab.directory), str(lab.image)]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as daemon:
            assert daemon.stdout is not None
            daemon.stdout.readline()
            time.sleep(0.017 * number)
            daemon.kill()
        lab.run(sweep())
        assert lab.leftovers() == []
