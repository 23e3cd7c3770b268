"""What the desired state means in nftables, as text and in the kernel."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_interface, ip_network
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from drivers import bridge, ruleset
from drivers.firewall import Firewall
from drivers.nft import Nft
from drivers.ruleset import Elements
from drivers.spec import Endpoint, Network, PortForward, Sandbox, Subnet
from tests.drivers.world import publish, sh

GOLDEN = Path(__file__).parent / "golden"


def network(letter: str, *pools: str, internal: bool = False, **options: str) -> Network:
    subnets = tuple(Subnet(ip_network(pool), next(iter(ip_network(pool).hosts()))) for pool in pools)
    named = {getattr(bridge, key): value for key, value in options.items()}
    return Network(letter * 64, letter, "bridge", subnets, internal, named)


def sandbox(*ports: PortForward, ipv4: str | None = "10.1.0.2/16", ipv6: str | None = "fd00::2/64") -> Sandbox:
    endpoint = Endpoint(
        "e" * 64,
        "a" * 64,
        "eth0",
        "02:42:0a:01:00:02",
        ip_interface(ipv4) if ipv4 else None,  # type: ignore[arg-type]
        ip_interface(ipv6) if ipv6 else None,  # type: ignore[arg-type]
        ports=ports,
    )
    return Sandbox("5" * 64, "/run/netns/x", (endpoint,))


SAMPLE = (
    bridge.elements(network("a", "10.1.0.0/16", "fd00::/64")),
    bridge.elements(network("b", "10.2.0.0/16", internal=True, ICC="false")),
    bridge.elements(network("c", "10.3.0.0/16", MASQUERADE="false", NAME="br7")),
    bridge.elements(network("d", "10.4.0.0/16", HOST_IPV4="192.0.2.1")),
    ruleset.port_elements(
        sandbox(
            publish(8080, 80),
            publish(8080, 80, "udp", "::"),
            publish(8443, 443, host_ip="127.0.0.1"),
            publish(7000, 7000, count=100),
            publish(9000, 90, count=2),
        )
    ),
)


def test_the_whole_table_is_as_it_was_reviewed() -> None:
    """After a wanted change: write the new text to golden/table.nft and review the difference."""
    assert ruleset.whole_table(ruleset.merged(SAMPLE)) == (GOLDEN / "table.nft").read_text()


def test_a_port_without_an_address_of_its_family_is_not_published() -> None:
    assert ruleset.port_elements(sandbox(publish(80, 80, host_ip="::"), ipv6=None)) == {}
    assert ruleset.port_elements(sandbox(publish(80, 80), ipv4=None)) == {}


def test_a_range_with_equal_numbers_is_one_element() -> None:
    assert ruleset.port_elements(sandbox(publish(7000, 7000, count=1000))) == {
        "ranges4": {"0.0.0.0/0 . tcp . 7000-7999": "10.1.0.2"}
    }


def test_a_range_with_other_numbers_is_an_element_a_port() -> None:
    assert ruleset.port_elements(sandbox(publish(7000, 8000, count=2))) == {
        "ports4": {"tcp . 7000": "10.1.0.2 . 8000", "tcp . 7001": "10.1.0.2 . 8001"}
    }


def test_no_change_is_no_transaction() -> None:
    assert ruleset.change({}, {}) == "" == ruleset.change({"bridges": {}}, {"ports4": {}})


# ---- in the kernel --------------------------------------------------------------------------------------


@st.composite
def forwards(draw: st.DrawFn) -> list[PortForward]:
    """Published ports of one container that do not clash with each other."""
    hosts = st.sampled_from(["0.0.0.0", "127.0.0.1", "192.0.2.7", "::", "2001:db8::7", "2001:db8:0:1::"])
    starts = draw(st.lists(st.integers(0, 600), unique=True, max_size=12))
    return [
        PortForward(
            draw(st.sampled_from(["tcp", "udp", "sctp"])),
            ip_address(draw(hosts)),
            100 + start * 100,
            draw(st.sampled_from([100 + start * 100, 80])),
            draw(st.integers(1, 100)),
        )
        for start in starts
    ]


addresses = st.builds(
    lambda v4, v6: (f"{IPv4Address(v4)}/16", f"{IPv6Address(v6)}/64"),
    st.integers(0x0A000001, 0x0AFFFFFE),
    st.integers(0xFD00 << 112, (0xFD01 << 112) - 1),
)


@pytest.mark.root
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.tuples(st.sampled_from(["x", "y"]), forwards(), addresses), min_size=1, max_size=4))
def test_step_by_step_the_kernel_holds_what_is_wanted(
    own_namespace: None, steps: list[tuple[str, list[PortForward], tuple[str, str]]]
) -> None:
    """Whatever is put, replaced and taken over: the listing reads back as exactly the elements put last."""
    firewall = Firewall()
    try:
        for object_id, ports, (ipv4, ipv6) in steps:
            clean = {"y" if object_id == "x" else "x": dict[str, dict[str, str]]()}
            for other in clean:  # two objects never hold overlapping ranges
                firewall.put(other, {})
            firewall.put(object_id, ruleset.port_elements(sandbox(*ports, ipv4=ipv4, ipv6=ipv6)))
            assert firewall._intact()
            assert not firewall.ensure(firewall._objects)
    finally:
        firewall.close()


@pytest.mark.root
def test_an_element_two_objects_claim_is_the_last_one_s(own_namespace: None) -> None:
    def port(target: str) -> Elements:
        return ruleset.port_elements(sandbox(publish(8080, 80), ipv4=target))

    firewall = Firewall()
    firewall.put("first", port("10.1.0.2/16"))
    firewall.put("second", port("10.1.0.3/16"))
    assert "10.1.0.3 . 80" in sh("nft list map inet netd ports4")
    firewall.put("first", {})
    assert "10.1.0.3 . 80" in sh("nft list map inet netd ports4")
    assert firewall._intact()
    firewall.close()


@pytest.mark.root
def test_a_flushed_table_is_written_anew_by_the_next_change(own_namespace: None) -> None:
    firewall = Firewall()
    firewall.put("net", SAMPLE[0])
    sh("nft flush ruleset")
    firewall.put("ports", SAMPLE[4])
    assert firewall._intact()
    firewall.close()


@pytest.mark.root
def test_adjacent_subnets_are_kept_apart(own_namespace: None) -> None:
    firewall = Firewall()
    firewall.put("a", bridge.elements(network("a", "10.0.0.0/24")))
    firewall.put("b", bridge.elements(network("b", "10.0.1.0/24")))
    firewall.put("c", bridge.elements(network("c", "10.0.2.4/32", "10.0.2.8/31")))
    assert firewall._intact()
    firewall.put("a", {})
    assert firewall._intact()
    firewall.close()


@pytest.mark.root
def test_a_refused_transaction_changes_nothing(own_namespace: None) -> None:
    firewall = Firewall()
    firewall.put("net", SAMPLE[0])
    before = sh("nft list ruleset")
    with pytest.raises(Exception, match="nftables refused"):
        firewall.put("bad", {"ports4": {"tcp . 1": "10.1.0.2 . 1", "tcp . nonsense": "10.1.0.2 . 1"}})
    assert sh("nft list ruleset") == before
    firewall.put("net", SAMPLE[1])
    assert firewall._intact()
    firewall.close()


@pytest.mark.root
def test_the_resolver_s_table_is_spelled_as_nftables_lists_it(own_namespace: None) -> None:
    with Nft() as nft:
        nft.run(ruleset.dns_redirect(5301, 5302))
        assert nft.run(f"list table {ruleset.DNS_TABLE}") == ruleset.dns_redirect(5301, 5302)
