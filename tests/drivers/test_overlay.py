"""Overlay networks: containers of several hosts on one segment, and nothing of it left when they are gone."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import IPv4Interface, ip_address, ip_network
from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.l2 import Ether
from scapy.layers.vxlan import VXLAN

from drivers import bridge, netns
from drivers.spec import DriverError, InvalidOption, Network, Peer, Subnet
from tests.drivers.hosts import Host, Hosts, Member, peer
from tests.drivers.world import World, exchange, publish, sh

pytestmark = pytest.mark.root

_ALL_PROTOCOLS = socket.htons(3)  # ETH_P_ALL
POOL, POOL6 = "10.60.0.0/24", "fd00:60::/64"


@pytest.fixture
def make_hosts(own_namespace: None, tmp_path: Path) -> Iterator[Callable[..., Hosts]]:
    with contextlib.ExitStack() as stack:

        def make(count: int = 2, *, ipv6: bool = False, mtu: int = 1500) -> Hosts:
            made = Hosts(tmp_path, count, ipv6=ipv6, mtu=mtu)
            stack.callback(made.close)
            return made

        yield make


@pytest.fixture
def hosts(make_hosts: Callable[..., Hosts]) -> Hosts:
    return make_hosts()


# ---- who reaches whom -----------------------------------------------------------------------------------


def test_containers_of_different_hosts_reach_each_other_at_the_first_packet(hosts: Hosts) -> None:
    network = hosts.describe("shop", (POOL, 300))
    one, two = (hosts.join(host, network, f"10.60.0.1{n}") for n, host in enumerate(hosts.hosts))
    assert one.pings(two.ip) and two.pings(one.ip)


def test_three_hosts_and_two_containers_on_one_of_them(make_hosts: Callable[..., Hosts]) -> None:
    hosts = make_hosts(3)
    network = hosts.describe("shop", (POOL, 300))
    members = [hosts.join(hosts.hosts[n % 3], network, f"10.60.0.1{n}") for n in range(4)]
    assert all(a.pings(b.ip) for a in members for b in members if a is not b)


@pytest.mark.parametrize("ipv6_underlay", [False, True])
def test_ipv6_is_carried_over_both_kinds_of_underlay(make_hosts: Callable[..., Hosts], ipv6_underlay: bool) -> None:
    hosts = make_hosts(ipv6=ipv6_underlay)
    network = hosts.describe("shop", (POOL, 300), (POOL6, 300))
    one, two = (hosts.join(host, network, f"10.60.0.1{n}", f"fd00:60::1{n}") for n, host in enumerate(hosts.hosts))
    assert one.pings(two.ip) and two.pings(one.ip)
    assert one.pings(two.ip6) and two.pings(one.ip6)


@pytest.mark.parametrize(
    ("ipv6", "underlay", "option", "inner"),
    [(False, 1500, "", 1450), (True, 1500, "", 1430), (False, 9000, "", 8950), (False, 1500, "1400", 1350)],
)
def test_the_mtu_leaves_room_for_the_headers(
    make_hosts: Callable[..., Hosts], ipv6: bool, underlay: int, option: str, inner: int
) -> None:
    hosts = make_hosts(ipv6=ipv6, mtu=underlay)
    options = {"com.docker.network.driver.mtu": option} if option else {}
    network = hosts.describe("shop", (POOL, 300), options=options)
    one, two = (hosts.join(host, network, f"10.60.0.1{n}") for n, host in enumerate(hosts.hosts))
    assert f"mtu {inner} " in one.run("ip link show eth0")
    assert one.pings(two.ip, size=inner - 28)  # the largest packet, not to be fragmented


def test_overlays_with_the_same_subnet_do_not_mix(hosts: Hosts) -> None:
    first, second = hosts.describe("one", (POOL, 300)), hosts.describe("two", (POOL, 301))
    a, b = hosts.hosts
    a1, b1 = hosts.join(a, first, "10.60.0.10"), hosts.join(b, first, "10.60.0.11")
    a2, b2 = hosts.join(a, second, "10.60.0.10"), hosts.join(b, second, "10.60.0.12")
    assert a1.pings(b1.ip) and a2.pings(b2.ip)
    assert not a1.pings(b2.ip, wait=0.3) and not a2.pings(b1.ip, wait=0.3)


@pytest.mark.parametrize("vnis", [(300, 301), (300, 300)], ids=["a VNI each", "one VNI"])
def test_the_subnets_of_a_network_reach_each_other(hosts: Hosts, vnis: tuple[int, int]) -> None:
    network = hosts.describe("shop", (POOL, vnis[0]), ("10.61.0.0/24", vnis[1]))
    a, b = hosts.hosts
    one, near, far = (
        hosts.join(a, network, "10.60.0.10"),
        hosts.join(a, network, "10.61.0.10"),
        hosts.join(b, network, "10.61.0.11"),
    )
    assert one.pings(near.ip) and one.pings(far.ip) and far.pings(one.ip)


def test_on_the_wire_it_is_vxlan_with_its_number_on_port_4789(hosts: Hosts) -> None:
    network = hosts.describe("shop", (POOL, 4711))
    one, two = (hosts.join(host, network, f"10.60.0.1{n}") for n, host in enumerate(hosts.hosts))
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, _ALL_PROTOCOLS) as wire:
        wire.bind(("lan1", 0))
        assert one.pings(two.ip)
        packets = [Ether(frame) for frame in _received(wire)]
    sent = [packet for packet in packets if VXLAN in packet and packet[IP].src == one.host.vtep]
    assert len(sent) == 1, "no flooding, no ARP: the answers are known here"
    assert sent[0][IP].dst == two.host.vtep
    assert sent[0][UDP].dport == 4789
    assert sent[0][VXLAN].vni == 4711
    assert sent[0][VXLAN].payload[IP].dst == two.ip and ICMP in sent[0][VXLAN]


def _received(wire: socket.socket) -> Iterator[bytes]:
    with contextlib.suppress(BlockingIOError):
        while True:
            yield wire.recv(1 << 16)


def test_the_way_out_and_published_ports_are_those_of_a_second_endpoint(hosts: Hosts) -> None:
    a, b = hosts.hosts
    network = hosts.describe("shop", (POOL, 300))
    gateway = Network(
        id="9" * 64,
        name="docker_gwbridge",
        driver="bridge",
        subnets=(Subnet(ip_network("172.18.0.0/16"), ip_address("172.18.0.1")),),
        options={bridge.NAME: "docker_gwbridge", bridge.ICC: "false"},
    )
    hosts.run(a.kernel.ensure_network(gateway))
    one, near = hosts.join(a, network, "10.60.0.10"), hosts.join(a, network, "10.60.0.11")
    for number, member in enumerate((one, near), 2):
        exit_ = replace(
            member.endpoint,
            id=f"{number}" * 64,
            network_id=gateway.id,
            ifname="eth1",
            mac=f"02:42:ac:12:00:0{number}",
            ipv4=IPv4Interface(f"172.18.0.{number}/16"),
            ports=(publish(8080, 80),) if member is one else (),
        )
        member.sandbox = replace(member.sandbox, endpoints=(member.endpoint, exit_), gateway4=exit_.id)
        hosts.run(a.kernel.ensure_sandbox(member.sandbox))
    assert "default via 172.18.0.1 dev eth1" in one.run("ip route")
    assert exchange(b.path, one.sandbox.netns, a.vtep, 8080, 80, socket.SOCK_STREAM) == b.vtep
    assert exchange(one.sandbox.netns, b.path, b.vtep, 80, 80, socket.SOCK_STREAM) == a.vtep
    assert one.pings(near.ip) and not one.pings("172.18.0.3", wait=0.3)


# ---- peers come, go and move ----------------------------------------------------------------------------


@pytest.mark.parametrize("mac", ["", "02:42:77:77:77:77"], ids=["its MAC as before", "another MAC"])
def test_an_address_used_again_on_another_host_is_reachable_at_once(make_hosts: Callable[..., Hosts], mac: str) -> None:
    hosts = make_hosts(3)
    network = hosts.describe("shop", (POOL, 300), (POOL6, 300))
    a, b, c = hosts.hosts
    one = hosts.join(a, network, "10.60.0.10", "fd00:60::10")
    hosts.join(c, network, "10.60.0.12", "fd00:60::12")
    moved = hosts.join(b, network, "10.60.0.11", "fd00:60::11")
    assert one.pings(moved.ip) and one.pings(moved.ip6)
    hosts.leave(moved)
    moved = hosts.join(c, network, "10.60.0.11", "fd00:60::11", mac=mac)
    assert one.pings(moved.ip) and one.pings(moved.ip6)
    hosts.leave(moved)
    moved = hosts.join(a, network, "10.60.0.11", "fd00:60::11")
    assert one.pings(moved.ip) and one.pings(moved.ip6)


def test_the_late_farewell_of_a_moved_endpoint_does_no_harm(make_hosts: Callable[..., Hosts]) -> None:
    hosts = make_hosts(3)
    network = hosts.describe("shop", (POOL, 300))
    a, b, c = hosts.hosts
    one, old = hosts.join(a, network, "10.60.0.10"), hosts.join(b, network, "10.60.0.11")
    new = hosts.join(c, network, "10.60.0.11")
    assert one.pings(new.ip)
    hosts.run(a.kernel.remove_peer(network.id, old.endpoint.id))
    assert one.pings(new.ip)
    assert "192.0.2.2" not in a.run_in(network, "bridge fdb")


def test_a_local_endpoint_has_its_address_whatever_is_said_of_others(hosts: Hosts) -> None:
    network = hosts.describe("shop", (POOL, 300))
    a, b = hosts.hosts
    stale = hosts.join(b, network, "10.60.0.11")
    one, new = hosts.join(a, network, "10.60.0.10"), hosts.join(a, network, "10.60.0.11")
    assert "10.60.0.11" not in a.run_in(network, "ip neigh")
    hosts.run(a.kernel.ensure_peers(network.id, [peer(stale)]))
    hosts.run(a.kernel.put_peer(network.id, peer(stale)))
    assert "192.0.2.2" not in a.run_in(network, "bridge fdb")
    assert one.pings(new.ip)
    hosts.leave(new)
    assert "10.60.0.11" in a.run_in(network, "ip neigh") and one.pings(stale.ip)


def test_the_whole_set_of_peers_replaces_what_was_there(hosts: Hosts) -> None:
    network = hosts.describe("shop", (POOL, 300))
    a, b = hosts.hosts
    one, two = hosts.join(a, network, "10.60.0.10"), hosts.join(b, network, "10.60.0.11")
    hosts.run(a.kernel.ensure_peers(network.id, []))
    assert "192.0.2.2" not in a.run_in(network, "bridge fdb") and "10.60.0.11" not in a.run_in(network, "ip neigh")
    assert not one.pings(two.ip, wait=0.3)
    hosts.run(a.kernel.ensure_peers(network.id, [peer(two)]))
    assert one.pings(two.ip)


def test_a_thousand_peers_are_told_at_once(hosts: Hosts) -> None:
    network = hosts.describe("shop", ("10.60.0.0/16", 300))
    a, _ = hosts.hosts
    hosts.join(a, network, "10.60.0.10")
    many = [
        Peer(f"{n:064x}", f"02:42:0a:3c:{n >> 8:02x}:{n & 255:02x}", (ip_address(f"10.60.{n >> 8}.{n & 255}"),), VTEP)
        for n in range(1000, 2000)
    ]
    hosts.run(a.kernel.ensure_peers(network.id, many))
    assert a.run_in(network, "ip neigh show nud permanent").count("\n") == 1000
    hosts.run(a.kernel.ensure_peers(network.id, many[:10]))
    assert a.run_in(network, "ip neigh show nud permanent").count("\n") == 10


VTEP = ip_address("192.0.2.2")


def test_what_is_said_of_this_host_s_own_endpoints_is_left_out(hosts: Hosts) -> None:
    network = hosts.describe("shop", (POOL, 300))
    a, _ = hosts.hosts
    one, two = hosts.join(a, network, "10.60.0.10"), hosts.join(a, network, "10.60.0.11")
    hosts.run(a.kernel.ensure_peers(network.id, [peer(one), peer(two)]))
    hosts.run(a.kernel.put_peer(network.id, peer(two)))
    assert a.run_in(network, "ip neigh show nud permanent") == ""
    assert one.pings(two.ip)


def test_a_peer_that_cannot_be_reached_is_told_and_does_not_keep_the_others_out(
    hosts: Hosts, caplog: pytest.LogCaptureFixture
) -> None:
    network = hosts.describe("shop", (POOL, 300))
    a, b = hosts.hosts
    one, two = hosts.join(a, network, "10.60.0.10"), hosts.join(b, network, "10.60.0.11")
    other_family = Peer("e" * 64, "02:42:0a:3c:00:0c", (ip_address("10.60.0.12"),), ip_address("2001:db8::2"))
    elsewhere = Peer("f" * 64, "02:42:0a:3c:00:0d", (ip_address("10.99.0.13"),), VTEP)
    hosts.run(a.kernel.ensure_peers(network.id, [other_family, elsewhere, peer(two)]))
    hosts.run(a.kernel.put_peer(network.id, other_family))
    assert one.pings(two.ip)
    assert caplog.text.count("out of reach: its host is 2001:db8::2, this one 192.0.2.1") == 2
    assert "has no address of overlay network shop" in caplog.text


# ---- somebody else breaks it ----------------------------------------------------------------------------

DAMAGE: dict[str, Callable[[Host, Network, Member], object]] = {
    "a forwarding row of the VXLAN": lambda h, n, m: h.run_in(n, "bridge fdb del 02:42:0a:3c:00:0b dev vxlan300 self"),
    "a forwarding row of the bridge": lambda h, n, m: h.run_in(
        n, "bridge fdb del 02:42:0a:3c:00:0b dev vxlan300 master"
    ),
    "a forwarding row, led elsewhere": lambda h, n, m: h.run_in(
        n, "bridge fdb replace 02:42:0a:3c:00:0b dev vxlan300 dst 192.0.2.99 self static"
    ),
    "a neighbour, given another MAC": lambda h, n, m: h.run_in(
        n, "ip neigh replace 10.60.0.11 lladdr 02:42:00:00:00:99 nud permanent dev vxlan300"
    ),
    "a neighbour": lambda h, n, m: h.run_in(n, "ip neigh del 10.60.0.11 dev vxlan300"),
    "an IPv6 neighbour": lambda h, n, m: h.run_in(n, "ip neigh del fd00:60::11 dev vxlan300"),
    "all neighbours": lambda h, n, m: h.run_in(n, "ip neigh flush dev vxlan300 nud permanent"),
    "the VXLAN device": lambda h, n, m: h.run_in(n, "ip link del vxlan300"),
    "the VXLAN device, set down": lambda h, n, m: h.run_in(n, "ip link set vxlan300 down"),
    "the VXLAN device, off its bridge": lambda h, n, m: h.run_in(n, "ip link set vxlan300 nomaster"),
    "the bridge": lambda h, n, m: h.run_in(n, "ip link del br300"),
    "the bridge, set down": lambda h, n, m: h.run_in(n, "ip link set br300 down"),
    "the bridge's addresses": lambda h, n, m: h.run_in(n, "ip addr flush dev br300"),
    "the bridge's route": lambda h, n, m: h.run_in(n, "ip route del 10.60.0.0/24"),
    "a veth": lambda h, n, m: h.run_in(n, f"ip link del {m.device}"),
    "a veth, off its bridge": lambda h, n, m: h.run_in(n, f"ip link set {m.device} nomaster"),
    "the container's interface": lambda h, n, m: m.run("ip link del eth0"),
    "the container's route to its subnet": lambda h, n, m: m.run("ip route del 10.60.0.0/24"),
    "the container's route to another subnet": lambda h, n, m: m.run("ip route del 10.61.0.0/24"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_deleted_by_hand_is_back_within_a_second(hosts: Hosts, damage: str) -> None:
    network = hosts.describe("shop", (POOL, 300), (POOL6, 300), ("10.61.0.0/24", 301))
    a, b = hosts.hosts
    one = hosts.join(a, network, "10.60.0.10", "fd00:60::10")
    two = hosts.join(b, network, "10.60.0.11", "fd00:60::11")
    assert one.pings(two.ip) and one.pings(two.ip6)
    hosts.run(a.kernel.watch())
    before = state(a, network, one)
    DAMAGE[damage](a, network, one)
    assert state(a, network, one) != before
    hosts.eventually(lambda: a.kernel.repairs > 0, within=1.0)
    # looking takes longer than the repair, and a deletion may still be going on
    with contextlib.suppress(AssertionError):
        hosts.eventually(lambda: state(a, network, one) == before, within=2.0)
    assert state(a, network, one) == before
    assert one.pings(two.ip) and one.pings(two.ip6)


def test_a_changed_mtu_of_the_underlay_is_followed(hosts: Hosts) -> None:
    network = hosts.describe("shop", (POOL, 300))
    a, b = hosts.hosts
    one, two = hosts.join(a, network, "10.60.0.10"), hosts.join(b, network, "10.60.0.11")
    hosts.run(a.kernel.watch())
    hosts.run(b.kernel.watch())
    for host in (a, b):
        host.run("ip link set eth0 mtu 1400")
    hosts.eventually(lambda: all("mtu 1350 " in member.run("ip link show eth0") for member in (one, two)), within=2.0)
    assert one.pings(two.ip, size=1350 - 28)


def state(host: Host, network: Network, member: Member) -> list[str]:
    """What is in the network's namespace and in the container's, without what changes by itself."""
    links = "ip -o link | awk '$2 !~ /^gone/ {print $2, $5, $8, $9, $10, $11}' | sed 's/@[^:]*//'"
    rows = "bridge fdb | grep static; ip neigh show nud permanent; ip -6 neigh show nud permanent"
    routes = "ip -o addr | awk '{print $2, $4}' | grep -v fe80; ip route; ip -6 route | grep -v fe80"
    inside = host.run_in(network, f"{links}; {rows}; {routes}; true")
    return sorted((inside + member.run(f"{links}; {routes}; true")).splitlines())


def test_joining_leaving_and_peers_are_not_taken_for_damage(hosts: Hosts, caplog: pytest.LogCaptureFixture) -> None:
    network = hosts.describe("shop", (POOL, 300))
    a, b = hosts.hosts
    hosts.run(a.kernel.watch())
    hosts.join(a, network, "10.60.0.10")
    for _ in range(3):
        hosts.leave(hosts.join(a, network, "10.60.0.20"))
        hosts.leave(hosts.join(b, network, "10.60.0.21"))
    with contextlib.suppress(AssertionError):
        hosts.eventually(lambda: a.kernel.repairs > 0, within=0.3)
    assert (a.kernel.repairs, caplog.text) == (0, "")


# ---- restart, leftovers, refusals -----------------------------------------------------------------------


def test_a_new_daemon_that_knows_no_peers_yet_keeps_the_rows_it_finds(hosts: Hosts) -> None:
    network = hosts.describe("shop", (POOL, 300))
    a, b = hosts.hosts
    one, two = hosts.join(a, network, "10.60.0.10"), hosts.join(b, network, "10.60.0.11")
    before = state(a, network, one)
    hosts.restart(a)
    repairs = hosts.reconcile(a)
    assert (repairs.repaired, repairs.failed) == ((), ())
    assert state(a, network, one) == before
    assert one.pings(two.ip)
    hosts.run(a.kernel.ensure_peers(network.id, []))
    assert "192.0.2.2" not in a.run_in(network, "bridge fdb")


def test_nothing_is_left_when_the_last_container_has_gone(hosts: Hosts) -> None:
    network = hosts.describe("shop", (POOL, 300))
    a, _ = hosts.hosts
    hosts.leave(hosts.join(a, network, "10.60.0.10"))
    hosts.eventually(lambda: not list(a.overlays.iterdir()))
    assert str(a.overlays) not in Path("/proc/self/mountinfo").read_text()
    assert "vxlan" not in a.run("ip -o link")


def test_a_network_can_be_made_again_at_once(hosts: Hosts) -> None:
    network = hosts.describe("shop", (POOL, 300))
    a, b = hosts.hosts
    two = hosts.join(b, network, "10.60.0.11")
    for _ in range(5):
        one = hosts.join(a, network, "10.60.0.10")
        assert one.pings(two.ip)
        hosts.leave(one)


def test_a_vni_can_be_used_again_at_once_by_another_network(hosts: Hosts) -> None:
    a, b = hosts.hosts
    for name in ("one", "two", "three"):
        network = hosts.describe(name, (POOL, 300))
        one, two = hosts.join(a, network, "10.60.0.10"), hosts.join(b, network, "10.60.0.11")
        assert one.pings(two.ip)
        hosts.leave(one)
        hosts.leave(two)


def test_leftovers_of_a_killed_daemon_are_removed(hosts: Hosts) -> None:
    a, b = hosts.hosts
    kept, lost = hosts.describe("kept", (POOL, 300)), hosts.describe("lost", (POOL, 301))
    one, two = hosts.join(a, kept, "10.60.0.10"), hosts.join(b, kept, "10.60.0.11")
    gone = hosts.join(a, lost, "10.60.0.10")
    a.members.remove(gone)
    del a.networks[lost.id]
    hosts.restart(a)
    assert hosts.reconcile(a).failed == ()
    assert [path.name for path in a.overlays.iterdir()] == [kept.id[:12]]
    assert one.pings(two.ip)
    hosts.join(a, hosts.describe("again", (POOL, 301)), "10.60.0.10")
    netns.remove(gone.sandbox.netns)


def test_a_stray_device_of_ours_gives_way_and_somebody_else_s_is_an_error(hosts: Hosts) -> None:
    a, _ = hosts.hosts
    network, other = hosts.describe("shop", (POOL, 300)), hosts.describe("other", (POOL, 301))
    a.run(
        "ip link add stray type vxlan id 300 dstport 4789 local 192.0.2.1;ip link set stray alias netd:host1:network:x:"
    )
    hosts.join(a, network, "10.60.0.10")
    a.run("ip link add theirs type vxlan id 301 dstport 4789 local 192.0.2.1")
    with pytest.raises(DriverError, match="VXLAN id 301 is in use by device theirs"):
        hosts.bring(a, other)
    assert "theirs" in a.run("ip -o link")
    hosts.eventually(lambda: [path.name for path in a.overlays.iterdir()] == [network.id[:12]])
    a.run("ip link del theirs")
    hosts.join(a, other, "10.60.0.10")


def test_a_vxlan_id_in_use_in_another_namespace_is_an_error(hosts: Hosts) -> None:
    a, b = hosts.hosts
    a.run("ip link add theirs type vxlan id 300 dstport 4789 local 192.0.2.1")
    with netns.entered(a.path):
        World.move("theirs", b.path)
    with pytest.raises(DriverError, match="VXLAN id 300 is in use in another network namespace"):
        hosts.bring(a, hosts.describe("shop", (POOL, 300)))


def test_a_network_that_is_tried_again_for_want_of_its_vxlan_id_holds_nobody_up(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = hosts.hosts
    shop = hosts.describe("shop", (POOL, 300))
    a.run("ip link add theirs type vxlan id 300 dstport 4789 local 192.0.2.1")
    with netns.entered(a.path):
        World.move("theirs", b.path)
    with pytest.raises(DriverError):
        hosts.bring(a, shop)
    waits: list[float] = []
    monkeypatch.setattr("drivers.overlay_driver.time.sleep", waits.append)
    with pytest.raises(DriverError, match="VXLAN id 300 is in use"):
        hosts.bring(a, shop)
    assert len(waits) <= 1
    b.run("ip link del theirs")
    hosts.bring(a, shop)


def test_encryption_is_refused_and_never_silently_left_out(hosts: Hosts) -> None:
    network = hosts.describe("shop", (POOL, 300), options={"encrypted": ""})
    kernel = hosts.hosts[0].kernel
    with pytest.raises(InvalidOption, match="cannot be encrypted"):
        kernel.validate_network(network, [])
    with pytest.raises(InvalidOption, match="cannot be encrypted"):
        hosts.bring(hosts.hosts[0], network)


@pytest.mark.parametrize(
    ("given", "complaint"),
    [("x", 'invalid vxlan id value "x" passed'), ("300", r"insufficient vnis\(1\) passed to overlay")],
)
def test_vxlan_ids_that_cannot_be_are_refused(hosts: Hosts, given: str, complaint: str) -> None:
    network = hosts.describe("shop", (POOL, 0), ("10.61.0.0/24", 0), options={"vxlanid_list": given})
    with pytest.raises(InvalidOption, match=complaint):
        hosts.hosts[0].kernel.validate_network(network, [])


def test_an_advertised_address_that_no_device_has_is_an_error(hosts: Hosts) -> None:
    network = hosts.describe("shop", (POOL, 300))
    a, _ = hosts.hosts
    a.vtep = "192.0.2.99"
    with pytest.raises(DriverError, match=r"none of this host's devices has the address 192\.0\.2\.99"):
        hosts.bring(a, network)
    assert not a.overlays.exists()


def test_the_network_is_gone_from_the_host_s_own_view(hosts: Hosts) -> None:
    network = hosts.describe("shop", (POOL, 300))
    a, _ = hosts.hosts
    before = a.run("ip -o link; ip route")
    hosts.join(a, network, "10.60.0.10")
    assert a.run("ip -o link; ip route") == before
    assert "lan" in sh("ip -o link")
