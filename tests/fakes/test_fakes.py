"""The fakes refuse what the real ones refuse, take effect between two awaits, and outlive the daemon."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from drivers.spec import DriverError
from kvstore.contract import KeyExists, StoreUnavailable, VersionMismatch
from netd.core.errors import Conflict
from netd.launcher import ExitStatus, LaunchError, Running
from netd.model.containers import ContainerCreate, HostConfig
from tests.fakes.consistent import complaints
from tests.fakes.world import World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    found = World(tmp_path / "world")
    yield found
    found.close()


def _web(world: World) -> str:
    """A container that runs."""
    body = ContainerCreate(image="app", cmd=["serve"], host_config=HostConfig())
    id, _ = world.run(world.daemon.containers.create(body, "web"))
    world.run(world.daemon.containers.start(id))
    return id


def test_a_call_takes_effect_between_two_awaits(world: World) -> None:
    task = world.loop.create_task(world.store.create("a", b"1"))
    world.loop.step()
    assert [call.name for call in world.calls.waiting] == ["Store.create"] and "a" not in world.store.entries
    world.loop.step()
    assert "a" in world.store.entries and not task.done()
    world.loop.settle()
    assert task.done()


def test_a_call_that_is_made_to_fail_has_no_effect(world: World) -> None:
    task = world.loop.create_task(world.store.create("a", b"1"))
    world.loop.step()
    world.calls.waiting[-1].fails = True
    world.loop.settle()
    assert isinstance(task.exception(), StoreUnavailable) and "a" not in world.store.entries


def test_the_store_keeps_its_contract(world: World) -> None:
    entry = world.run(world.store.create("a", b"1"))
    with pytest.raises(KeyExists):
        world.run(world.store.create("a", b"2"))
    changed = world.run(world.store.cas("a", b"2", entry.version))
    with pytest.raises(VersionMismatch):
        world.run(world.store.cas("a", b"3", entry.version))
    assert world.run(world.store.get("a")) == changed


def test_a_process_dies_of_a_signal_and_a_frozen_one_only_of_sigkill(world: World) -> None:
    id = _web(world)
    process = world.launcher.processes[id]
    world.run(world.launcher.pause(id))
    world.run(world.launcher.kill(id, signal.SIGTERM))
    assert process.runs
    world.run(world.launcher.resume(id))
    world.loop.settle()
    assert process.status is not None and process.status.exit_code == 143
    with pytest.raises(Conflict):
        world.run(world.launcher.kill(id, signal.SIGKILL))
    with pytest.raises(LaunchError):
        world.run(world.launcher.pause(id))


def test_a_process_outlives_the_daemon_and_tells_the_next_how_it_ended(world: World) -> None:
    id = _web(world)
    world.kill_daemon()
    assert isinstance(world.run(world.launcher.recover(id)), Running)
    world.launcher.processes[id].end(3)
    status = world.run(world.launcher.recover(id))
    assert isinstance(status, ExitStatus) and status.exit_code == 3
    world.run(world.daemon.load())
    world.loop.settle()
    assert world.daemon.records()[id].state.exit_code == 3
    assert not complaints(world)


def test_a_world_at_rest_has_nothing_to_complain_of_and_a_stray_process_is_complained_of(world: World) -> None:
    id = _web(world)
    assert not complaints(world)
    world.run(world.store.delete(f"containers/{id}"))
    assert "web is known, but not stored" in [complaint.text for complaint in complaints(world)]


def test_the_kernel_wants_a_sandboxs_namespace(world: World) -> None:
    _web(world)
    (sandbox,) = world.kernel.sandboxes.values()
    world.namespaces.present.clear()
    with pytest.raises(DriverError, match="does not exist"):
        world.run(world.kernel.ensure_sandbox(sandbox))


def test_a_world_that_resembles_another_loads_what_that_one_had(world: World, tmp_path: Path) -> None:
    id = _web(world)
    world.loop.settle()
    other = World(tmp_path / "other", like=world)
    assert other.daemon.records()[id].state.running and not complaints(other)
    assert other.shape({}) == world.shape({})
    other.close()
    world.loop.enter()
