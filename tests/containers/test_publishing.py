"""Published ports: which ports of the host a container gets, on which addresses, and what is shown of them."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable, Mapping

import pytest

from netd.containers.publishing import Publisher, ports_view
from netd.core.errors import NetdError
from netd.model.containers import Container, ContainerConfig, HostConfig, PortBinding
from netd.model.sandboxes import Endpoint, Published, Sandbox

EPHEMERAL = [PortBinding()]


def container(
    bound: Mapping[str, list[PortBinding] | None] | None = None,
    *,
    exposed: Iterable[str] = (),
    publish_all: bool = False,
) -> Container:
    host = HostConfig(port_bindings=dict(bound or {}), publish_all_ports=publish_all)
    config = ContainerConfig(exposed_ports={port: {} for port in exposed})
    return Container(id="c" * 64, name="web", created="", image_id="", config=config, host_config=host)


def sandbox(name: str = "s1", *, ways: str = "4", internal: bool = False, ports: Iterable[Published] = ()) -> Sandbox:
    """One with a way out in these families."""
    endpoint = Endpoint(
        id=f"endpoint-of-{name}",
        network_id="n1",
        network="blue",
        gateway4="10.0.0.1" if "4" in ways else "",
        gateway6="fd00::1" if "6" in ways else "",
        internal=internal,
    )
    return Sandbox(id=name, container_id="c" * 64, name="web", netns="", endpoints=(endpoint,), published=tuple(ports))


def on(publisher: Publisher, record: Container, name: str = "s1", *, ways: str = "4", default: str = "") -> set[str]:
    """Which ports are published where: `80/tcp on 0.0.0.0`."""
    found = publisher.allocate(record, sandbox(name, ways=ways), default)
    return {f"{p.container_port + n}/{p.proto} on {p.host_ip}" for p in found for n in range(p.count)}


def taken(publisher: Publisher, name: str = "s1", address: str = "") -> int:
    """An ephemeral port of the host, held by one container."""
    return publisher.allocate(container({"80/tcp": [PortBinding(host_ip=address)]}), sandbox(name), "")[0].host_port


def wants(port: int, address: str = "") -> Container:
    """A container that wants just this port of the host."""
    return container({"80/tcp": [PortBinding(host_ip=address, host_port=str(port))]})


# ---- what is shown --------------------------------------------------------------------------------------


def test_published_ports_are_shown_with_their_bindings_and_exposed_ones_with_none() -> None:
    ports = [Published("tcp", 80, "0.0.0.0", 8080), Published("tcp", 80, "::", 8080)]
    view = ports_view(container(exposed=["80/tcp", "90/tcp"]), sandbox(ways="46", ports=ports))
    assert view == {"80/tcp": [PortBinding("0.0.0.0", "8080"), PortBinding("::", "8080")], "90/tcp": None}


def test_a_range_is_shown_port_by_port() -> None:
    view = ports_view(container(), sandbox(ports=[Published("udp", 53, "127.0.0.1", 5300, count=2)]))
    assert view == {"53/udp": [PortBinding("127.0.0.1", "5300")], "54/udp": [PortBinding("127.0.0.1", "5301")]}


def test_nothing_is_shown_of_a_container_that_does_not_run_or_has_no_way_out() -> None:
    record = container(exposed=["80/tcp"])
    assert ports_view(record, None) == {}
    assert ports_view(record, sandbox(ways="")) == {}
    assert ports_view(record, sandbox(ways="46", internal=True)) == {}
    assert ports_view(record, sandbox(ways="6")) == {"80/tcp": None}


# ---- what is published ----------------------------------------------------------------------------------


def test_exposed_ports_are_published_only_if_all_are_to_be() -> None:
    exposed = ["80/tcp", "53/udp"]
    assert on(Publisher(), container(exposed=exposed)) == set()
    assert on(Publisher(), container(exposed=exposed, publish_all=True)) == {"80/tcp on 0.0.0.0", "53/udp on 0.0.0.0"}


def test_of_an_exposed_range_each_port_that_is_not_bound_gets_one_of_its_own() -> None:
    publisher = Publisher()
    port = taken(publisher)
    publisher.release("s1")
    bound = {"81/tcp": [PortBinding(host_port=str(port))]}
    found = publisher.allocate(container(bound, exposed=["80-82/tcp", "81/udp"], publish_all=True), sandbox(), "")
    assert sorted((p.proto, p.container_port, p.count) for p in found) == [
        *(("tcp", number, 1) for number in (80, 81, 82)),
        ("udp", 81, 1),
    ]
    assert [p.host_port for p in found if (p.proto, p.container_port) == ("tcp", 81)] == [port]
    assert len({(p.proto, p.host_port) for p in found}) == 4


def test_without_an_address_a_port_is_published_in_the_families_the_container_has() -> None:
    record = container({"80/tcp": EPHEMERAL})
    assert on(Publisher(), record, ways="4") == {"80/tcp on 0.0.0.0"}
    assert on(Publisher(), record, ways="6") == {"80/tcp on ::"}
    both = Publisher().allocate(record, sandbox(ways="46"), "")
    assert [p.host_ip for p in both] == ["0.0.0.0", "::"]
    assert both[0].host_port == both[1].host_port


def test_the_binding_address_of_the_network_takes_the_place_of_all_addresses() -> None:
    record = container({"80/tcp": EPHEMERAL, "90/tcp": [PortBinding(host_ip="127.0.0.2")]})
    expected = {"80/tcp on 127.0.0.1", "90/tcp on 127.0.0.2"}
    assert on(Publisher(), record, ways="46", default="127.0.0.1") == expected
    assert on(Publisher(), record, ways="6", default="127.0.0.1") == set()


def test_an_address_of_a_family_that_the_container_does_not_have_is_passed_over() -> None:
    record = container({"80/tcp": [PortBinding(host_ip="::1"), PortBinding(host_ip="127.0.0.1")]})
    assert on(Publisher(), record, ways="4") == {"80/tcp on 127.0.0.1"}


def test_a_container_without_a_way_out_publishes_nothing() -> None:
    record = container({"80/tcp": EPHEMERAL}, exposed=["90/tcp"], publish_all=True)
    assert on(Publisher(), record, ways="") == set()
    assert Publisher().allocate(record, sandbox(internal=True), "") == ()


# ---- whose a port is ------------------------------------------------------------------------------------


def test_a_port_that_another_container_has_is_refused_in_dockers_words() -> None:
    publisher = Publisher()
    port = taken(publisher)
    with pytest.raises(NetdError) as refused:
        publisher.allocate(wants(port), sandbox("s2"), "")
    assert str(refused.value) == (
        "failed to set up container networking: driver failed programming external connectivity on endpoint web "
        f"(endpoint-of-s2): Bind for 0.0.0.0:{port} failed: port is already allocated"
    )
    assert refused.value.status == 500


def test_a_port_that_a_process_of_the_host_has_is_refused_with_the_kernels_reason() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        words = re.escape(f"(endpoint-of-s1): failed to bind host port 127.0.0.1:{port}/tcp: address already in use")
        with pytest.raises(NetdError, match=words):
            Publisher().allocate(wants(port, "127.0.0.1"), sandbox(), "")


def test_who_is_refused_one_port_keeps_none() -> None:
    publisher = Publisher()
    port = taken(publisher, "s1", "127.0.0.1")
    free = taken(publisher, "s2", "127.0.0.2")
    publisher.release("s2")
    first = PortBinding(host_ip="127.0.0.2", host_port=str(free))
    with pytest.raises(NetdError):
        publisher.allocate(container({"80/tcp": [first, *_binding(port)]}), sandbox("s2"), "")
    assert publisher.allocate(wants(free, "127.0.0.2"), sandbox("s3"), "")[0].host_port == free


def _binding(port: int) -> list[PortBinding]:
    return [PortBinding(host_ip="127.0.0.1", host_port=str(port))]


def test_a_port_that_is_released_is_free_for_others() -> None:
    publisher = Publisher()
    port = taken(publisher)
    publisher.release("s1")
    publisher.release("s1")
    assert publisher.allocate(wants(port), sandbox("s2"), "")[0].host_port == port


def test_ports_held_since_before_the_daemon_started_are_taken_until_they_are_released() -> None:
    port = taken(Publisher())
    publisher = Publisher()
    held = sandbox(ports=[Published("tcp", 80, "0.0.0.0", port)])
    publisher.claim(held)
    publisher.claim(held)
    with pytest.raises(NetdError, match="port is already allocated"):
        publisher.allocate(wants(port), sandbox("s2"), "")
    publisher.release(held.id)
    assert publisher.allocate(wants(port), sandbox("s2"), "")[0].host_port == port
