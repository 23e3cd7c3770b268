"""Stopping, killing, pausing: what a signal means for the container it is sent to."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

import pytest

from netd.containers.signals import KILL_SECONDS, signal_number
from netd.core.errors import Conflict, InvalidParameter, NetdError, NotModified
from netd.launcher import LaunchError
from tests.containers.conftest import Host
from tests.fakes.launcher import Process


@pytest.mark.parametrize("text", ["SIGTERM", "term", "15", " sigterm "])
def test_a_signal_has_many_names(text: str) -> None:
    assert signal_number(text) == signal.SIGTERM


def test_real_time_signals_are_counted_from_the_first() -> None:
    assert signal_number("RTMIN+3") == signal.SIGRTMIN + 3


@pytest.mark.parametrize("text", ["", "FOO", "0", "999", "RTMIN+x", "DFL"])
def test_what_is_no_signal_is_refused(text: str) -> None:
    with pytest.raises(InvalidParameter, match="invalid signal"):
        signal_number(text)


def test_a_stop_ends_the_process_and_its_restarts(host: Host) -> None:
    host.run(policy="always")
    host.containers.stop("web")
    host.after(120)
    assert (host.record().state.status, host.record().state.exit_code) == ("exited", 143)


def test_a_process_that_ignores_the_signal_is_killed_after_the_time_given(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.run()
    deliver = Process.deliver
    monkeypatch.setattr(Process, "deliver", lambda self, n: deliver(self, n) if n == signal.SIGKILL else None)
    began = host.world.loop.time()
    host.containers.stop("web", timeout=3)
    assert host.world.loop.time() - began == 3
    assert host.record().state.exit_code == 137


def test_stopping_what_does_not_run_changes_nothing(host: Host) -> None:
    host.create()
    with pytest.raises(NotModified):
        host.containers.stop("web")


def test_a_stop_waits_for_a_start_that_is_under_way(host: Host) -> None:
    host.create()
    containers = host.world.daemon.containers
    start = host.world.loop.create_task(containers.start("web"))
    for _ in range(5):
        host.world.loop.step()
    stop = host.world.loop.create_task(containers.stop("web"))
    host.after(1)
    assert start.done()
    assert stop.exception() is None
    assert not host.runs()


def test_a_process_that_does_not_end_is_told_after_a_while_and_not_waited_for(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.run()
    monkeypatch.setattr(Process, "deliver", lambda self, n: None)
    began = host.world.loop.time()
    with pytest.raises(NetdError, match="tried to kill container, but did not receive an exit event"):
        host.containers.remove("web", force=True, volumes=False, link=False)
    assert host.world.loop.time() - began == KILL_SECONDS
    assert host.record().state.running


def test_a_signal_that_asks_for_no_end_leaves_the_restarts_alone(host: Host) -> None:
    host.run(policy="always")
    host.containers.kill("web", "HUP")
    assert not host.record().stopped_by_user
    host.ends()
    host.after(1)
    assert host.runs()


@pytest.mark.parametrize("sent", ["KILL", "TERM"])
def test_a_signal_that_asks_for_the_end_ends_the_restarts_too(host: Host, sent: str) -> None:
    host.run(policy="always")
    host.containers.kill("web", sent)
    host.after(120)
    assert not host.runs()


def test_killing_what_does_not_run_is_a_conflict(host: Host) -> None:
    host.create()
    with pytest.raises(Conflict, match="is not running"):
        host.containers.kill("web")


def test_a_paused_container_is_unpaused_to_see_the_signal_that_ends_it(host: Host) -> None:
    host.run()
    host.containers.pause("web")
    host.containers.kill("web", "TERM")
    host.after(0)
    assert host.record().state.status == "exited"


def test_pausing_twice_and_unpausing_twice_are_conflicts(host: Host) -> None:
    host.run()
    host.containers.pause("web")
    assert host.record().state.status == "paused"
    with pytest.raises(Conflict, match="already paused"):
        host.containers.pause("web")
    host.containers.unpause("web")
    with pytest.raises(Conflict, match="is not paused"):
        host.containers.unpause("web")


def test_a_pause_that_fails_leaves_the_container_running(host: Host) -> None:
    host.run()

    async def pause(id: str) -> None:
        raise LaunchError("freezer is busy")

    host.world.launcher.pause = pause  # type: ignore[method-assign]
    with pytest.raises(LaunchError):
        host.containers.pause("web")
    assert host.record().state.status == "running"


@pytest.mark.parametrize(
    ("verb", "words"),
    [
        ("pause", "is restarting, wait until the container is running"),
        ("unpause", "is not paused"),
        ("start", "container already started"),
    ],
)
def test_what_waits_for_its_restart_answers_as_docker_does(host: Host, verb: str, words: str) -> None:
    host.run(policy="always")
    host.ends()
    with pytest.raises((Conflict, NotModified), match=words):
        getattr(host.containers, verb)("web")


def test_many_clients_wait_for_one_end(host: Host) -> None:
    host.run()
    containers = host.world.daemon.containers

    async def client() -> Any:
        return await containers.wait("web")

    clients = [host.world.loop.create_task(client()) for _ in range(3)]
    clients[0].cancel()  # who hangs up is waited for by nobody
    host.after(0)
    host.ends(code=4)
    assert clients[0].cancelled()
    assert [c.result() for c in clients[1:]] == [(4, ""), (4, "")]
    assert not asyncio.all_tasks(host.world.loop) & set(clients)
