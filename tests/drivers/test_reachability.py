"""Who reaches whom over bridge networks without published ports."""

from __future__ import annotations

import socket
from dataclasses import replace
from ipaddress import ip_interface

import pytest

from drivers import bridge
from tests.drivers.world import HOST_IP, OUTSIDE_IP, OUTSIDE_IP6, World, opened, sh

pytestmark = pytest.mark.root

V6 = "fd00:50::/64"


def test_containers_of_one_network_reach_each_other(world: World) -> None:
    shop = world.network("shop")
    web, db = world.container(shop), world.container(shop)
    assert world.tcp(web.path, db.path, db.ip, 80) == web.ip
    assert world.udp(db.path, web.path, web.ip, 80) == db.ip


def test_containers_of_one_network_reach_each_other_over_ipv6(world: World) -> None:
    shop = world.network("shop", "10.50.0.0/24", V6)
    web, db = world.container(shop), world.container(shop)
    assert world.tcp(web.path, db.path, db.ip6, 80) == web.ip6


def test_containers_of_different_networks_do_not_reach_each_other(world: World) -> None:
    web, db = world.container(world.network("one")), world.container(world.network("two"))
    assert world.tcp(web.path, db.path, db.ip, 80) is None


def test_a_container_on_two_networks_reaches_both(world: World) -> None:
    one, two = world.network("one"), world.network("two")
    web, db, proxy = world.container(one), world.container(two), world.container(one, two)
    assert world.tcp(proxy.path, web.path, web.ip, 80)
    assert world.tcp(proxy.path, db.path, db.ip, 80)


def test_the_outside_sees_the_host_s_address(world: World) -> None:
    web = world.container(world.network("shop", "10.50.0.0/24", V6))
    assert world.tcp(web.path, world.outside, OUTSIDE_IP, 80) == "203.0.113.1"
    assert world.udp(web.path, world.outside, OUTSIDE_IP6, 80) == "2001:db8:113::1"


def test_the_outside_sees_the_container_s_address_without_masquerade(world: World) -> None:
    web = world.container(world.network("shop", options={bridge.MASQUERADE: "false"}))
    assert world.tcp(web.path, world.outside, OUTSIDE_IP, 80) == web.ip


def test_the_outside_sees_the_address_chosen_for_the_network(world: World) -> None:
    sh("ip addr add 203.0.113.77/24 dev up0")
    web = world.container(world.network("shop", options={bridge.HOST_IPV4: "203.0.113.77"}))
    assert world.tcp(web.path, world.outside, OUTSIDE_IP, 80) == "203.0.113.77"


def test_the_outside_sees_the_ipv6_address_chosen_for_the_network(world: World) -> None:
    sh("ip addr add 2001:db8:113::77/64 dev up0 nodad")
    shop = world.network("shop", "10.50.0.0/24", V6, options={bridge.HOST_IPV6: "2001:db8:113::77"})
    web = world.container(shop)
    assert world.tcp(web.path, world.outside, OUTSIDE_IP6, 80) == "2001:db8:113::77"


def test_containers_of_two_subnets_of_one_network_see_each_other_s_addresses(world: World) -> None:
    shop = world.network("shop", "10.50.0.0/24", "10.51.0.0/24")
    web, db = world.container(shop), world.container(shop)
    moved = replace(db.sandbox.endpoints[0], ipv4=ip_interface("10.51.0.9/24"))
    db.sandbox = replace(db.sandbox, endpoints=(moved,))
    world.ensure(db)
    assert world.tcp(web.path, db.path, "10.51.0.9", 80) == web.ip


def test_the_outside_does_not_reach_a_container_directly(world: World) -> None:
    web = world.container(world.network("shop", "10.50.0.0/24", V6))
    assert world.tcp(world.outside, web.path, web.ip, 80) is None
    assert world.tcp(world.outside, web.path, web.ip6, 80) is None


def test_the_host_reaches_a_container_and_is_reached(world: World) -> None:
    web = world.container(world.network("shop", "10.50.0.0/24", V6))
    assert world.tcp(None, web.path, web.ip, 80) == "10.50.0.1"
    assert world.tcp(web.path, None, "10.50.0.1", 80) == web.ip
    assert world.tcp(web.path, None, "fd00:50::1", 80) == web.ip6


def test_an_internal_network_has_no_way_out_and_none_in(world: World) -> None:
    vault, shop = world.network("vault", internal=True), world.network("shop")
    one, two, web = world.container(vault), world.container(vault), world.container(shop)
    assert world.tcp(one.path, two.path, two.ip, 80) == one.ip
    assert "default" not in world.inside(one.path, "ip route")
    world.inside(one.path, "ip route add default via 10.50.0.1")  # even if it helps itself to one
    assert world.tcp(one.path, world.outside, OUTSIDE_IP, 80) is None
    assert world.tcp(one.path, web.path, web.ip, 80) is None
    assert world.tcp(web.path, one.path, one.ip, 80) is None
    assert world.tcp(world.outside, one.path, one.ip, 80) is None
    assert world.tcp(one.path, None, "10.50.0.1", 80) == one.ip


def test_not_even_another_program_s_rules_lead_into_an_internal_network(world: World) -> None:
    one = world.container(world.network("vault", internal=True))
    rule = f"tcp dport 8080 dnat to {one.ip}:80"
    sh("nft add table ip other; nft 'add chain ip other pre { type nat hook prerouting priority -110; }'")
    sh(f"nft add rule ip other pre {rule}")
    assert world.tcp(world.outside, one.path, HOST_IP, 8080, 80) is None


@pytest.mark.parametrize("frames_pass_the_firewall", [False, True])
def test_without_icc_containers_of_one_network_do_not_reach_each_other(
    world: World, frames_pass_the_firewall: bool
) -> None:
    for table in ("iptables", "ip6tables"):
        sh(f"echo {int(frames_pass_the_firewall)} > /proc/sys/net/bridge/bridge-nf-call-{table}")
    shop = world.network("shop", "10.50.0.0/24", V6, options={bridge.ICC: "false"})
    web, db = world.container(shop), world.container(shop)
    assert world.tcp(web.path, db.path, db.ip, 80) is None
    assert world.tcp(web.path, db.path, db.ip6, 80) is None
    world.inside(web.path, f"ip route add {db.ip} via 10.50.0.1")  # nor around by way of the gateway
    assert world.tcp(web.path, db.path, db.ip, 80) is None
    assert world.tcp(web.path, world.outside, OUTSIDE_IP, 80) == "203.0.113.1"


def test_a_container_cannot_speak_to_the_host_s_loopback(world: World) -> None:
    web = world.container(world.network("shop"))
    world.inside(web.path, "sysctl -q net.ipv4.conf.all.route_localnet=1; ip addr flush dev lo")
    world.inside(web.path, "ip route add 127.0.0.0/8 via 10.50.0.1")
    assert world.tcp(web.path, None, "127.0.0.1", 80) is None


def test_a_container_cannot_pass_for_the_host_s_loopback(world: World) -> None:
    web = world.container(world.network("shop"))
    world.inside(web.path, "sysctl -q net.ipv4.conf.all.route_localnet=1")
    with (
        opened(None, socket.AF_INET, socket.SOCK_DGRAM) as listener,
        opened(web.path, socket.AF_INET, socket.SOCK_DGRAM) as liar,
    ):
        listener.bind(("10.50.0.1", 99))
        liar.bind(("127.0.0.1", 99))
        liar.sendto(b"trust me", ("10.50.0.1", 99))
        with pytest.raises(TimeoutError):
            listener.recvfrom(16)


def test_interfaces_have_the_wanted_name_address_and_mtu(world: World) -> None:
    shop = world.network("shop", options={bridge.MTU: "1400"})
    web = world.container(shop)
    link = world.inside(web.path, "ip -o link show eth0")
    assert f"link/ether {web.sandbox.endpoints[0].mac}" in link
    assert "mtu 1400" in link
    assert f"inet {web.ip}/24" in world.inside(web.path, "ip -o addr show eth0")


def test_without_ipv6_an_interface_has_no_ipv6_address_at_all(world: World) -> None:
    web = world.container(world.network("shop"))
    assert "inet6" not in world.inside(web.path, "ip addr show eth0")
    assert "inet6 ::1" in world.inside(web.path, "ip addr show lo")


def test_ipv6_addresses_can_be_used_at_once(world: World) -> None:
    web = world.container(world.network("shop", "10.50.0.0/24", V6))
    assert "tentative" not in world.inside(web.path, "ip -6 addr show eth0")


def test_a_neighbour_learns_at_once_who_has_a_reused_address(world: World) -> None:
    shop = world.network("shop")
    first = world.container(shop)
    assert world.tcp(None, first.path, first.ip, 80)  # the host now knows the first holder's MAC
    world.remove(first)
    second = world.container(shop)
    taken = replace(second.sandbox.endpoints[0], id="f" * 64, ipv4=first.sandbox.endpoints[0].ipv4)
    second.sandbox = replace(second.sandbox, endpoints=(taken,), gateway4=taken.id)
    world.ensure(second)
    assert world.tcp(None, second.path, second.ip, 80)
