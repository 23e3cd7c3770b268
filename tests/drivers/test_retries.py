"""What could not be put right is tried again, always, until it is right or no longer wanted."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from drivers import bridge, netns
from drivers.nft import Nft
from drivers.projection import Projection, Repairs
from drivers.spec import Network, PortForward
from tests.drivers.hosts import Hosts
from tests.drivers.world import HOST_IP, OUTSIDE_IP, Container, World, publish, sh

pytestmark = pytest.mark.root

OBSTACLE = "type veth peer name"  # a device that is no bridge, where a bridge should be


@pytest.fixture
def hosts(own_namespace: None, tmp_path: Path) -> Iterator[Hosts]:
    made = Hosts(tmp_path, 2)
    yield made
    made.close()


def wanted(world: World, device: str) -> Network:
    """A network with a bridge of this name that the next reconcile is to make."""
    network = world.describe(device, options={bridge.NAME: device})
    world.networks[network.id] = network
    return network


def published(world: World, network: Network, *ports: PortForward) -> Container:
    """A container with a port, or these, that the next reconcile is to connect."""
    web = world.describe_container(network, ports=ports or (publish(8080, 80),))
    netns.create(web.path)
    world.containers.append(web)
    return web


def serves(world: World, web: Container) -> bool:
    return world.tcp(world.outside, web.path, HOST_IP, 8080, 80) == OUTSIDE_IP


def tries(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.getMessage().startswith("trying again")]


def told(caplog: pytest.LogCaptureFixture, words: str) -> int:
    """How often it was told that something could not be put right."""
    return sum(record.levelno >= logging.WARNING and words in record.getMessage() for record in caplog.records)


def device_line(device: str) -> str:
    """Its number, name and state."""
    return sh(f"ip -o link show {device}")


# ---- what is tried again --------------------------------------------------------------------------------


def test_what_could_not_be_made_at_the_start_is_made_as_soon_as_it_can_be(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "drivers")
    web = published(world, wanted(world, "shop0"))
    sh(f"ip link add shop0 {OBSTACLE} other0")
    assert "not a bridge" in " ".join(world.reconcile().failed)
    world.run(world.kernel.watch())
    sh("ip link del shop0")
    world.eventually(lambda: "eth0 was missing" in caplog.text)
    assert serves(world, web)
    assert world.kernel.repairs == 0  # nobody has broken anything
    assert not [record for record in caplog.records if record.levelno == logging.WARNING]


def test_what_could_not_be_repaired_is_repaired_as_soon_as_it_can_be(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    web = published(world, wanted(world, "shop0"))
    world.reconcile()
    world.run(world.kernel.watch())
    sh(f"ip link del shop0; ip link add shop0 {OBSTACLE} other0")
    world.eventually(lambda: "not a bridge" in caplog.text)
    sh("ip link set shop0 name other1")  # which is no device of ours, so that there is no reason to look
    world.eventually(lambda: world.kernel.repairs > 0 and serves(world, web))


def test_a_table_that_could_not_be_written_is_written_as_soon_as_it_can_be(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "drivers")
    web = published(world, wanted(world, "shop0"))
    with Nft() as other:
        other.run("add table inet netd { flags owner; }")  # nobody else may change it
        assert "nftables refused" in " ".join(world.reconcile().failed)
    world.run(world.kernel.watch())
    world.eventually(lambda: "nftables table was not" in caplog.text)
    assert serves(world, web)
    assert world.kernel.repairs == 0


def test_ports_that_are_in_each_other_s_way_are_published_one_after_the_other_and_keep_no_others_from_it(
    world: World,
) -> None:
    network = wanted(world, "shop0")
    first, web = published(world, network, publish(7000, 7000, count=10)), published(world, network)
    second = published(world, network, publish(7005, 7005, count=10))
    assert "nftables refused" in " ".join(world.reconcile().failed)
    assert serves(world, web)
    assert world.tcp(world.outside, first.path, HOST_IP, 7005)
    world.run(world.kernel.watch())
    world.remove(first)
    world.eventually(lambda: world.tcp(world.outside, second.path, HOST_IP, 7005) == OUTSIDE_IP)


def test_a_device_that_could_not_be_removed_is_removed_later_and_nothing_that_was_made_meanwhile(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "drivers")
    lost = bridge.parse_options(world.network("lost")).device
    index = device_line(lost).split(":")[0]
    sh(f"ip link add gone{index} type bridge")  # somebody else's, under the name that ours is to have in the end
    world.networks.clear()
    world.restart()
    assert f"take device {lost} out of service" in " ".join(world.reconcile().failed)
    web = world.container(world.network("new", options={bridge.NAME: "new0"}))
    before = device_line("new0")
    world.run(world.kernel.watch())
    sh(f"ip link del gone{index}")
    world.eventually(lambda: f"device {lost} belonged" in caplog.text)
    world.eventually(lambda: lost not in sh("ip -o link") and "gone" not in sh("ip -o link"))
    assert device_line("new0") == before
    assert world.tcp(None, web.path, web.ip, 80)
    assert world.kernel.repairs == 0


def test_one_device_that_cannot_be_removed_does_not_keep_others_from_being_removed(world: World) -> None:
    devices = [bridge.parse_options(world.network(name)).device for name in ("one", "two")]
    index = device_line(devices[0]).split(":")[0]
    sh(f"ip link add gone{index} type bridge")
    world.networks.clear()
    world.restart()
    assert world.reconcile().failed
    world.eventually(lambda: devices[1] not in sh("ip -o link"))


def test_an_overlay_s_namespace_that_could_not_be_removed_is_removed_later(hosts: Hosts) -> None:
    host = hosts.hosts[0]
    lost = hosts.join(host, hosts.describe("lost", ("10.60.0.0/24", 300)), "10.60.0.10")
    host.members.remove(lost)
    host.networks.clear()
    hosts.restart(host)
    sh(f"mount --bind {host.overlays} {host.overlays}; mount -o remount,bind,ro {host.overlays}")
    try:
        assert "cannot remove network namespace" in " ".join(hosts.reconcile(host).failed)
    finally:
        sh(f"umount {host.overlays}")
    hosts.run(host.kernel.watch())
    hosts.eventually(lambda: not list(host.overlays.iterdir()))
    netns.remove(lost.sandbox.netns)


def test_an_overlay_that_is_made_late_has_the_peers_that_were_told_meanwhile(hosts: Hosts) -> None:
    network = hosts.describe("shop", ("10.60.0.0/24", 300))
    a, b = hosts.hosts
    one, two = hosts.join(a, network, "10.60.0.10"), hosts.join(b, network, "10.60.0.11")
    hosts.run(a.kernel.remove_network(network.id))
    hosts.restart(a)
    a.run(f"ip addr del {a.vtep}/24 dev eth0")
    assert len(hosts.reconcile(a).failed) == 2
    hosts.run(a.kernel.ensure_peers(network.id, hosts.peers(a, network)))
    three = hosts.join(b, network, "10.60.0.12")
    hosts.run(a.kernel.watch())
    a.run(f"ip addr add {a.vtep}/24 dev eth0")
    hosts.eventually(lambda: one.pings(two.ip) and one.pings(three.ip))


def test_a_repair_that_breaks_off_is_tried_again(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    web = published(world, wanted(world, "shop0"))
    world.reconcile()
    world.run(world.kernel.watch())
    good = Projection.repair

    def broken(projection: Projection, suspects: set[str]) -> Repairs:
        raise RuntimeError("nobody has foreseen this")

    monkeypatch.setattr(Projection, "repair", broken)
    sh("ip link del shop0")
    world.eventually(lambda: told(caplog, "nobody has foreseen this") == 1)
    monkeypatch.setattr(Projection, "repair", good)
    world.eventually(lambda: world.kernel.repairs > 0 and serves(world, web))


# ---- how often, and how long ----------------------------------------------------------------------------


def test_a_failure_is_told_once_however_often_it_is_tried_until_it_has_succeeded(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "drivers")
    wanted(world, "shop0")
    sh(f"ip link add shop0 {OBSTACLE} other0")
    world.reconcile()
    world.run(world.kernel.watch())
    world.eventually(lambda: len(tries(caplog)) == 2)
    assert tries(caplog)[1].created - tries(caplog)[0].created > 0.9  # twice as long as until the first
    sh("ip link del shop0")
    world.eventually(lambda: "bridge shop0 was missing" in caplog.text)
    assert told(caplog, "not a bridge") == 1
    sh(f"ip link del shop0; ip link add shop0 {OBSTACLE} other0")
    world.eventually(lambda: told(caplog, "not a bridge") == 2)
    before = len(tries(caplog))
    world.eventually(lambda: len(tries(caplog)) > before, within=3)  # after half a second, and not after four


def test_what_is_no_longer_wanted_is_not_tried_again(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "drivers")
    left, kept = wanted(world, "left0"), wanted(world, "kept0")
    sh(f"ip link add left0 {OBSTACLE} other0; ip link add kept0 {OBSTACLE} other1")
    assert len(world.reconcile().failed) == 2
    world.run(world.kernel.remove_network(left.id))
    sh("ip link del left0")
    world.run(world.kernel.watch())
    world.eventually(lambda: len(tries(caplog)) == 2)
    assert tries(caplog)[1].getMessage() == f"trying again: {kept.id[:12]}"
    assert "left0" not in sh("ip -o link")


def test_a_daemon_that_ends_tries_nothing_again(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "drivers")
    wanted(world, "shop0")
    sh(f"ip link add shop0 {OBSTACLE} other0")
    world.reconcile()
    world.run(world.kernel.watch())
    world.restart()
    with contextlib.suppress(AssertionError):
        world.eventually(lambda: bool(tries(caplog)), within=0.7)
    assert not tries(caplog)
