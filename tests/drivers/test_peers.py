"""What the remote endpoints of a network mean as rows; and how a moved address is announced."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet6 import ICMPv6ND_NA, IPv6
from scapy.layers.l2 import ARP, Ether

from drivers import announce
from drivers.neighbours import Forward, Neighbour, Row
from drivers.overlay import vxlan_ids, vxlan_of, vxlans
from drivers.peers import Peers
from drivers.spec import InvalidOption, Network, Peer, Subnet

IDS, MACS, VTEPS = "abcd", ["02:00:00:00:00:01", "02:00:00:00:00:02"], ["192.0.2.1", "192.0.2.2"]
ADDRESSES = ["10.0.0.1", "10.0.0.2", "fd00::1"]

peers = st.builds(
    Peer,
    st.sampled_from(IDS),
    st.sampled_from(MACS),
    st.lists(st.sampled_from(ADDRESSES), min_size=1, unique=True).map(lambda found: tuple(map(ip_address, found))),
    st.sampled_from(VTEPS).map(ip_address),
)
steps = st.lists(st.tuples(st.sampled_from([1, 2]), peers) | st.sampled_from(IDS))


@given(steps)
def test_changes_applied_one_by_one_make_the_rows_of_the_peers_put_last(found: list[tuple[int, Peer] | str]) -> None:
    told, kernel = Peers(), dict[tuple[int, object], Row]()
    order: dict[str, tuple[int, Peer]] = {}
    for step in found:
        changes = told.remove(step) if isinstance(step, str) else told.put(*step)
        for vni, row in changes.gone:
            assert kernel.pop((vni, _key(row))) == row
        for vni, row in changes.put:
            assert kernel.get((vni, _key(row))) != row
            kernel[vni, _key(row)] = row
        order.pop(step if isinstance(step, str) else step[1].id, None)
        if not isinstance(step, str):
            order[step[1].id] = step
        assert kernel == _expected(order)
        assert {row for vni in (1, 2) for row in told.rows(vni)} == set(kernel.values())


def _expected(order: dict[str, tuple[int, Peer]]) -> dict[tuple[int, object], Row]:
    rows: dict[tuple[int, object], Row] = {}
    for vni, peer in order.values():
        rows[vni, peer.mac] = Forward(peer.mac, peer.vtep)
        rows |= {(vni, address): Neighbour(address, peer.mac) for address in peer.addresses}
    return rows


def _key(row: Row) -> object:
    return row.mac if isinstance(row, Forward) else row.address


def _network(*subnets: tuple[str, int], options: dict[str, str] | None = None) -> Network:
    made = tuple(Subnet(ip_network(pool), ip_network(pool)[1], vni) for pool, vni in subnets)
    return Network("f" * 64, "shop", "overlay", made, options=options or {})


def test_a_subnet_without_vni_travels_with_the_first() -> None:
    network = _network(("10.0.0.0/24", 300), ("10.1.0.0/24", 301), ("fd00::/64", 0))
    assert [(vxlan.vni, len(vxlan.subnets)) for vxlan in vxlans(network)] == [(300, 2), (301, 1)]
    found = vxlan_of(network, [ip_address("10.1.0.7"), ip_address("fd00::7")])
    assert found is not None and found.vni == 301


@pytest.mark.parametrize("text", ["0", "16777216", "-1", "a", "1,", "3 4"])
def test_a_vxlan_id_has_24_bits_and_is_not_0(text: str) -> None:
    with pytest.raises(InvalidOption, match="invalid vxlan id value"):
        vxlan_ids(_network(options={"vxlanid_list": text}))


def test_both_names_of_the_option_are_read() -> None:
    assert vxlan_ids(_network(options={"vxlanid_list": "300,301"})) == (300, 301)
    assert vxlan_ids(_network(options={"com.docker.network.driver.overlay.vxlanid_list": "300"})) == (300,)


def test_an_address_is_announced_as_its_holder_would() -> None:
    arp = Ether(announce._arp(b"\2\0\0\0\0\1", IPv4Address("10.0.0.1")))
    assert (arp.dst, arp[ARP].psrc, arp[ARP].pdst, arp[ARP].hwsrc) == (
        "ff:ff:ff:ff:ff:ff",
        "10.0.0.1",
        "10.0.0.1",
        "02:00:00:00:00:01",
    )
    advertisement = Ether(announce._advertisement(b"\2\0\0\0\0\1", IPv6Address("fd00::1")))
    assert (advertisement[IPv6].dst, advertisement[IPv6].hlim) == ("ff02::1", 255)
    assert (advertisement[ICMPv6ND_NA].tgt, advertisement[ICMPv6ND_NA].O) == ("fd00::1", 1)
    sent = advertisement[ICMPv6ND_NA].cksum
    del advertisement[ICMPv6ND_NA].cksum
    assert Ether(bytes(advertisement))[ICMPv6ND_NA].cksum == sent
