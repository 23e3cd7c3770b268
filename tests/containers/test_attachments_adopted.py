"""A container's new name in every table, and what a killed daemon left half-way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from msgspec.structs import replace

from drivers.spec import DriverError
from kvstore.contract import StoreUnavailable
from netd.core.errors import NetdError
from netd.model.networks import (
    EndpointIPAMConfig,
    EndpointSettings,
    NetworkConnect,
    NetworkDisconnect,
)
from netd.overlays.gateway import NETWORK as GATEWAY
from tests.containers.attaching import (
    EPHEMERAL,
    attachments,
    connect,
    members_of,
    names_on,
    network,
    networks,
    sandbox,
)
from tests.containers.conftest import Host
from tests.fakes.world import World

# ---- names ----------------------------------------------------------------------------------------------


class Clustered(Host):
    """A host with the network far, which other hosts are on too, besides blue."""

    def __init__(self, root: Path) -> None:
        self.world = World(root, clustered=True)
        self.world.cluster.networks.make_elsewhere("far", "10.9.0.0/24")
        self.world.run(self.world.cluster.networks.refresh())
        network(self, "blue")


@pytest.fixture
def clustered(tmp_path: Path) -> Iterator[Host]:
    made = Clustered(tmp_path / "data")
    yield made
    made.world.close()


def shown(host: Host) -> dict[str, set[str]]:
    """What a running container is called in each table."""
    daemon, cluster = host.world.daemon, host.world.cluster
    members = [m for live in daemon.networks.live.values() for m in live.members.values()]
    return {
        "sandbox": {sandbox(host).name},
        "members": {member.container for member in members},
        "cluster": {endpoint.name for endpoint in cluster.endpoints.own.values()},
        **{f"names on {each}": names_on(host, each) & {"web", "store"} for each in ("blue", "far")},
    }


def everywhere(name: str) -> dict[str, set[str]]:
    return {table: {name} for table in ("sandbox", "members", "cluster", "names on blue", "names on far")}


def test_a_new_name_replaces_the_old_one_in_every_table(clustered: Host) -> None:
    clustered.run()
    connect(clustered, "far", EndpointSettings(aliases=["www"]))
    assert shown(clustered) == everywhere("web")
    clustered.world.run(attachments(clustered).rename(replace(clustered.record(), name="store")))
    assert shown(clustered) == everywhere("store")
    assert "www" in names_on(clustered, "far")


@pytest.mark.parametrize(
    ("broken", "error"), [("Store.cas", StoreUnavailable), ("Endpoints.put", NetdError)], ids=["store", "cluster"]
)
def test_a_new_name_that_is_refused_is_in_no_table(clustered: Host, broken: str, error: type[Exception]) -> None:
    clustered.run()
    connect(clustered, "far")
    clustered.world.calls.broken.add(broken)
    with pytest.raises(error):
        clustered.world.run(attachments(clustered).rename(replace(clustered.record(), name="store")))
    clustered.world.calls.broken.clear()
    assert shown(clustered) == everywhere("web")


def test_a_container_that_does_not_run_is_in_no_table(host: Host) -> None:
    host.create()
    host.world.run(attachments(host).rename(replace(host.record(), name="store")))
    assert names_on(host, "blue") == set()


# ---- what a killed daemon left half-way -----------------------------------------------------------------


def killed_when_stored(host: Host, work: object, stored: Callable[[], bool]) -> None:
    """The daemon is killed just when the container's record says what is to be; then there is another one."""
    host.world.loop.create_task(work)
    while not stored():
        assert host.world.loop.step() is not None, "it never comes about"
    host.world.restart_daemon()


def stored_record(host: Host) -> str:
    return next(iter(host.world.store.under("containers").values())).decode()


def test_a_rename_is_carried_through(host: Host) -> None:
    host.run()
    work = host.world.daemon.containers.rename("web", "store")
    killed_when_stored(host, work, lambda: '"store"' in stored_record(host))
    assert sandbox(host, "store").name == "store"
    assert {"web", "store"} & names_on(host, "blue") == {"store"}


def test_a_connection_was_none(host: Host) -> None:
    host.run(network_mode="bridge")
    (config,) = host.world.daemon.networks.by_name("blue").record.ipam.config or []
    free = [str(address) for address in ip_network(config.subnet).hosts() if str(address) != config.gateway]
    asked = EndpointIPAMConfig(ipv4_address=free[2])
    body = NetworkConnect(container="web", endpoint_config=EndpointSettings(ipam_config=asked))
    work = host.world.daemon.containers.connect("blue", body)
    killed_when_stored(host, work, lambda: '"blue"' in stored_record(host))
    assert networks(host) == ({"bridge"}, {"bridge"})
    names = [f"n{number}" for number in range(len(free))]
    for name in names:
        host.run(name)
    assert sorted(sandbox(host, name).endpoints[0].addresses[0] for name in names) == sorted(free)


def test_a_disconnection_is_carried_through(host: Host) -> None:
    host.run(network_mode="bridge")
    connect(host, "blue")
    work = host.world.daemon.containers.disconnect("blue", NetworkDisconnect(container="web"))
    killed_when_stored(host, work, lambda: '"blue"' not in stored_record(host))
    assert networks(host) == ({"bridge"}, {"bridge"})
    assert names_on(host, "blue") == set()
    assert not members_of(host, "blue")


def test_what_runs_as_it_should_is_left_as_it_is(host: Host) -> None:
    host.run(port_bindings=EPHEMERAL)
    record, there = host.record(), sandbox(host)
    assert host.world.run(attachments(host).adopt(record)) is record
    assert sandbox(host) is there


def test_a_global_network_that_is_lost_stays_among_the_settings(clustered: Host) -> None:
    clustered.run()
    connect(clustered, "far")
    endpoint = next(e for e in sandbox(clustered).endpoints if e.network == "far")
    clustered.world.run(attachments(clustered).lose(clustered.record(), endpoint.id))
    clustered.world.restart_daemon()
    assert set(clustered.record().networks) == {"blue", "far"}


@pytest.mark.parametrize("step", ["Namespaces.unpin", "Store.delete"])
def test_what_is_left_of_an_earlier_run_takes_nothing_from_this_one(clustered: Host, step: str) -> None:
    """On an overlay a container gets its endpoint back, with its id: the tear-down that stayed undone has it too."""
    clustered.run(network_mode="far")
    clustered.world.calls.broken.add(step)
    clustered.containers.stop("web")
    clustered.after(1)
    clustered.world.kill_daemon()
    clustered.world.run(clustered.world.daemon.load())
    clustered.containers.start("web")
    clustered.after(3)
    assert "web" in names_on(clustered, "far")
    clustered.world.calls.broken.clear()
    clustered.after(120)
    assert "web" in names_on(clustered, "far")
    assert len(clustered.world.kernel.sandboxes) == 1


def test_an_address_is_free_only_when_nobody_has_it_any_more(host: Host) -> None:
    """What an earlier run left undone is undone by the next daemon, when the address is another container's."""
    host.run("old")
    (left,) = host.world.namespaces.present
    address = sandbox(host, "old").endpoints[0].ipv4
    unpin = host.world.namespaces.unpin

    async def busy(path: str) -> None:
        if path == left:
            raise DriverError("device or resource busy")
        await unpin(path)

    host.world.namespaces.unpin = busy  # type: ignore[method-assign]
    host.containers.remove("old", force=True, volumes=False, link=False)
    settings = EndpointSettings(ipam_config=EndpointIPAMConfig(ipv4_address=address.partition("/")[0]))
    host.create("new")
    host.containers.disconnect("blue", NetworkDisconnect(container="new"))
    host.containers.connect("blue", NetworkConnect(container="new", endpoint_config=settings))
    host.containers.start("new")
    host.world.restart_daemon()
    host.after(5)
    assert sandbox(host, "new").endpoints[0].ipv4 == address
    space = host.world.daemon.networks.by_name("blue").addresses.spaces[0]
    assert space.in_use(ip_address(address.partition("/")[0]))


def test_a_network_that_was_given_by_its_id_before_this_host_knew_of_it_is_one_of_the_containers(
    clustered: Host,
) -> None:
    new = clustered.world.cluster.networks.make_elsewhere("new", "10.8.0.0/24").id
    clustered.run(network_mode=new)
    shown = clustered.containers.inspect("web")["NetworkSettings"]["Networks"]
    assert list(shown) == ["new"] and shown["new"]["IPAddress"]
    clustered.world.restart_daemon()
    clustered.after(1)
    assert networks(clustered) == ({"new"}, {"new", GATEWAY})
    clustered.containers.disconnect("new", NetworkDisconnect(container="web"))
    assert networks(clustered) == (set(), set())
