"""Flags, ports, networks, mounts, sizes and times as a user writes them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netd.cli.verbs.network import ipam_pools
from netd.cli.verbs.ps import display_ports
from netd.cli.verbs.session import DetachScanner, frames, parse_detach_keys
from netd.cli.words import flags
from netd.cli.words.create import CREATE_FLAGS, create_body
from netd.cli.words.endpoints import parse_network
from netd.cli.words.flags import FlagError, HelpAsked
from netd.cli.words.mounts import parse_mount, parse_volumes
from netd.cli.words.ports import parse_expose, parse_publish
from netd.cli.words.table import align
from netd.cli.words.units import human_duration, human_size, parse_bytes, parse_duration, timestamp

FLAGS = (
    flags.boolean("interactive", "i", ""),
    flags.boolean("tty", "t", ""),
    flags.listing("publish", "p", ""),
    flags.strings("subnet", "", ""),
    flags.string("name", "n", ""),
)


@pytest.mark.parametrize(
    "words",
    [
        "-it -p 80 --name web x",
        "-i -t -p80 -nweb x",
        "-itp 80 -n=web x",
        "--interactive=true --tty --publish=80 --name=web x",
        "x -it --publish 80 --name web",
        "-it -p=80 --name web -- x",
    ],
)
def test_one_meaning_in_many_spellings(words: str) -> None:
    options, rest = flags.parse(FLAGS, words.split())
    assert (options.interactive, options.tty, options.publish, options.name) == (True, True, ["80"], "web")
    assert rest == ["x"]


def test_after_the_image_everything_is_the_command() -> None:
    options, rest = flags.parse(FLAGS, ["-i", "busybox", "-t", "--name", "x"], interspersed=False)
    assert (options.interactive, options.tty, rest) == (True, False, ["busybox", "-t", "--name", "x"])


def test_comma_separated_values_add_up() -> None:
    options, _ = flags.parse(FLAGS, ["--subnet", "a,b", "--subnet", '"c,d",e'])
    assert options.subnet == ["a", "b", "c,d", "e"]
    assert options.changed("subnet")
    assert not options.changed("name")


@given(st.lists(st.text(), max_size=5))
def test_any_arguments_parse_or_are_explained(arguments: Sequence[str]) -> None:
    with contextlib.suppress(FlagError, HelpAsked):
        flags.parse(CREATE_FLAGS, arguments, interspersed=False)


@given(st.integers(1, 65535), st.integers(1, 65535), st.sampled_from(["tcp", "udp", "sctp"]))
def test_a_published_port_keeps_its_numbers(host: int, container: int, proto: str) -> None:
    ports = parse_publish([f"127.0.0.1:{host}:{container}/{proto}"])
    assert ports.bindings == {f"{container}/{proto}": [{"HostIp": "127.0.0.1", "HostPort": str(host)}]}


@given(st.text(alphabet="0123456789:-/[]abtcpud.,=", max_size=20))
def test_any_port_specification_parses_or_is_explained(spec: str) -> None:
    try:
        ports = parse_publish([spec])
    except ValueError as error:
        assert str(error)
    else:
        assert set(ports.exposed) == set(ports.bindings)


@given(st.integers(1, 60000), st.integers(0, 50))
def test_a_range_publishes_every_port(low: int, size: int) -> None:
    spec = f"{low}-{low + size}"
    assert list(parse_publish([f"{spec}:{spec}"]).bindings) == parse_expose([spec])


@pytest.mark.parametrize(
    ("given_ports", "shown"),
    [
        ([], ""),
        ([("", 80, 0)], "80/tcp"),
        ([("", 82, 0), ("", 80, 0), ("", 81, 0)], "80-82/tcp"),
        ([("0.0.0.0", 80, 8080), ("::", 80, 8080)], "0.0.0.0:8080->80/tcp, [::]:8080->80/tcp"),
        ([("127.0.0.1", 80, 80), ("127.0.0.1", 81, 81), ("", 90, 0)], "127.0.0.1:80-81->80-81/tcp, 90/tcp"),
    ],
)
def test_neighbouring_ports_are_shown_as_ranges(given_ports: list[tuple[str, int, int]], shown: str) -> None:
    ports = [
        {"IP": ip, "PrivatePort": private, "PublicPort": public, "Type": "tcp"} for ip, private, public in given_ports
    ]
    assert display_ports(ports) == shown


def test_a_network_with_everything() -> None:
    found = parse_network(
        "name=shop,alias=a,alias=B,ip=10.0.0.2,mac-address=02:00:00:00:00:01,driver-opt=k=v,gw-priority=-1"
    )
    assert (found.target, found.aliases, found.ipv4, found.priority) == ("shop", ("a", "B"), "10.0.0.2", -1)
    assert found.driver_opts == {"k": "v"}


@given(st.text(alphabet='name=ipalis,:-w.0 "', max_size=25))
def test_any_network_parses_or_is_explained(text: str) -> None:
    try:
        parse_network(text)
    except ValueError as error:
        assert str(error)


@given(st.text(alphabet='type=bindsrcdt,/"-o0', max_size=25))
def test_any_mount_parses_or_is_explained(text: str) -> None:
    try:
        assert parse_mount(text)["Target"]
    except ValueError as error:
        assert str(error)


def test_volumes_are_binds_or_anonymous() -> None:
    assert parse_volumes(["/a:/b:ro", "data:/d", "/x"]) == (["/a:/b:ro", "data:/d"], {"/x": {}})


def test_ranges_and_gateways_go_to_their_subnet() -> None:
    pools = ipam_pools(["10.0.0.0/16", "fd00::/64"], [], ["fd00::1", "10.0.0.1"], {"r": "10.0.0.9"})
    assert pools == [
        {"Subnet": "10.0.0.0/16", "Gateway": "10.0.0.1", "AuxiliaryAddresses": {"r": "10.0.0.9"}},
        {"Subnet": "fd00::/64", "Gateway": "fd00::1"},
    ]


def test_a_body_is_json_whatever_the_flags() -> None:
    options, _ = flags.parse(CREATE_FLAGS, ["--net", "shop", "--network-alias", "www", "-p", "80:80", "--rm"])
    body = json.loads(json.dumps(create_body(options, "busybox", [])))
    assert body["HostConfig"]["NetworkMode"] == "shop"
    assert body["NetworkingConfig"]["EndpointsConfig"]["shop"]["Aliases"] == ["www"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "Less than a second"), (1, "1 second"), (59, "59 seconds"), (61, "About a minute"), (150, "2 minutes"),
     (3600, "About an hour"), (7200, "2 hours"), (86400, "24 hours"), (86400 * 3, "3 days"), (86400 * 20, "2 weeks"),
     (86400 * 90, "3 months"), (86400 * 800, "2 years")],
)  # fmt: skip
def test_durations_are_told_in_one_unit(seconds: float, text: str) -> None:
    assert human_duration(seconds) == text


def test_sizes_both_ways() -> None:
    assert [human_size(size) for size in (0, 999, 1986000, 10**9)] == ["0B", "999B", "1.99MB", "1GB"]
    assert [parse_bytes(text) for text in ("64", "1k", "1.5g", "2MiB")] == [64, 1024, 3 << 29, 2 << 20]


def test_times_from_durations_dates_and_numbers() -> None:
    assert parse_duration("1h30m") == 5400
    assert timestamp("10s", now=100) == "90"
    assert timestamp("1136073600.5") == "1136073600.5"
    assert timestamp("2006-01-02T15:04:05Z") == "1136214245.000000000"
    with pytest.raises(ValueError, match='failed to parse value as time or duration: "x"'):
        timestamp("x")


@given(st.lists(st.lists(st.text(alphabet="abcdefghij", max_size=15), min_size=3, max_size=3), min_size=1))
def test_columns_start_at_the_same_place_in_every_line(cells: list[list[str]]) -> None:
    lines = align("\t".join(row) for row in cells).splitlines()
    first = max(max(len(row[0]) for row in cells) + 3, 10)
    second = first + max(max(len(row[1]) for row in cells) + 3, 10)
    for line, row in zip(lines, cells, strict=True):
        assert (line[:first].rstrip(), line[first:second].rstrip(), line[second:]) == tuple(row)


@given(st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(min_size=1))))
def test_multiplexed_output_comes_apart_again(sent: list[tuple[int, bytes]]) -> None:
    stream = b"".join(bytes([number, 0, 0, 0]) + len(data).to_bytes(4, "big") + data for number, data in sent)
    position = 0

    def read_exactly(size: int) -> bytes:
        nonlocal position
        position += size
        return stream[position - size : position]

    assert list(frames(read_exactly)) == sent


@given(st.lists(st.binary(max_size=6)))
def test_keys_pass_until_the_detach_sequence(pieces: list[bytes]) -> None:
    keys = b"".join(pieces)
    scanner = DetachScanner(b"\x10\x11")
    out, detached = b"", False
    for piece in pieces:
        if not detached:
            sent, detached = scanner.feed(piece)
            out += sent
    assert detached == (b"\x10\x11" in keys)
    assert keys.startswith(out)
    assert len(out) >= (keys.index(b"\x10\x11") if detached else len(keys) - 1)


def test_detach_keys_are_spelled_as_in_docker() -> None:
    assert parse_detach_keys("ctrl-p,ctrl-q") == b"\x10\x11"
    assert parse_detach_keys("a,ctrl-@,ctrl-[") == b"a\x00\x1b"
    with pytest.raises(ValueError, match="Unknown character: 'foo'"):
        parse_detach_keys("ctrl-a,foo")
