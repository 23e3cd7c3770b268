"""Verbs that Docker does not have: the requests they make, and what they print."""

from __future__ import annotations

import json
import shlex
from typing import Any

import pytest

from tests.cli.conftest import netd
from tests.cli.recorder import Recorder, Request

VIEW = {
    "Id": "c0ffee" * 10 + "abcd",
    "Name": "build",
    "Netns": "/run/netns/build",
    "Networks": {"shop": ["10.1.2.3", "fd00::3"], "back": ["10.9.0.2"]},
    "Nameserver": "127.0.0.11",
}
ATTACH: dict[str, Any] = {
    "Name": "build",
    "Netns": "",
    "Pid": 0,
    "Networks": [],
    "Aliases": [],
    "Dns": [],
    "DnsSearch": [],
    "DnsOptions": [],
    "DnsRoutes": [],
}


def words(text: str) -> list[str]:
    return shlex.split(text)


@pytest.mark.parametrize(
    ("line", "body"),
    [
        ("--netns /run/netns/build --name build", {"Netns": "/run/netns/build"}),
        ("--netns build --name build", {"Netns": "/run/netns/build"}),
        ("--pid 42 --name=build", {"Pid": 42}),
        (
            "--pid 42 --name build --network a --network b --alias x --alias y",
            {"Pid": 42, "Networks": ["a", "b"], "Aliases": ["x", "y"]},
        ),
        (
            "--pid 42 --name build --dns 192.0.2.1:5353 --dns-search corp --dns-opt ndots:1 --dns-route corp=::1",
            {
                "Pid": 42,
                "Dns": ["192.0.2.1:5353"],
                "DnsSearch": ["corp"],
                "DnsOptions": ["ndots:1"],
                "DnsRoutes": ["corp=::1"],
            },
        ),
    ],
)
def test_a_namespace_is_attached(recorder: Recorder, line: str, body: dict[str, Any]) -> None:
    recorder.answers["/netd/sandboxes"] = VIEW
    done = netd(recorder.host, "attach", *words(line))
    assert done.returncode == 0, done.stderr
    assert recorder.requests == [Request("POST", "/netd/sandboxes", {}, ATTACH | body)]


def test_who_attaches_is_told_addresses_and_resolver(recorder: Recorder) -> None:
    recorder.answers["/netd/sandboxes"] = VIEW
    assert netd(recorder.host, "attach", "--netns", "build", "--name", "build").stdout.splitlines() == [
        "build is on network shop as 10.1.2.3, fd00::3",
        "build is on network back as 10.9.0.2",
        "It resolves names at `nameserver 127.0.0.11`; for `ip netns exec build`:",
        "  mkdir -p /etc/netns/build && echo 'nameserver 127.0.0.11' >/etc/netns/build/resolv.conf",
    ]
    recorder.answers["/netd/sandboxes"] = VIEW | {"Netns": "/proc/42/ns/net"}
    told = netd(recorder.host, "attach", "--pid", "42", "--name", "build").stdout
    assert told.endswith("`nameserver 127.0.0.11`: that line belongs in its /etc/resolv.conf\n")
    recorder.answers["/netd/sandboxes"] = VIEW | {"Nameserver": ""}
    assert "nameserver" not in netd(recorder.host, "attach", "--pid", "42", "--name", "build").stdout


def test_attached_namespaces_are_listed(recorder: Recorder) -> None:
    recorder.answers["/netd/sandboxes"] = [VIEW]
    assert netd(recorder.host, "attach", "--list").stdout.splitlines() == [
        "ID             NAME      NETNS              NETWORKS",
        "c0ffeec0ffee   build     /run/netns/build   shop=10.1.2.3/fd00::3, back=10.9.0.2",
    ]
    assert netd(recorder.host, "attach", "-l", "--format", "{{.Name}}").stdout == "build\n"


def test_detach_takes_several_names(recorder: Recorder) -> None:
    assert netd(recorder.host, "detach", "one", "two").stdout == "one\ntwo\n"
    assert [request[:2] for request in recorder.requests] == [
        ("DELETE", "/netd/sandboxes/one"),
        ("DELETE", "/netd/sandboxes/two"),
    ]


def test_without_a_namespace_attach_is_dockers(recorder: Recorder) -> None:
    done = netd(recorder.host, "attach")
    assert (done.returncode, done.stderr.splitlines()[0]) == (1, "netd: 'netd attach' requires 1 argument")
    recorder.answers["/containers/web/json"] = {"State": {"Running": False}, "Config": {}}
    assert "cannot attach to a stopped container" in netd(recorder.host, "attach", "web").stderr


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "add shop www A 10.1.2.3",
            ("POST", "/netd/dns/records/shop", {}, {"Name": "www", "Type": "A", "Data": "10.1.2.3", "TTL": None}),
        ),
        (
            "add shop _ldap._tcp SRV 0 5 389 web --ttl 60",
            (
                "POST",
                "/netd/dns/records/shop",
                {},
                {"Name": "_ldap._tcp", "Type": "SRV", "Data": "0 5 389 web", "TTL": 60},
            ),
        ),
        ("rm shop www", ("DELETE", "/netd/dns/records/shop", {"name": ["www"]}, None)),
        ("remove shop www txt", ("DELETE", "/netd/dns/records/shop", {"name": ["www"], "type": ["txt"]}, None)),
    ],
)
def test_static_records(recorder: Recorder, line: str, expected: tuple[Any, ...]) -> None:
    assert netd(recorder.host, "dns", "record", *words(line)).returncode == 0
    assert recorder.requests == [Request(*expected)]


def test_explain_asks_for_a_container(recorder: Recorder) -> None:
    recorder.answers["/netd/dns/explain"] = {
        "Name": "www.",
        "Type": "AAAA",
        "Source": "none",
        "Records": [],
        "Steps": [{"Rule": "upstreams", "Outcome": "none that may be used: SERVFAIL", "Answers": False}],
    }
    done = netd(recorder.host, "dns", "explain", "www", "--type", "AAAA", "--from", "web")
    assert recorder.requests[0].query == {"name": ["www"], "type": ["AAAA"], "from": ["web"]}
    assert done.stdout.splitlines() == [
        "www. AAAA, asked by web, is answered by nobody:",
        "",
        "          STEP      RULE        OUTCOME",
        "          1         upstreams   none that may be used: SERVFAIL",
    ]


def test_the_log_is_text_or_json(recorder: Recorder) -> None:
    entry = {
        "Time": "2026-01-02T03:04:05.000006Z",
        "Sandbox": "f" * 64,
        "Container": "web",
        "Client": "127.0.0.1",
        "Transport": "udp",
        "Name": "db.",
        "Type": "A",
        "Rcode": "NOERROR",
        "Source": "local",
        "Records": 1,
        "Latency": 0.000123,
    }
    recorder.answers["/netd/dns/log"] = entry
    line = "2026-01-02T03:04:05.000006Z web 127.0.0.1 udp db. A NOERROR 1 local 0.123ms\n"
    assert netd(recorder.host, "dns", "log", "-f", "web").stdout == line
    assert recorder.requests[0].query == {"follow": ["1"], "container": ["web"]}
    assert json.loads(netd(recorder.host, "dns", "log", "--format", "json").stdout) == entry


def test_a_container_is_given_routes_of_its_own(recorder: Recorder) -> None:
    done = netd(recorder.host, "create", "--dns-route", "a=192.0.2.1", "--dns-route", "b=192.0.2.2,::1", "busybox")
    assert done.returncode == 0, done.stderr
    assert recorder.requests[-1].body["HostConfig"]["DnsRoutes"] == ["a=192.0.2.1", "b=192.0.2.2,::1"]
    netd(recorder.host, "create", "busybox")
    assert "DnsRoutes" not in recorder.requests[-1].body["HostConfig"]


@pytest.mark.parametrize(("line", "verbs"), [("dns", "explain log record"), ("dns record", "add ls rm")])
def test_a_group_shows_its_verbs(recorder: Recorder, line: str, verbs: str) -> None:
    text = netd(recorder.host, *line.split()).stdout
    listed = text.partition("Commands:\n")[2].partition("\n\n")[0].splitlines()
    assert [row.split()[0] for row in listed] == verbs.split()
    wrong = netd(recorder.host, *line.split(), "nosuch")
    assert (wrong.returncode, wrong.stderr.splitlines()[0]) == (1, f"netd: unknown command: netd {line} nosuch")


def test_help_lists_groups_once(recorder: Recorder) -> None:
    listed = [line.split()[0] for line in netd(recorder.host).stdout.splitlines() if line.startswith("  ")]
    assert listed.count("dns") == 1
    assert "attach" in listed and "detach" in listed
