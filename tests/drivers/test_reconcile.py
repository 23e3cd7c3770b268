"""The kernel is a projection: what is missing comes back, what is left over goes, what is others' stays."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import socket
from collections.abc import Callable
from dataclasses import replace

import pytest

from drivers import bridge, netns
from drivers.names import veth_name
from drivers.spec import DnsPorts, DriverError, Sandbox
from tests.drivers.world import HOST_IP, OUTSIDE_IP, Container, World, opened, publish, sh

pytestmark = pytest.mark.root

FOREIGN_TABLE = """table inet docker {
    chain forward {
        type filter hook forward priority 0; policy accept;
    }
}"""


def snapshot(world: World) -> str:
    """All that is in the kernel of the host and of the sandboxes, without what changes by itself."""
    links = "ip -o link | grep -v ' gone' | sed 's/@.*//'"
    ask = f"{links}; ip -o addr | grep -v 'inet6 fe80'; ip route; ip -6 route; nft list ruleset"
    parts = [sh(ask), *(world.inside(container.path, ask) for container in world.containers)]
    return "\n".join(parts)


@pytest.fixture
def shop(world: World) -> Container:
    """A network with a container that publishes a port, watched."""
    network = world.network("shop")
    made = world.container(network, ports=(publish(8080, 80),), dns=DnsPorts(5301, 5302))
    world.run(world.kernel.watch())
    return made


def device(container: Container) -> str:
    return veth_name(container.sandbox.endpoints[0].id)


def bridge_of(world: World) -> str:
    return bridge.parse_options(next(iter(world.networks.values()))).device


def works(world: World, container: Container) -> bool:
    return (
        world.tcp(world.outside, container.path, HOST_IP, 8080, 80) == OUTSIDE_IP
        and world.tcp(container.path, world.outside, OUTSIDE_IP, 80) == HOST_IP
    )


# ---- somebody else breaks it ----------------------------------------------------------------------------

DAMAGE: dict[str, Callable[[World, Container], object]] = {
    "a veth is deleted": lambda world, web: sh(f"ip link del {device(web)}"),
    "a veth is taken off its bridge": lambda world, web: sh(f"ip link set {device(web)} nomaster"),
    "a veth is set down": lambda world, web: sh(f"ip link set {device(web)} down"),
    "the bridge is deleted": lambda world, web: sh(f"ip link del {bridge_of(world)}"),
    "the bridge is set down": lambda world, web: sh(f"ip link set {bridge_of(world)} down"),
    "the bridge's address is removed": lambda world, web: sh(f"ip addr flush dev {bridge_of(world)}"),
    "the table is deleted": lambda world, web: sh("nft delete table inet netd"),
    "the whole ruleset is flushed": lambda world, web: sh("nft flush ruleset"),
    "a rule is deleted": lambda world, web: sh("nft flush chain inet netd publish"),
    "an element is deleted": lambda world, web: sh("nft delete element inet netd ports4 '{ tcp . 8080 }'"),
    "a rule is added": lambda world, web: sh("nft insert rule inet netd forward drop"),
    "the container's interface is deleted from inside": lambda world, web: world.inside(web.path, "ip link del eth0"),
    "the container's interface is set down": lambda world, web: world.inside(web.path, "ip link set eth0 down"),
    "the container's address is removed": lambda world, web: world.inside(web.path, "ip addr flush dev eth0"),
    "the container's default route is removed": lambda world, web: world.inside(web.path, "ip route del default"),
    "the redirect to the resolver is flushed": lambda world, web: world.inside(web.path, "nft flush ruleset"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_it_is_as_before_within_a_second(
    world: World, shop: Container, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    world.eventually(lambda: works(world, shop))
    before, repairs = stable(snapshot(world)), world.kernel.repairs
    DAMAGE[damage](world, shop)
    assert stable(snapshot(world)) != before
    world.eventually(lambda: world.kernel.repairs > repairs, within=1.0)
    with contextlib.suppress(AssertionError):  # a new carrier may take the kernel a second more to act upon
        world.eventually(lambda: stable(snapshot(world)) == before, within=2.0)
    assert stable(snapshot(world)) == before
    assert works(world, shop)
    assert "repaired: " in caplog.text


def stable(text: str) -> str:
    """Without the numbers the kernel gives to devices, which a new device has anew."""
    text = re.sub(r"^\d+: ", "", text, flags=re.M)
    text = re.sub(r"link-netnsid \d+|link/ether \S+|valid_lft \S+|qlen \d+|\\.*$", "", text, flags=re.M)
    return "\n".join(sorted(text.splitlines()))


def test_what_a_container_adds_to_its_own_namespace_stays(world: World, shop: Container) -> None:
    world.inside(
        shop.path, "ip addr add 192.0.2.7/32 dev eth0; ip link add d0 type veth peer name d1; nft add table inet mine"
    )
    world.inside(shop.path, "ip route add 198.51.100.0/24 via 10.50.0.1")
    world.reconcile()
    assert "192.0.2.7" in world.inside(shop.path, "ip addr")
    assert "d0" in world.inside(shop.path, "ip link")
    assert "198.51.100.0" in world.inside(shop.path, "ip route")
    assert "mine" in world.inside(shop.path, "nft list tables")


def test_our_own_changes_are_not_taken_for_damage(
    world: World, shop: Container, caplog: pytest.LogCaptureFixture
) -> None:
    network = next(iter(world.networks.values()))
    for number in range(3):
        other = world.network(f"other{number}")
        made = world.container(network, other, ports=(publish(9000 + number, 80),))
        world.disconnect(made, network)
        world.connect(made, network)
        world.remove(made)
        world.containers.remove(made)
        world.run(world.kernel.remove_network(other.id))
        del world.networks[other.id]
    world.run(asyncio.sleep(0.3))
    assert world.kernel.repairs == 0
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


# ---- idempotence, restart, leftovers --------------------------------------------------------------------


def test_everything_may_be_asked_for_twice(world: World) -> None:
    network = world.network("shop", "10.50.0.0/24", "fd00:50::/64")
    web = world.container(network, ports=(publish(8080, 80), publish(9000, 9000, count=5)), dns=DnsPorts(5301, 5302))
    before = snapshot(world)
    world.run(world.kernel.ensure_network(network))
    world.ensure(web)
    assert snapshot(world) == before
    for _ in range(2):
        world.remove(web)
        world.run(world.kernel.remove_network(network.id))
    world.run(world.kernel.ensure_network(network))
    world.ensure(web)
    assert stable(snapshot(world)) == stable(before)


def test_a_new_daemon_finds_all_in_order_and_changes_nothing(world: World) -> None:
    network, vault = world.network("shop", "10.50.0.0/24", "fd00:50::/64"), world.network("vault", internal=True)
    web = world.container(network, vault, ports=(publish(8080, 80),), dns=DnsPorts(5301, 5302))
    before = snapshot(world)
    world.restart()
    assert world.reconcile().repaired == ()
    assert snapshot(world) == before
    world.remove(web)
    world.run(world.kernel.remove_network(network.id))
    world.run(world.kernel.remove_network(vault.id))
    world.eventually(lambda: "netd" not in sh("ip -o link"))


@pytest.mark.parametrize(
    "damage", ["insert rule inet netd forward drop", "flush map inet netd ports4", "flush ruleset"]
)
def test_a_new_daemon_notices_what_was_done_to_the_table_meanwhile(world: World, damage: str) -> None:
    network = world.network("shop")
    web = world.container(network, ports=(publish(8080, 80),))
    rules = sh("nft list ruleset")
    world.restart()
    sh(f"nft {damage}")
    assert world.reconcile().repaired == ("the nftables table was not as it should be",)
    assert sh("nft list ruleset") == rules
    assert web.ip in rules


def test_making_everything_at_the_first_start_is_no_reason_to_warn(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    network = world.describe("shop")
    web = world.describe_container(network)
    netns.create(web.path)
    world.networks[network.id] = network
    world.containers.append(web)
    assert world.reconcile().repaired
    assert world.kernel.repairs == 0
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


# ---- removal does not wait for the kernel ---------------------------------------------------------------


def test_nothing_is_left_in_a_namespace_that_outlives_its_sandbox(world: World) -> None:
    web = world.container(world.network("shop"))
    world.remove(web)
    assert f"master {bridge_of(world)}" not in sh("ip -o link")
    world.eventually(lambda: "gone" not in sh("ip -o link") and "eth0" not in world.inside(web.path, "ip -o link"))


def test_a_sandbox_and_a_network_can_be_made_again_at_once_under_their_names(world: World) -> None:
    network = world.network("shop")
    web = world.container(network, ports=(publish(8080, 80),))
    for _ in range(5):
        world.remove(web)
        world.run(world.kernel.remove_network(network.id))
        world.run(world.kernel.ensure_network(network))
        world.ensure(web)
    assert world.tcp(world.outside, web.path, HOST_IP, 8080, 80)
    world.eventually(lambda: "gone" not in sh("ip -o link"))
    assert world.tcp(world.outside, web.path, HOST_IP, 8080, 80)


def test_a_deletion_that_a_killed_daemon_began_is_finished(world: World) -> None:
    sh(f"ip link add gone7 type bridge; ip link set gone7 alias netd:{world.owner}:gone::")
    world.reconcile()
    world.eventually(lambda: "gone" not in sh("ip -o link"))


def test_established_connections_survive_a_new_daemon(world: World) -> None:
    web = world.container(world.network("shop"), ports=(publish(8080, 80),))
    with (
        opened(web.path, socket.AF_INET, socket.SOCK_STREAM) as listener,
        opened(world.outside, socket.AF_INET, socket.SOCK_STREAM) as asker,
    ):
        listener.bind(("", 80))
        listener.listen()
        asker.connect((HOST_IP, 8080))
        accepted, _ = listener.accept()
        world.restart()
        world.reconcile()
        asker.sendall(b"still here")
        assert accepted.recv(16) == b"still here"
        accepted.close()


def test_leftovers_of_a_killed_daemon_are_removed(world: World) -> None:
    kept = world.network("kept")
    stays = world.container(kept)
    empty = stable(snapshot(world))
    gone = world.network("gone")
    world.connect(stays, gone)
    lost = world.container(gone, ports=(publish(8080, 80),))
    world.disconnect(stays, gone)
    world.containers.remove(lost)
    del world.networks[gone.id]
    world.restart()
    assert world.reconcile().failed == ()
    assert stable(snapshot(world)) == empty
    netns.remove(lost.path)


def test_a_new_daemon_can_remove_what_it_never_saw(world: World) -> None:
    network = world.network("shop")
    web = world.container(network)
    world.restart()
    world.remove(web)
    world.run(world.kernel.remove_network(network.id))
    world.eventually(lambda: "netd" not in sh("ip -o link"))


def test_another_daemon_s_devices_and_other_tables_are_not_touched(world: World) -> None:
    sh("ip link add br-other type bridge; ip link set br-other alias netd:someone:network:ff:")
    sh("ip link add dummy7 type bridge")
    sh(f"nft -f - <<EOF\n{FOREIGN_TABLE}\nEOF")
    table = sh("nft list table inet docker")
    world.container(world.network("shop"), ports=(publish(8080, 80),))
    world.reconcile()
    world.run(world.kernel.reconcile([], []))
    links = sh("ip -o link")
    assert "br-other" in links and "dummy7" in links
    assert sh("nft list table inet docker") == table


def test_one_object_that_cannot_be_repaired_does_not_keep_the_others_from_it(world: World) -> None:
    network = world.network("shop")
    good, bad = world.container(network), world.container(network)
    sh(f"ip link del {device(good)}")
    netns.remove(bad.path)
    repairs = world.reconcile()
    assert [sentence for sentence in repairs.failed if bad.path in sentence]
    assert world.tcp(None, good.path, good.ip, 80)


# ---- adoption -------------------------------------------------------------------------------------------


def test_an_existing_bridge_is_adopted_and_outlives_the_network(world: World) -> None:
    sh("ip link add br7 type bridge; ip addr add 192.0.2.1/24 dev br7")
    network = world.network("shop", options={bridge.NAME: "br7"})
    web = world.container(network)
    assert world.tcp(None, web.path, web.ip, 80)
    world.remove(web)
    world.run(world.kernel.remove_network(network.id))
    addresses = sh("ip -o -4 addr show br7")
    assert "192.0.2.1" in addresses and "10.50.0.1" not in addresses


def test_a_device_that_is_no_bridge_is_refused(world: World) -> None:
    sh("ip link add d0 type veth peer name d1")
    network = world.describe("shop", options={bridge.NAME: "d0"})
    with pytest.raises(DriverError, match="not a bridge"):
        world.run(world.kernel.ensure_network(network))


# ---- a sandbox's changing networks ----------------------------------------------------------------------


def test_the_default_route_moves_to_the_gateway_endpoint(world: World) -> None:
    one, two = world.network("one"), world.network("two")
    web = world.container(one)
    world.connect(web, two)
    assert "default via 10.50.0.1 dev eth0" in world.inside(web.path, "ip route")
    second = web.sandbox.endpoints[1].id
    web.sandbox = replace(web.sandbox, gateway4=second)
    world.ensure(web)
    assert world.inside(web.path, "ip route show default").split()[:3] == ["default", "via", "10.51.0.1"]
    world.disconnect(web, one)
    assert "eth0" not in world.inside(web.path, "ip link")
    world.disconnect(web, two)
    assert world.inside(web.path, "ip -o link").count("\n") == 1
    assert "veth" not in sh("ip -o link")


def test_a_taken_interface_name_is_an_error_and_leaves_nothing(world: World) -> None:
    network = world.network("shop")
    web = world.describe_container(network)
    netns.create(web.path)
    world.containers.append(web)
    world.inside(web.path, "ip link add eth0 type bridge")
    with pytest.raises(DriverError, match=r'error renaming interface "veth\w{7}" to "eth0": file exists'):
        world.ensure(web)
    assert "veth" not in sh("ip -o link")


def test_a_namespace_that_does_not_exist_is_an_error(world: World) -> None:
    web = world.describe_container(world.network("shop"))
    with pytest.raises(DriverError, match="does not exist"):
        world.ensure(web)


def test_the_host_s_own_namespace_as_a_sandbox_is_left_alone(world: World) -> None:
    web = world.container(world.network("shop"), ports=(publish(8080, 80),))
    before = snapshot(world)
    world.run(world.kernel.ensure_sandbox(Sandbox("b" * 64, "/proc/self/ns/net")))
    world.run(world.kernel.remove_sandbox("b" * 64))
    assert snapshot(world) == before
    assert world.tcp(None, web.path, "127.0.0.1", 8080, 80)


def test_a_sandbox_can_be_removed_after_its_network(world: World) -> None:
    network = world.network("shop")
    web = world.container(network)
    world.run(world.kernel.remove_network(network.id))
    world.remove(web)
    assert "veth" not in sh("ip -o link")
