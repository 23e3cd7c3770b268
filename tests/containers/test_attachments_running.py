"""Networks come and go while a container runs: its files and its ports follow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from drivers.spec import DriverError
from netd.core.errors import NetdError
from netd.core.filters import Filters
from netd.model.containers import PortBinding
from tests.containers.attaching import (
    EPHEMERAL,
    connect,
    disconnect,
    lines,
    members_of,
    network,
    networks,
    path,
    sandbox,
)
from tests.containers.conftest import Host


def test_the_hosts_file_has_a_line_for_each_address_while_there_is_one(host: Host) -> None:
    host.run(network_mode="bridge")
    path(host, "hosts").write_text(path(host, "hosts").read_text() + "10.1.1.1\tmine\n")
    before = lines(host)
    connect(host, "blue")
    endpoint = sandbox(host).endpoints[1]
    assert lines(host) == [*before, f"{endpoint.addresses[0]}\t{host.record().id[:12]}"]
    disconnect(host, "blue")
    assert lines(host) == before


def test_a_last_line_that_a_user_did_not_end_stays_as_it_is(host: Host) -> None:
    host.run(network_mode="bridge")
    before = lines(host)
    path(host, "hosts").write_text("\n".join([*before, "10.1.1.1\tmine"]))
    connect(host, "blue")
    assert lines(host)[:-1] == [*before, "10.1.1.1\tmine"]
    disconnect(host, "blue")
    assert lines(host) == [*before, "10.1.1.1\tmine"]


def test_resolv_conf_is_rewritten_when_the_container_begins_to_resolve(host: Host) -> None:
    host.run(network_mode="bridge")
    inode = path(host, "resolv.conf").stat().st_ino
    assert "nameserver 127.0.0.11" not in lines(host, "resolv.conf")
    connect(host, "blue")
    assert "nameserver 127.0.0.11" in lines(host, "resolv.conf")
    assert path(host, "resolv.conf").stat().st_ino == inode


def test_resolv_conf_is_left_alone_if_the_container_resolved_before(host: Host) -> None:
    host.run(network_mode="blue")
    network(host, "shop")
    before = path(host, "resolv.conf").stat().st_mtime_ns
    connect(host, "shop")
    assert path(host, "resolv.conf").stat().st_mtime_ns == before


def test_published_ports_that_had_no_way_in_get_one_with_a_network_that_leads_out(host: Host) -> None:
    network(host, "inner", internal=True)
    host.run(network_mode="inner", port_bindings=EPHEMERAL)
    assert not sandbox(host).published
    connect(host, "blue")
    (port,) = sandbox(host).published
    there = host.world.kernel.sandboxes[sandbox(host).id].endpoints
    assert [forward.host_port for endpoint in there for forward in endpoint.ports] == [port.host_port]


def test_published_ports_keep_their_numbers_when_networks_come_and_go(host: Host) -> None:
    host.run(network_mode="bridge", port_bindings=EPHEMERAL)
    before = sandbox(host).published
    connect(host, "blue")
    disconnect(host, "bridge")
    assert sandbox(host).published == before != ()


def test_a_connection_that_fails_takes_neither_address_nor_port(host: Host) -> None:
    network(host, "inner", internal=True)
    host.run(network_mode="inner", port_bindings=EPHEMERAL)
    broken = host.world.calls.broken
    broken.add("Kernel.ensure_sandbox")
    with pytest.raises(DriverError):
        connect(host, "blue")
    broken.clear()
    assert not host.world.daemon.ports_held()
    assert not members_of(host, "blue")
    connect(host, "blue")
    assert host.world.daemon.ports_held() == {sandbox(host).id}


def test_a_port_that_is_not_to_be_had_is_no_connection(host: Host) -> None:
    network(host, "inner", internal=True)
    host.run("holder", port_bindings=EPHEMERAL)
    taken = str(sandbox(host, "holder").published[0].host_port)
    host.run(network_mode="inner", port_bindings={"80/tcp": [PortBinding(host_port=taken)]})
    with pytest.raises(NetdError, match="port is already allocated"):
        connect(host, "blue")
    assert networks(host) == ({"inner"}, {"inner"})
    assert members_of(host, "blue") == {"holder"}


def test_connecting_and_disconnecting_are_told_once_each(host: Host) -> None:
    host.run(network_mode="bridge")
    connect(host, "blue")
    disconnect(host, "blue")
    with host.world.daemon.events.subscribe(Filters({"network": frozenset(["blue"])}), 0, None) as events:
        told = [(event["Action"], event["Actor"]["Attributes"].get("container")) for event in events._backlog]
    assert told[1:] == [("connect", host.record().id), ("disconnect", host.record().id)]


def _as_directory(file: Path) -> None:
    file.unlink()
    file.mkdir()


def _as_noise(file: Path) -> None:
    file.write_bytes(b"\xff\xfe\x00 no text\n")


@pytest.mark.parametrize("broken", [Path.unlink, _as_directory, _as_noise], ids=["gone", "a directory", "noise"])
@pytest.mark.parametrize("name", ["hosts", "resolv.conf", "resolv.conf.hash"])
def test_what_a_container_made_of_its_files_is_no_failure(
    host: Host, name: str, broken: Callable[[Path], None]
) -> None:
    host.run(network_mode="bridge")
    broken(path(host, name))
    connect(host, "blue")
    assert networks(host) == ({"bridge", "blue"}, {"bridge", "blue"})
    disconnect(host, "blue")
    assert networks(host) == ({"bridge"}, {"bridge"})


def test_a_hosts_file_that_cannot_be_changed_does_not_keep_the_container_from_resolving(host: Host) -> None:
    host.run(network_mode="bridge")
    _as_directory(path(host, "hosts"))
    connect(host, "blue")
    assert "nameserver 127.0.0.11" in lines(host, "resolv.conf")
