"""Containers that share a network with another one or with the host, and links on the default bridge."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from netd.core.errors import Conflict
from netd.sandboxes import etc
from tests.containers.attaching import (
    attachments,
    lines,
    path,
    plan,
    sandbox,
)
from tests.containers.conftest import Host

# ---- the network of another container, or the host's ----------------------------------------------------


def test_who_joins_another_container_has_its_namespace_host_name_and_files(host: Host) -> None:
    host.run("web")
    host.create("side", network_mode="container:web")
    joined = plan(host, host.record("side"))
    web = sandbox(host, "web")
    assert (joined.sandbox, joined.netns, joined.hostname) == (None, web.netns, web.hostname)
    assert {path.parent.name for path in joined.files.values()} == {web.container_id}
    before = path(host, "hosts").read_text()
    host.world.run(attachments(host).prepare(joined))
    host.world.run(attachments(host).carry_out(joined))
    host.world.run(attachments(host).undo(joined.sandbox))
    assert (sandbox(host, "web"), path(host, "hosts").read_text()) == (web, before)


def test_nobody_joins_a_container_that_does_not_run(host: Host) -> None:
    host.create("web")
    host.create("side", network_mode="container:web")
    with pytest.raises(Conflict) as refused:
        plan(host, host.record("side"))
    assert str(refused.value) == ("cannot join network namespace of a non running container: container web is created")
    host.containers.start("web")
    host.ends("web")
    with pytest.raises(Conflict, match="container web is exited"):
        plan(host, host.record("side"))


def test_nobody_joins_a_container_that_has_joined_another_one(host: Host) -> None:
    host.run("web")
    host.run("side", network_mode="container:web")
    host.create("third", network_mode="container:side")
    with pytest.raises(Conflict, match="cannot join the network of container side: it shares another container's"):
        plan(host, host.record("third"))


def test_in_host_mode_there_is_no_namespace_and_the_files_are_the_hosts(
    host: Host, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given = tmp_path / "hosts"
    given.write_text("10.1.1.1\tprinter\n")
    monkeypatch.setattr(etc, "_HOST_FILE", given)
    host.create(network_mode="host")
    made = plan(host, host.record())
    host.world.run(attachments(host).prepare(made))
    assert (made.netns, made.hostname) == ("", socket.gethostname())
    assert not host.world.namespaces.present
    assert path(host, "hosts").read_text() == "10.1.1.1\tprinter\n"


# ---- links on the default bridge ------------------------------------------------------------------------


def address(host: Host, name: str) -> str:
    return sandbox(host, name).endpoints[0].addresses[0]


def test_a_link_is_a_line_with_the_alias_the_host_name_and_the_name(host: Host) -> None:
    identity = host.run("db", network_mode="bridge")
    host.create("web", network_mode="bridge", links=["db:data"])
    made = plan(host, host.record())
    line = f"{address(host, 'db')}\tdata {identity[:12]} db"
    assert made.linked == (line,)
    host.world.run(attachments(host).prepare(made))
    assert line in lines(host)


def test_a_link_to_what_does_not_run_is_refused(host: Host) -> None:
    host.create("db", network_mode="bridge")
    host.create("web", network_mode="bridge", links=["db:data"])
    with pytest.raises(Conflict, match="Cannot link to a non running container: /db AS /web/data"):
        plan(host, host.record())


def test_a_linked_container_that_starts_again_elsewhere_is_found_there(host: Host) -> None:
    host.run("db", network_mode="bridge")
    host.run("web", network_mode="bridge", links=["db:data"])
    old = address(host, "db")
    host.containers.stop("db")
    host.containers.start("db")
    told = [line.partition("\t")[0] for line in lines(host) if "\tdata " in line]
    assert told == [address(host, "db")] != [old]
