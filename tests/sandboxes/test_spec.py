"""What follows from a sandbox's endpoints: gateway order, interface names, where published ports ride."""

from __future__ import annotations

from netd.model.sandboxes import Endpoint, Published, Sandbox
from netd.sandboxes.spec import kernel_spec


def endpoint(name: str, *, priority: int = 0, internal: bool = False, ipv6: bool = False) -> Endpoint:
    return Endpoint(
        id=f"e-{name}",
        network_id=f"n-{name}",
        network=name,
        ifname=f"eth-{name}",
        mac="02:42:0a:00:00:02",
        ipv4="10.0.0.2/24",
        ipv6="fd00::2/64" if ipv6 else "",
        gateway4="10.0.0.1",
        gateway6="fd00::1" if ipv6 else "",
        internal=internal,
        priority=priority,
    )


def sandbox(*endpoints: Endpoint, published: tuple[Published, ...] = ()) -> Sandbox:
    return Sandbox(id="s", container_id="c", name="web", netns="/n", endpoints=endpoints, published=published)


def order(*endpoints: Endpoint) -> list[str]:
    return [e.network for e in sandbox(*endpoints).ordered]


def test_gateway_order_is_priority_then_external_then_families_then_name_2_104() -> None:
    assert order(endpoint("b"), endpoint("a")) == ["a", "b"]
    assert order(endpoint("a"), endpoint("b", priority=1)) == ["b", "a"]
    assert order(endpoint("a", internal=True), endpoint("b")) == ["b", "a"]
    assert order(endpoint("a"), endpoint("b", ipv6=True)) == ["b", "a"]


def test_the_gateway_is_chosen_for_each_family() -> None:
    both = sandbox(endpoint("a", priority=5), endpoint("b", ipv6=True))
    assert both.gateway4 is not None and both.gateway4.network == "a"
    assert both.gateway6 is not None and both.gateway6.network == "b"


def test_an_internal_network_alone_carries_no_default_route() -> None:
    assert sandbox(endpoint("a", internal=True)).gateway4 is None


def test_published_ports_ride_on_the_gateway_endpoint_only_3_26() -> None:
    ports = (Published("tcp", 80, "0.0.0.0", 8080), Published("tcp", 80, "::", 8080))
    made = kernel_spec(sandbox(endpoint("a"), endpoint("b", ipv6=True), published=ports), None)
    assert [(e.id, [str(p.host_ip) for p in e.ports]) for e in made.endpoints] == [
        ("e-a", []),
        ("e-b", ["0.0.0.0", "::"]),
    ]


def test_interface_names_fill_the_lowest_gap_2_106() -> None:
    one = sandbox(Endpoint(id="1", network_id="n", network="n", ifname="eth1"))
    assert one.free_ifname("eth") == "eth0"
    assert one.with_endpoint(Endpoint(id="0", network_id="m", network="m", ifname="eth0")).free_ifname("eth") == "eth2"
