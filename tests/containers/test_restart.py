"""Docker's restart policies: who is started again, after how long, and with the daemon."""

from __future__ import annotations

import pytest

from netd.containers.restart import after_end, next_delay, with_daemon
from netd.model.containers import Container, ContainerConfig, HostConfig, RestartPolicy, State


def container(
    policy: str,
    *,
    limit: int = 0,
    code: int = 0,
    count: int = 0,
    stopped: bool = False,
    status: str = "exited",
) -> Container:
    return Container(
        id="c" * 64,
        name="web",
        created="",
        image_id="",
        config=ContainerConfig(),
        host_config=HostConfig(restart_policy=RestartPolicy(name=policy, maximum_retry_count=limit)),
        state=State(status=status, exit_code=code, running=status == "restarting", restarting=status == "restarting"),
        restart_count=count,
        stopped_by_user=stopped,
    )


@pytest.mark.parametrize("policy", ["always", "unless-stopped"])
@pytest.mark.parametrize("code", [0, 1])
def test_always_and_unless_stopped_restart_whatever_the_exit_code(policy: str, code: int) -> None:
    assert after_end(container(policy, code=code))


def test_without_a_policy_nothing_is_restarted() -> None:
    assert not after_end(container("no", code=1))
    assert not after_end(container("", code=1))


def test_on_failure_restarts_after_a_failure_only() -> None:
    assert after_end(container("on-failure", code=1))
    assert not after_end(container("on-failure", code=0))


def test_on_failure_counts_to_its_limit() -> None:
    assert after_end(container("on-failure", code=1, limit=3, count=2))
    assert not after_end(container("on-failure", code=1, limit=3, count=3))


@pytest.mark.parametrize("policy", ["always", "unless-stopped", "on-failure"])
def test_what_a_user_stopped_stays_stopped(policy: str) -> None:
    assert not after_end(container(policy, code=137, stopped=True))


def test_delays_double_up_to_a_minute() -> None:
    delays, delay = [], 0.0
    for _ in range(12):
        delay = next_delay(delay, ran=1)
        delays.append(round(delay, 1))
    assert delays == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2, 60.0, 60.0]


def test_delays_begin_anew_after_ten_seconds_of_running() -> None:
    assert next_delay(12.8, ran=9.9) == 25.6
    assert next_delay(12.8, ran=10) == 0.1


def test_always_starts_with_the_daemon_even_if_a_user_had_stopped_it() -> None:
    assert with_daemon(container("always", stopped=True))
    assert not with_daemon(container("unless-stopped", stopped=True))
    assert with_daemon(container("unless-stopped"))
    assert not with_daemon(container("on-failure", code=1))


@pytest.mark.parametrize("policy", ["always", "unless-stopped", "on-failure"])
def test_a_restart_that_was_due_when_the_daemon_went_is_still_due(policy: str) -> None:
    assert with_daemon(container(policy, code=1, status="restarting"))


def test_what_was_never_started_does_not_start_with_the_daemon() -> None:
    assert not with_daemon(container("always", status="created"))
