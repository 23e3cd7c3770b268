"""How a container starts, ends, is started again and removed, also when something fails on the way."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from kvstore.contract import Entry, StoreUnavailable
from netd.containers.lifecycle import DEPENDENCY_SECONDS, Lifecycle
from netd.core.errors import Conflict, NotFound, Unavailable
from netd.launcher import LaunchError
from netd.model.networks import NetworkCreate
from tests.containers.conftest import Host


def fails(host: Host, fake: object, method: str, error: Exception | None) -> None:
    """From now on every call to this method of a fake fails; with None it works again."""
    if error is None:
        delattr(fake, method)
        return

    async def failing(*_: Any, **__: Any) -> None:
        raise error

    setattr(fake, method, failing)


FULL = StoreUnavailable("database or disk is full")


# ---- start ----------------------------------------------------------------------------------------------


def test_a_start_that_fails_leaves_its_reason_and_nothing_else(host: Host) -> None:
    host.create(network_mode="blue")
    fails(host, host.world.launcher, "create", LaunchError("exec format error", exit_code=126))
    with pytest.raises(LaunchError):
        host.containers.start("web")
    state = host.record().state
    assert (state.status, state.exit_code, state.error) == ("created", 126, "exec format error")
    assert not host.world.kernel.sandboxes
    assert not host.world.namespaces.present
    assert not host.world.store.under("sandboxes")


def test_a_start_that_cannot_be_stored_is_undone(host: Host) -> None:
    host.create()
    fails(host, host.world.store, "cas", FULL)
    with pytest.raises(StoreUnavailable):
        host.containers.start("web")
    fails(host, host.world.store, "cas", None)
    assert not host.world.launcher.processes
    assert not host.world.kernel.sandboxes
    host.containers.start("web")
    assert host.runs()


def test_what_a_failed_start_could_not_clear_is_cleared_later(host: Host) -> None:
    host.create()
    host.world.calls.broken |= {"Store.cas", "Launcher.delete"}
    with pytest.raises(StoreUnavailable):
        host.containers.start("web")
    host.after(3)
    assert host.world.launcher.processes
    host.world.calls.broken.clear()
    host.after(30)
    assert not host.world.launcher.processes
    host.containers.start("web")
    host.after(5)
    assert host.runs()


def test_what_a_failed_start_could_not_clear_goes_with_the_container(host: Host) -> None:
    host.create()
    host.world.calls.broken |= {"Store.cas", "Launcher.delete"}
    with pytest.raises(StoreUnavailable):
        host.containers.start("web")
    host.world.calls.broken.clear()
    host.containers.remove("web", force=False, volumes=False, link=False)
    assert not host.world.launcher.processes


# ---- end ------------------------------------------------------------------------------------------------


def test_the_end_is_told_with_its_exit_code_even_if_the_container_is_up_again_by_then(host: Host) -> None:
    host.run(policy="always")
    waiting = host.world.loop.create_task(host.world.daemon.containers.wait("web", "next-exit"))
    host.after(0)
    host.process().end(7)
    host.after(1)
    assert waiting.result() == (7, "")
    assert host.runs()


def test_a_full_disk_does_not_keep_a_container_from_ending(host: Host) -> None:
    host.run()
    fails(host, host.world.store, "cas", FULL)
    host.ends(code=3)
    assert (host.record().state.status, host.record().state.exit_code) == ("exited", 3)
    assert not host.world.kernel.sandboxes


def test_however_often_its_start_fails_meanwhile_one_job_waits_for_room_on_the_disk(host: Host) -> None:
    host.run(policy="always")
    fails(host, host.world.store, "cas", FULL)
    jobs = len(host.world.loop.tasks)
    host.ends()
    host.after(30)  # its starts cannot be stored either
    assert len(host.world.loop.tasks) - jobs <= 1


def test_what_a_full_disk_refused_is_stored_when_there_is_room(host: Host) -> None:
    host.run()
    fails(host, host.world.store, "cas", FULL)
    host.ends(code=3)
    fails(host, host.world.store, "cas", None)
    host.after(2)
    host.world.restart_daemon()
    assert (host.record().state.status, host.record().state.exit_code) == ("exited", 3)


def test_a_container_that_removes_itself_does_so_when_the_store_lets_it(host: Host) -> None:
    host.run(auto_remove=True)
    fails(host, host.world.store, "delete", FULL)
    host.ends()
    assert host.record().state.status == "exited"
    fails(host, host.world.store, "delete", None)
    host.after(2)
    with pytest.raises(NotFound):
        host.record()


def test_a_process_of_which_nothing_can_be_learned_is_asked_for_again(host: Host) -> None:
    host.run()
    real = host.world.launcher.wait
    answers = [LaunchError("its process does not end although it was killed")]

    async def wait(id: str) -> Any:
        status = await real(id)
        if answers:
            raise answers.pop()
        return status

    host.world.restart_daemon()
    host.world.launcher.wait = wait  # type: ignore[method-assign]
    host.world.restart_daemon()
    host.ends(code=5)
    assert host.record().state.running
    host.after(2)
    assert host.record().state.exit_code == 5


# ---- restarts by policy ---------------------------------------------------------------------------------


def test_the_waits_between_restarts_double(host: Host) -> None:
    host.run(policy="always")
    for delay in (0.1, 0.2, 0.4, 0.8):
        host.ends()
        host.after(delay - 0.01)
        assert not host.runs()
        host.after(0.02)
        assert host.runs()


def test_while_it_waits_for_its_restart_a_container_says_so(host: Host) -> None:
    host.run(policy="always")
    host.ends(code=3)
    state = host.record().state
    assert (state.status, state.running, state.restarting, state.pid) == ("restarting", True, True, 0)
    assert host.ps() == ["Restarting (3) Less than a second ago"]


def test_on_failure_counts_from_the_last_start_by_hand(host: Host) -> None:
    host.run(policy="on-failure", retries=2)
    for _ in range(3):
        host.ends()
        host.after(5)
    assert (host.record().state.status, host.record().restart_count) == ("exited", 2)
    host.containers.start("web")
    assert host.record().restart_count == 0
    host.ends()
    host.after(5)
    assert host.runs()


def test_an_automatic_start_that_fails_is_tried_again(host: Host) -> None:
    host.run(policy="always")
    fails(host, host.world.launcher, "create", LaunchError("no room"))
    host.ends()
    host.after(5)
    assert host.record().state.status == "restarting"
    assert host.record().state.error == "no room"
    fails(host, host.world.launcher, "create", None)
    host.after(60)
    assert host.runs()


def test_automatic_starts_that_fail_count_for_on_failure(host: Host) -> None:
    host.run(policy="on-failure", retries=3)
    fails(host, host.world.launcher, "create", LaunchError("no room"))
    host.ends()
    host.after(60)
    assert (host.record().state.status, host.record().restart_count) == ("exited", 3)


def test_a_store_that_is_away_costs_no_try(host: Host) -> None:
    host.run(policy="on-failure", retries=2)
    fails(host, host.world.launcher, "create", Unavailable("the cluster store cannot be used now"))
    host.ends()
    host.after(30)
    assert (host.record().state.status, host.record().restart_count) == ("restarting", 1)
    fails(host, host.world.launcher, "create", None)
    host.after(2)
    assert host.runs()


def test_a_store_that_is_away_leaves_the_back_off_as_it_was(host: Host) -> None:
    host.run(policy="always")
    for _ in range(6):
        host.ends()
        host.after(host.world.daemon.containers.find("web").delay + 0.1)
    fails(host, host.world.launcher, "create", Unavailable("the cluster store cannot be used now"))
    host.ends()
    host.after(10)
    fails(host, host.world.launcher, "create", None)
    host.after(2)
    host.ends()
    host.after(12)
    assert not host.runs(), "after 6.4 s it waits for 12.8"
    host.after(1)
    assert host.runs()


@pytest.mark.parametrize("verb", ["stop", "kill"])
def test_whoever_stops_a_container_between_two_restarts_has_stopped_it(host: Host, verb: str) -> None:
    host.run(policy="always")
    host.ends(code=3)
    getattr(host.containers, verb)("web")
    assert (host.record().state.status, host.record().state.exit_code) == ("exited", 3)
    host.after(120)
    assert not host.runs()


# ---- with the daemon ------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["always", "unless-stopped", "on-failure"])
def test_a_restart_that_was_due_is_done_by_the_next_daemon(host: Host, policy: str) -> None:
    host.run(policy=policy)
    for _ in range(8):  # the next wait is long enough for a daemon to go in it
        host.ends()
        host.after(13)
    host.ends()
    assert not host.runs()
    host.world.restart_daemon()
    host.after(1)
    assert host.runs()


def test_what_ran_when_the_machine_went_down_is_started_again(host: Host) -> None:
    host.run("web", policy="unless-stopped")
    host.run("job")
    host.world.launcher.processes.clear()
    host.world.restart_daemon()
    host.after(1)
    assert host.runs("web")
    assert (host.record("job").state.status, host.record("job").state.exit_code) == ("exited", 255)


def test_unless_stopped_remembers_over_the_daemon_s_restart_that_it_was_stopped(host: Host) -> None:
    host.run("web", policy="unless-stopped")
    host.run("other", policy="always")
    host.containers.stop("web")
    host.containers.stop("other")
    host.world.restart_daemon()
    host.after(1)
    assert not host.runs("web")
    assert host.runs("other")


def test_a_container_that_joins_another_s_network_starts_after_that_one(host: Host) -> None:
    db = host.create("db", policy="always")
    host.run("web", policy="always", network_mode="blue")
    host.containers.remove("web", force=True, volumes=False, link=False)
    host.containers.start("db")
    host.run("web", policy="always", network_mode=f"container:{db}")
    host.world.launcher.processes.clear()
    slow = host.world.launcher.create

    async def create(spec: Any) -> int:
        if spec.name == "db":
            await asyncio.sleep(DEPENDENCY_SECONDS / 2)
        return int(await slow(spec))

    host.world.launcher.create = create  # type: ignore[method-assign]
    host.world.restart_daemon()
    host.after(DEPENDENCY_SECONDS)
    assert host.runs("db")
    assert host.runs("web")
    assert host.record("web").restart_count == 1  # the first try was good


@pytest.mark.parametrize("how", ["db", "id", "short id"])
def test_a_container_starts_after_the_one_that_it_needs_however_that_is_called(host: Host, how: str) -> None:
    db = host.run("db", policy="always")
    ref = {"db": "db", "id": db, "short id": db[:12]}[how]
    host.run("web", policy="on-failure", retries=1, network_mode=f"container:{ref}")
    host.world.launcher.processes.clear()
    host.world.restart_daemon()
    host.after(60)
    assert host.runs("db")
    assert host.runs("web")


def test_a_container_that_needs_one_that_cannot_be_told_from_another_waits_for_none(host: Host) -> None:
    identity = host.run("db", policy="always")
    host.run("web", policy="always", network_mode=f"container:{identity[:12]}")
    twin = f"{identity[:12]}{'0' * 52}"
    record = host.record("db")
    key = f"containers/{twin}"
    host.world.store.entries[key] = Entry(key, msgspec.json.encode(replace(record, id=twin, name="twin")), 1)
    host.world.launcher.processes.clear()
    host.world.restart_daemon()
    host.after(5)
    assert host.record("web").state.restarting
    assert "is ambiguous" in host.record("web").state.error


def test_what_should_have_removed_itself_is_removed_by_the_next_daemon(host: Host) -> None:
    host.run(auto_remove=True)
    host.process().end(0)
    host.world.restart_daemon()
    host.after(1)
    assert not host.world.daemon.containers.live


# ---- removal --------------------------------------------------------------------------------------------


def test_a_container_is_gone_once_its_record_is_whatever_else_fails(host: Host) -> None:
    identity = host.create()
    fails(host, host.world.launcher, "discard", LaunchError("device or resource busy"))
    host.containers.remove("web", force=False, volumes=False, link=False)
    assert not host.world.daemon.containers.live
    host.create("web")  # its name is free
    fails(host, host.world.launcher, "discard", None)
    host.world.restart_daemon()
    assert not (host.world.root / "containers" / identity).exists()


def test_a_removal_that_cannot_be_stored_changes_nothing(host: Host) -> None:
    host.create()
    fails(host, host.world.store, "delete", FULL)
    with pytest.raises(StoreUnavailable):
        host.containers.remove("web", force=False, volumes=False, link=False)
    fails(host, host.world.store, "delete", None)
    host.containers.start("web")
    assert host.runs()


def test_a_container_whose_network_has_gone_says_so_at_its_start(host: Host) -> None:
    host.world.run(host.world.daemon.networks.create(NetworkCreate(name="red")))
    host.create(network_mode="red")
    host.world.run(host.world.daemon.networks.remove("red"))
    with pytest.raises(NotFound, match="network red not found"):
        host.containers.start("web")


def test_a_container_that_is_marked_for_removal_is_not_started(host: Host) -> None:
    host.create()
    host.world.daemon.containers.find("web").removing = True
    with pytest.raises(Conflict, match="marked for removal"):
        host.containers.start("web")


def test_the_lifecycle_ends_with_its_owner_and_the_containers_go_on(host: Host) -> None:
    host.run()
    life: Lifecycle = host.world.daemon.containers._life
    host.world.run(life.close())
    host.ends()
    assert host.record().state.running  # nobody looks any more; the next daemon does
    host.world.restart_daemon()
    host.after(0)
    assert host.record().state.status == "exited"
