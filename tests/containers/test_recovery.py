"""A daemon that starts takes up what is there, clears what is left, and waits for nothing that does not come."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kvstore.contract import Entry
from netd.containers import recovery
from netd.launcher import LaunchError
from tests.containers.conftest import Host


def test_a_process_that_cannot_be_killed_does_not_keep_the_daemon_from_starting(host: Host) -> None:
    host.run("stuck")
    host.run("web")
    real = host.world.launcher.recover
    stuck = host.record("stuck").id

    async def recover(id: str) -> Any:
        if id == stuck:
            raise LaunchError("its process 42 does not end although it was killed")
        return await real(id)

    host.world.launcher.recover = recover  # type: ignore[method-assign]
    host.world.restart_daemon()
    assert host.world.daemon.loaded
    assert host.record("web").state.running
    host.process("stuck").end(137)
    host.world.launcher.recover = real  # type: ignore[method-assign]
    host.after(2)
    assert host.record("stuck").state.status == "exited"


def test_a_container_is_watched_although_its_daemon_started_on_a_full_disk(host: Host) -> None:
    host.run()
    renaming = host.world.loop.create_task(host.world.daemon.containers.rename("web", "other"))
    while "other" not in {record.name for record in host.world.daemon.records().values()}:
        host.world.loop.step()
    assert not renaming.done(), "the sandbox has its old name still"
    host.world.kill_daemon()
    host.world.calls.broken.add("Store.cas")
    before = host.world.loop.time()
    host.world.run(host.world.daemon.load())
    assert host.world.loop.time() == before, "nobody waits for room"
    host.after(5)
    host.world.calls.broken.clear()
    host.after(2)
    assert [s.name for s in host.world.daemon.sandboxes.all()] == ["other"]
    host.ends("other", code=3)
    assert (host.record("other").state.status, host.record("other").state.exit_code) == ("exited", 3)


def test_a_container_whose_record_cannot_be_read_is_left_alone(host: Host) -> None:
    identity = host.run()
    layer = host.world.root / "containers" / identity / "diff" / "data"
    layer.write_text("precious")
    key = f"containers/{identity}"
    entry = host.world.store.entries[key]
    host.world.store.entries[key] = Entry(key, b"{", entry.version)
    host.world.restart_daemon()
    host.after(10)
    assert identity in host.world.launcher.running()
    assert layer.read_text() == "precious"
    assert host.world.kernel.sandboxes and host.world.namespaces.present
    host.world.store.entries[key] = entry  # by the version of netd that can
    host.world.restart_daemon()
    host.after(1)
    assert host.record().state.running
    host.ends(code=3)
    assert host.record().state.exit_code == 3


def test_what_is_left_of_a_container_and_cannot_be_cleared_at_the_start_is_cleared_later(host: Host) -> None:
    host.run()
    host.process().end(0)
    host.world.calls.broken.add("Launcher.delete")
    before = host.world.loop.time()
    host.world.restart_daemon()
    assert host.world.loop.time() - before < recovery.PATIENCE, "nobody waits for it"
    assert host.record().state.status == "exited"
    host.after(3)
    assert host.world.launcher.processes
    host.world.calls.broken.clear()
    host.after(30)
    assert not host.world.launcher.processes


def test_what_cannot_be_cleared_does_not_keep_the_daemon_from_starting(
    host: Host, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    left = host.world.root / "containers" / "left"
    left.mkdir(parents=True)

    def refuses(path: Path) -> None:
        raise LaunchError(f"cannot remove {path}")

    monkeypatch.setattr(recovery, "remove_tree", refuses)
    host.world.restart_daemon()
    assert host.world.daemon.loaded
    assert f"cannot remove {left}" in caplog.text
