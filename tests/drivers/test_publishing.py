"""Published ports: from where they are reached, and from where not."""

from __future__ import annotations

import socket
import struct

import pytest

from drivers import bridge, netns
from drivers.netlink import attributes, messages
from drivers.nft import Nft
from tests.drivers.world import HOST_IP, HOST_IP6, OUTSIDE_IP, OUTSIDE_IP6, World, opened, publish, sh

pytestmark = pytest.mark.root


@pytest.fixture(params=[True, False], ids=["br_netfilter", "plain"])
def frames(request: pytest.FixtureRequest, world: World) -> bool:
    """Everything has to work whether or not the kernel shows bridged packets to the firewall."""
    for table in ("iptables", "ip6tables"):
        sh(f"echo {int(request.param)} > /proc/sys/net/bridge/bridge-nf-call-{table}")
    return bool(request.param)


@pytest.mark.parametrize("icc", ["true", "false"])
def test_a_port_is_reached_from_everywhere(world: World, frames: bool, icc: str) -> None:
    shop = world.network("shop", options={bridge.ICC: icc})
    web = world.container(shop, ports=(publish(8080, 80), publish(8080, 80, "udp")))
    sibling, stranger = world.container(shop), world.container(world.network("other"))
    for talk in (world.tcp, world.udp):
        assert talk(world.outside, web.path, HOST_IP, 8080, 80) == OUTSIDE_IP
        assert talk(None, web.path, HOST_IP, 8080, 80)
        assert talk(None, web.path, "127.0.0.1", 8080, 80) == "10.50.0.1"
        assert talk(None, web.path, "10.50.0.1", 8080, 80)
        assert talk(web.path, web.path, HOST_IP, 8080, 80), "from itself"
        assert talk(sibling.path, web.path, HOST_IP, 8080, 80), "from its own network"
        assert talk(sibling.path, web.path, "10.50.0.1", 8080, 80), "from its own network over the gateway"
        assert talk(stranger.path, web.path, HOST_IP, 8080, 80), "from another network"


def test_a_port_is_reached_over_ipv6(world: World, frames: bool) -> None:
    shop = world.network("shop", "10.50.0.0/24", "fd00:50::/64")
    web = world.container(shop, ports=(publish(8080, 80, host_ip="::"),))
    sibling = world.container(shop)
    assert world.tcp(world.outside, web.path, HOST_IP6, 8080, 80) == "2001:db8:113::2"
    assert world.tcp(None, web.path, HOST_IP6, 8080, 80)
    assert world.tcp(sibling.path, web.path, HOST_IP6, 8080, 80)
    assert world.tcp(web.path, web.path, HOST_IP6, 8080, 80)


def test_a_port_on_one_address_is_not_on_the_others(world: World) -> None:
    sh("ip addr add 203.0.113.77/24 dev up0")
    web = world.container(world.network("shop"), ports=(publish(8080, 80, host_ip="203.0.113.77"),))
    assert world.tcp(world.outside, web.path, "203.0.113.77", 8080, 80) == OUTSIDE_IP
    assert world.tcp(world.outside, web.path, HOST_IP, 8080, 80) is None
    assert world.tcp(None, web.path, "127.0.0.1", 8080, 80) is None


def test_a_port_or_a_range_on_one_ipv6_address(world: World) -> None:
    shop = world.network("shop", "10.50.0.0/24", "fd00:50::/64")
    web = world.container(shop, ports=(publish(8080, 80, host_ip=HOST_IP6), publish(9000, 9000, host_ip="::", count=9)))
    assert world.tcp(world.outside, web.path, HOST_IP6, 8080, 80) == OUTSIDE_IP6
    assert world.tcp(world.outside, web.path, HOST_IP6, 9008) == OUTSIDE_IP6
    assert world.tcp(None, web.path, "fd00:50::1", 8080, 80) is None


def test_the_host_s_own_ipv6_loopback_is_not_redirected(world: World) -> None:
    """The kernel does not route ::1 to a container, so a listener of the host keeps it."""
    world.container(world.network("shop", "10.50.0.0/24", "fd00:50::/64"), ports=(publish(8080, 80, host_ip="::"),))
    assert world.tcp(None, None, "::1", 8080)


@pytest.mark.parametrize("host_ip", ["127.0.0.1", "0.0.0.0"])
def test_a_neighbour_does_not_reach_the_host_s_loopback(world: World, host_ip: str) -> None:
    web = world.container(world.network("shop"), ports=(publish(8080, 80, host_ip=host_ip),))
    assert world.tcp(None, web.path, "127.0.0.1", 8080, 80)
    sh("sysctl -q net.ipv4.conf.all.route_localnet=1")  # as some other program may have set it
    world.inside(world.outside, "ip addr flush dev lo; sysctl -q net.ipv4.conf.all.route_localnet=1")
    world.inside(world.outside, f"ip route add 127.0.0.0/8 via {HOST_IP}")
    assert world.tcp(world.outside, web.path, "127.0.0.1", 8080, 80) is None
    world.inside(world.outside, f"ip route del 127.0.0.0/8; ip route add 127.0.0.1/32 via {HOST_IP}")
    assert world.udp(world.outside, web.path, "127.0.0.1", 8080, 80) is None


def test_a_published_container_is_still_not_reached_at_its_own_address(world: World) -> None:
    web = world.container(world.network("shop"), ports=(publish(8080, 80),))
    assert world.tcp(world.outside, web.path, web.ip, 80) is None


@pytest.mark.parametrize("container_port", [9000, 7000])
def test_a_range_leads_each_port_to_its_own(world: World, container_port: int) -> None:
    ports = (publish(9000, container_port, count=100), publish(9000, container_port, "udp", count=100))
    web = world.container(world.network("shop"), ports=ports)
    for offset in (0, 42, 99):
        assert world.tcp(world.outside, web.path, HOST_IP, 9000 + offset, container_port + offset) == OUTSIDE_IP
        assert world.udp(None, web.path, "127.0.0.1", 9000 + offset, container_port + offset)
    assert world.tcp(world.outside, web.path, HOST_IP, 9100, container_port + 100) is None


def test_removing_a_container_takes_its_ports_back(world: World) -> None:
    web = world.container(world.network("shop"), ports=(publish(8080, 80), publish(9000, 9000, count=10)))
    world.remove(web)
    assert "8080" not in sh("nft list table inet netd")
    assert "9000" not in sh("nft list table inet netd")


def test_a_udp_client_follows_a_port_to_the_next_container(world: World) -> None:
    """The connection tracker would go on sending a client's datagrams to the container that is gone."""
    shop = world.network("shop")
    first = world.container(shop, ports=(publish(5000, 53, "udp"),))
    with opened(world.outside, socket.AF_INET, socket.SOCK_DGRAM) as asker:
        asker.bind((OUTSIDE_IP, 4000))
        asker.sendto(b"early", (HOST_IP, 5000))
        with opened(first.path, socket.AF_INET, socket.SOCK_DGRAM) as server:
            server.bind(("", 53))
            asker.sendto(b"one", (HOST_IP, 5000))
            assert server.recv(16) == b"one"
        world.remove(first)
        asker.sendto(b"nobody there", (HOST_IP, 5000))
        second = world.container(shop, ports=(publish(5000, 53, "udp"),))
        with opened(second.path, socket.AF_INET, socket.SOCK_DGRAM) as server:
            server.bind(("", 53))
            asker.sendto(b"two", (HOST_IP, 5000))
            assert server.recv(16) == b"two"


def test_publishing_fifty_ports_takes_one_transaction(world: World) -> None:
    shop = world.network("shop")
    container = world.describe_container(shop, ports=tuple(publish(9000 + n, 80 + n) for n in range(50)))
    netns.create(container.path)
    world.containers.append(container)
    before = _generation()
    world.ensure(container)
    assert _generation() == before + 1


def test_the_number_of_rules_does_not_grow(world: World) -> None:
    world.network("first")
    rules = _rules()
    for number in range(3):
        shop = world.network(f"shop{number}")
        world.container(shop, ports=tuple(publish(9000 + 100 * number + n, 80) for n in range(10)))
    assert _rules() == rules


def test_a_port_can_move_to_another_container_before_the_first_is_removed(world: World) -> None:
    shop = world.network("shop")
    first = world.container(shop, ports=(publish(8080, 80),))
    second = world.container(shop, ports=(publish(8080, 81),))
    world.remove(first)
    assert world.tcp(world.outside, second.path, HOST_IP, 8080, 81) == OUTSIDE_IP


def _rules() -> int:
    with Nft() as nft:
        return sum("rule" in thing for thing in nft.listing("list table inet netd"))


def _generation() -> int:
    """How many transactions nftables has seen in this namespace (NFT_MSG_GETGEN)."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12) as asker:
        asker.send(struct.pack("=IHHIIBBH", 20, 10 << 8 | 16, 1, 1, 0, 0, 0, 0))
        _, _, _, body = next(messages(asker.recv(4096)))
        return int(struct.unpack(">I", attributes(body, 4)[1])[0])
