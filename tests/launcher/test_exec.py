"""More commands in a running container, and what `top` shows of it."""

from __future__ import annotations

import asyncio

import pytest

from netd.core.errors import Conflict, InvalidParameter
from netd.launcher import ExecSpec, LaunchError
from tests.launcher.conftest import Lab, collect, read_until

pytestmark = pytest.mark.root


def test_output_exit_code_and_surroundings(lab: Lab) -> None:
    async def scenario() -> None:
        id = await lab.start("sleep", "1000", env=["A=1"], working_dir="/tmp")
        script = "pwd; echo $A $B; id -u; echo err >&2; exit 4"
        session = await lab.launcher.exec(id, ExecSpec(("sh", "-c", script), env=("B=2",), user="bob"))
        assert session.streams is not None
        frames = [frame async for frame in session.streams.frames()]
        assert b"".join(data for stream, data in frames if stream == 1) == b"/tmp\n1 2\n1000\n"
        assert b"".join(data for stream, data in frames if stream == 2) == b"err\n"
        assert await session.wait() == 4
        await session.streams.close()

    lab.run(scenario())


def test_stdin_reaches_it(lab: Lab) -> None:
    async def scenario() -> None:
        id = await lab.start("sleep", "1000")
        session = await lab.launcher.exec(id, ExecSpec(("cat",), stdin=True))
        assert session.streams is not None
        await session.streams.write(b"hello")
        await session.streams.close_stdin()
        assert await collect(session.streams.frames()) == "hello"
        assert await session.wait() == 0
        await session.streams.close()

    lab.run(scenario())


def test_a_terminal_can_be_resized(lab: Lab) -> None:
    async def scenario() -> None:
        id = await lab.start("sleep", "1000")
        session = await lab.launcher.exec(id, ExecSpec(("sh",), tty=True, stdin=True))
        assert session.streams is not None
        await read_until(session.streams, "# ")
        assert [session.running] == [True]
        await session.resize(12, 34)
        await session.streams.write(b"stty size; exit 6\n")
        assert "12 34\r\n" in await collect(session.streams.frames())
        assert await session.wait() == 6
        assert [session.running] == [False]
        await session.streams.close()

    lab.run(scenario())


@pytest.mark.parametrize("tty", [False, True])
@pytest.mark.parametrize(("command", "code"), [("nosuch", 127), ("/no/such", 127), ("/etc/passwd", 126)])
def test_a_command_that_cannot_be_executed(lab: Lab, command: str, code: int, tty: bool) -> None:
    async def scenario() -> None:
        id = await lab.start("sleep", "1000")
        with pytest.raises(LaunchError) as failure:
            await lab.launcher.exec(id, ExecSpec((command,), tty=tty))
        assert failure.value.exit_code == code
        assert str(failure.value).startswith("OCI runtime exec failed: exec failed: unable to start")
        assert not list((lab.directory / "exec/containers" / id / "exec").iterdir())

    lab.run(scenario())


def test_unseen_sessions_run_and_leave_nothing(lab: Lab) -> None:
    async def scenario() -> None:
        id = await lab.start("sleep", "1000")
        session = await lab.launcher.exec(id, ExecSpec(("sh", "-c", "yes | head -c 1000000; exit 2")), attach=False)
        assert session.streams is None
        assert await session.wait() == 2
        assert not list((lab.directory / "exec/containers" / id / "exec").iterdir())

    lab.run(scenario())


def test_sessions_end_with_their_container(lab: Lab) -> None:
    async def scenario() -> None:
        id = await lab.start("sleep", "1000")
        sessions = [await lab.launcher.exec(id, ExecSpec(("sleep", "1000"))) for _ in range(3)]
        await lab.launcher.delete(id)
        assert await asyncio.gather(*(session.wait() for session in sessions)) == [137] * 3
        for session in sessions:
            assert session.streams is not None
            await session.streams.close()

    lab.run(scenario())


def test_nothing_is_executed_in_a_container_that_does_not_run(lab: Lab) -> None:
    async def scenario() -> None:
        id = await lab.start("true")
        await lab.launcher.wait(id)
        with pytest.raises(Conflict, match="is not running"):
            await lab.launcher.exec(id, ExecSpec(("true",)))

    lab.run(scenario())


def test_top_shows_the_containers_processes_only(lab: Lab) -> None:
    async def scenario() -> None:
        id = await lab.start("sleep", "1234")
        shown = await lab.launcher.top(id, "")
        assert [row[-1] for row in shown["Processes"]] == ["sleep 1234"]
        assert shown["Titles"][:2] == ["UID", "PID"]
        assert (await lab.launcher.top(id, "-o pid,comm"))["Titles"] == ["PID", "COMMAND"]
        with pytest.raises(LaunchError, match="Couldn't find PID field in ps output"):
            await lab.launcher.top(id, "-o comm")
        for nonsense in ("--nonsense", "'"):
            with pytest.raises(InvalidParameter):
                await lab.launcher.top(id, nonsense)

    lab.run(scenario())
