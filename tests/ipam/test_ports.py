"""Published ports: how they are written, who gets which, who is in the way (facts 3.15 to 3.29)."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netd.containers.ports import parse_bindings, parse_port
from netd.core.errors import InvalidParameter, NetdError
from netd.ipam.ports import Binding, BoundPort, Port, PortAllocator, Protocol
from netd.model.containers import PortBinding

ANY4, ANY6 = IPv4Address(0), IPv6Address(0)
LOCAL = IPv4Address("127.0.0.1")


def tcp(container: int, host: int | None = None, host_ip: str = "", *, last: int | None = None) -> Binding:
    """`-p [host_ip:][host[-last]:]container`"""
    span = None if host is None else (host, last or host)
    return Binding(Port("tcp", container), ip_address(host_ip) if host_ip else None, span)


@pytest.fixture
def sysctls(tmp_path: Path) -> Path:
    (tmp_path / "ip_local_port_range").write_text("24000\t24004\n")
    (tmp_path / "ip_local_reserved_ports").write_text("\n")
    return tmp_path


@pytest.fixture
def ports(sysctls: Path) -> PortAllocator:
    return PortAllocator(sysctls)


def host_ports(allocated: list[BoundPort]) -> list[int]:
    return sorted({p.host_port for p in allocated})


# ---- parsing --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "port"),
    [
        ("80", Port("tcp", 80)),
        ("80/tcp", Port("tcp", 80)),
        ("53/UDP", Port("udp", 53)),
        ("9/sctp", Port("sctp", 9)),
        ("8000-8010/udp", Port("udp", 8000, 11)),
        ("65535", Port("tcp", 65535)),
    ],
)
def test_a_container_port_is_a_number_or_range_and_a_protocol(text: str, port: Port) -> None:
    assert parse_port(text) == port


@pytest.mark.parametrize("text", ["", "0", "65536", "-1", "80-", "90-80", "http", "80/tcp/udp", "80/xyz", " 80", "٨٠"])
def test_a_malformed_container_port_is_refused(text: str) -> None:
    with pytest.raises(InvalidParameter, match=r"invalid (port specification|proto): "):
        parse_port(text)


@pytest.mark.parametrize("text", ["70000", "x", "80-70", "-"])
def test_a_malformed_host_port_is_refused(text: str) -> None:
    with pytest.raises(InvalidParameter, match=f"invalid hostPort: {text}"):
        parse_bindings({"80/tcp": [PortBinding(host_port=text)]})


def test_a_malformed_host_address_is_refused() -> None:
    with pytest.raises(InvalidParameter, match="invalid host IP address: localhost"):
        parse_bindings({"80/tcp": [PortBinding(host_ip="localhost")]})


def test_ranges_of_different_length_are_refused() -> None:
    expected = "invalid ranges specified for container and host Ports: 80-82 and 9000-9001"
    with pytest.raises(InvalidParameter, match=expected):
        parse_bindings({"80-82/tcp": [PortBinding(host_port="9000-9001")]})


def test_no_binding_and_no_host_port_ask_for_an_ephemeral_one() -> None:
    assert parse_bindings({"80/tcp": None, "81/tcp": [], "82/tcp": [PortBinding(host_port="0")]}) == [
        tcp(80),
        tcp(81),
        tcp(82),
    ]


def test_one_container_port_may_have_several_bindings() -> None:
    given_ = {"80/tcp": [PortBinding(host_ip="127.0.0.1", host_port="80"), PortBinding(host_ip="::1", host_port="80")]}
    assert parse_bindings(given_) == [tcp(80, 80, "127.0.0.1"), tcp(80, 80, "::1")]


def test_neighbouring_fixed_ports_become_one_range() -> None:
    single = {f"{8000 + n}/tcp": [PortBinding(host_port=str(9000 + n))] for n in range(1000)}
    assert parse_bindings(single) == [Binding(Port("tcp", 8000, 1000), None, (9000, 9999))]
    assert parse_bindings({"80/tcp": [PortBinding(host_port="80")], "81/udp": [PortBinding(host_port="81")]}) == [
        tcp(80, 80),
        Binding(Port("udp", 81), None, (81, 81)),
    ]


# ---- ports that containers hold ---------------------------------------------------------------------------


def test_a_fixed_port_is_bound_on_all_default_addresses(ports: PortAllocator) -> None:
    assert ports.allocate("a", [tcp(80, 8080)]) == [BoundPort("tcp", ANY4, 8080, 80), BoundPort("tcp", ANY6, 8080, 80)]
    assert ports.allocate("b", [tcp(80, 8081)], [LOCAL]) == [BoundPort("tcp", LOCAL, 8081, 80)]


@pytest.mark.parametrize(
    ("first", "second", "clash"),
    [
        ("0.0.0.0", "0.0.0.0", True),
        ("127.0.0.1", "0.0.0.0", True),
        ("0.0.0.0", "127.0.0.1", True),
        ("127.0.1.2", "127.0.1.3", False),
        ("::", "::1", True),
        ("::", "0.0.0.0", False),
    ],
)
def test_wildcards_clash_with_every_address_of_their_family(
    ports: PortAllocator, first: str, second: str, clash: bool
) -> None:
    ports.allocate("a", [tcp(80, 18090, first)])
    if not clash:
        assert ports.allocate("b", [tcp(80, 18090, second)])
        return
    where = f"[{second}]" if ":" in second else second
    with pytest.raises(NetdError) as caught:
        ports.allocate("b", [tcp(80, 18090, second)])
    assert str(caught.value) == f"Bind for {where}:18090 failed: port is already allocated"


def test_protocols_do_not_clash(ports: PortAllocator) -> None:
    ports.allocate("a", [tcp(53, 5300)])
    assert ports.allocate("a", [Binding(Port("udp", 53), None, (5300, 5300))])


def test_ranges_clash_where_they_overlap_and_say_at_which_port(ports: PortAllocator) -> None:
    ports.allocate("a", [Binding(Port("tcp", 1, 100), LOCAL, (20000, 20099))])
    with pytest.raises(NetdError, match=r"Bind for 127\.0\.0\.1:20050 failed"):
        ports.allocate("b", [Binding(Port("tcp", 1, 100), LOCAL, (20050, 20149))])
    with pytest.raises(NetdError, match=r"Bind for 127\.0\.0\.1:20000 failed"):
        ports.allocate("b", [Binding(Port("tcp", 1, 100), LOCAL, (19950, 20049))])
    assert ports.allocate("b", [Binding(Port("tcp", 1, 100), LOCAL, (20100, 20199))])


def test_a_failed_request_takes_nothing(ports: PortAllocator) -> None:
    ports.allocate("a", [tcp(80, 8080)])
    with pytest.raises(NetdError):
        ports.allocate("b", [tcp(81, 8081), tcp(80, 8080)])
    assert ports.allocate("c", [tcp(81, 8081)])


def test_released_ports_are_free(ports: PortAllocator) -> None:
    ports.allocate("a", [tcp(80, 8080)])
    ports.release("a")
    ports.release("a")
    assert ports.allocate("b", [tcp(80, 8080)])


def test_claimed_ports_are_held_without_a_probe(ports: PortAllocator) -> None:
    held = [BoundPort("tcp", ANY4, 8080, 80, 10)]
    ports.claim("a", held)
    ports.claim("a", held)
    with pytest.raises(NetdError):
        ports.allocate("b", [tcp(80, 8085, "127.0.0.1")])
    ports.release("a")
    assert ports.allocate("b", [tcp(80, 8085, "127.0.0.1")])


def test_a_host_range_gives_the_first_free_port_of_it(ports: PortAllocator) -> None:
    got = [host_ports(ports.allocate(owner, [tcp(80, 8100, last=8101)])) for owner in "ab"]
    assert got == [[8100], [8101]]
    with pytest.raises(NetdError, match="all ports are allocated"):
        ports.allocate("c", [tcp(80, 8100, last=8101)])


# ---- ephemeral ports ------------------------------------------------------------------------------------


def test_ephemeral_ports_follow_each_other_and_wrap_around(ports: PortAllocator) -> None:
    assert [host_ports(ports.allocate(owner, [tcp(80)])) for owner in "abc"] == [[24000], [24001], [24002]]
    ports.release("a")
    assert [host_ports(ports.allocate(owner, [tcp(80)])) for owner in "def"] == [[24003], [24004], [24000]]
    with pytest.raises(NetdError, match="all ports are allocated"):
        ports.allocate("g", [tcp(80)])


def test_ephemeral_ports_skip_reserved_ones(ports: PortAllocator, sysctls: Path) -> None:
    (sysctls / "ip_local_reserved_ports").write_text("22,24000-24001,24003\n")
    assert [host_ports(ports.allocate(owner, [tcp(80)])) for owner in "ab"] == [[24002], [24004]]


def test_all_addresses_of_a_container_port_get_the_same_ephemeral_port(ports: PortAllocator) -> None:
    ports.allocate("a", [tcp(80, 24000, "::1")])
    got = ports.allocate("b", [tcp(80, host_ip="127.0.0.1"), tcp(80, host_ip="::1")])
    assert got == [BoundPort("tcp", LOCAL, 24001, 80), BoundPort("tcp", IPv6Address("::1"), 24001, 80)]


def test_fixed_ports_go_before_ephemeral_ones(ports: PortAllocator) -> None:
    got = ports.allocate("a", [tcp(80), tcp(81, 24000)], [LOCAL])
    assert {p.container_port: p.host_port for p in got} == {81: 24000, 80: 24001}


# ---- processes of the host --------------------------------------------------------------------------------


@contextmanager
def listening(address: str, port: int, kind: int = socket.SOCK_STREAM) -> Iterator[None]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, kind) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((address, port))
        if kind == socket.SOCK_STREAM:
            server.listen()
        yield


@pytest.mark.root
@pytest.mark.parametrize(("proto", "kind"), [("tcp", socket.SOCK_STREAM), ("udp", socket.SOCK_DGRAM)])
def test_a_port_of_a_host_process_is_refused(ports: PortAllocator, proto: Protocol, kind: int) -> None:
    wanted = [Binding(Port(proto, 80), None, (18080, 18080))]
    with listening("127.0.0.1", 18080, kind), pytest.raises(NetdError) as caught:
        ports.allocate("a", wanted)
    assert str(caught.value) == f"failed to bind host port 0.0.0.0:18080/{proto}: address already in use"
    assert ports.allocate("a", wanted)


@pytest.mark.root
def test_an_address_that_is_not_the_hosts_is_refused(ports: PortAllocator) -> None:
    with pytest.raises(NetdError) as caught:
        ports.allocate("a", [tcp(80, 18080, "192.0.2.1")])
    assert str(caught.value) == "failed to bind host port 192.0.2.1:18080/tcp: cannot assign requested address"


@pytest.mark.root
def test_ephemeral_and_range_ports_step_over_host_processes(ports: PortAllocator) -> None:
    with listening("0.0.0.0", 24000), listening("0.0.0.0", 8100):
        assert host_ports(ports.allocate("a", [tcp(80)])) == [24001]
        assert host_ports(ports.allocate("a", [tcp(81, 8100, last=8110)])) == [8101]


@pytest.mark.root
def test_a_thousand_ports_are_cheap(ports: PortAllocator) -> None:
    started = time.perf_counter()
    got = ports.allocate("a", [Binding(Port("tcp", 8000, 1000), None, (20000, 20999))])
    assert [(p.host_port, p.count) for p in got] == [(20000, 1000), (20000, 1000)]
    assert time.perf_counter() - started < 2


# ---- properties -----------------------------------------------------------------------------------------

spans = st.tuples(st.integers(20000, 20030), st.integers(1, 4))
addresses = st.sampled_from([None, LOCAL, IPv4Address("127.0.0.2"), IPv6Address("::1")])
wanted = st.builds(
    lambda proto, span, address, fixed: Binding(
        Port(proto, 1, span[1] if fixed else 1), address, (span[0], span[0] + span[1] - 1)
    ),
    st.sampled_from(["tcp", "udp"]),
    spans,
    addresses,
    st.booleans(),
)


def overlap(one: BoundPort, other: BoundPort) -> bool:
    same_place = (
        one.host_ip == other.host_ip
        or ANY4 in (one.host_ip, other.host_ip)
        or ANY6
        in (
            one.host_ip,
            other.host_ip,
        )
    )
    return (
        one.proto == other.proto
        and one.host_ip.version == other.host_ip.version
        and same_place
        and one.host_port < other.host_port + other.count
        and other.host_port < one.host_port + one.count
    )


@given(st.lists(st.tuples(st.integers(0, 5), st.lists(wanted, max_size=3))))
def test_no_two_owners_ever_hold_the_same_port(steps: list[tuple[int, list[Binding]]]) -> None:
    ports, held = PortAllocator(), dict[str, list[BoundPort]]()
    for number, bindings in steps:
        owner = str(number)
        if not bindings or owner in held:
            ports.release(owner)
            held.pop(owner, None)
            continue
        try:
            held[owner] = ports.allocate(owner, bindings)
        except NetdError as error:
            assert "allocated" in str(error) or "in use" in str(error)
    everything = [port for mine in held.values() for port in mine]
    assert not any(overlap(a, b) for i, a in enumerate(everything) for b in everything[:i])


@given(st.text(alphabet="0123456789-/tcpudx ", max_size=14))
def test_any_port_text_is_either_accepted_or_refused_in_words(text: str) -> None:
    try:
        port = parse_port(text)
    except InvalidParameter:
        return
    assert 1 <= port.first <= port.first + port.count - 1 <= 65535
