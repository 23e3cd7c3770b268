"""What netd's resolver has beside Docker's: static records, SRV, wildcards, TTLs, routes, explanations, the log."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from dnslib import QTYPE, DNSLabel, DNSRecord

from tests.daemon.harness import NETD, OUTSIDE_IP, ROOT, Daemon, eventually

ASK = (
    "import sys; from dnslib import DNSRecord;"
    "q = DNSRecord.question(sys.argv[1], sys.argv[2]);"
    "print(q.send('127.0.0.11', 53, timeout=3).hex())"
)


@pytest.fixture(scope="module", params=["on", "off"])
def daemon_options(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """Both ways of answering: in the kernel, and by the resolver process."""
    return (f"--dns-kernel={request.param}", f"--dns={OUTSIDE_IP}")


def ask(daemon: Daemon, ref: str, name: str, kind: str = "A") -> DNSRecord:
    """The resolver's answer to a question from a container."""
    done = daemon.inside(ref, ROOT / ".venv/bin/python", "-c", ASK, name, kind)
    return DNSRecord.parse(bytes.fromhex(done.stdout))


def answers(daemon: Daemon, ref: str, name: str, kind: str = "A") -> list[tuple[str, str]]:
    """Type and data of each record in the answer."""
    return [(QTYPE[record.rtype], str(record.rdata)) for record in ask(daemon, ref, name, kind).rr]


def shop(daemon: Daemon, **options: str) -> Daemon:
    daemon.network("shop", IPAM={"Config": [{"Subnet": "10.77.0.0/24"}]}, Options=options)
    daemon.run_container(
        "web",
        network="shop",
        HostConfig={"PortBindings": {"80/tcp": [{"HostPort": "8080"}]}},
        NetworkingConfig={"EndpointsConfig": {"shop": {"Aliases": ["*.app"]}}},
    )
    return daemon


# ---- static records ---------------------------------------------------------------------------------------

RECORDS = {
    ("www", "A"): ("10.1.2.3", [("A", "10.1.2.3")]),
    ("six", "AAAA"): ("fd00::1", [("AAAA", "fd00::1")]),
    ("front", "CNAME"): ("web", [("CNAME", "web."), ("A", "10.77.0.2")]),
    ("note", "TXT"): ('say "hi"; go', [("TXT", '"say "hi"; go"')]),
    ("_ldap._tcp", "SRV"): ("0 5 389 web", [("SRV", "0 5 389 web.")]),
}


def all_resolve(daemon: Daemon) -> None:
    for (name, kind), (_, expected) in RECORDS.items():
        assert answers(daemon, "web", name, "A" if kind == "CNAME" else kind) == expected


def test_static_records_of_every_type_survive_the_daemon_and_the_resolver(new_daemon: Callable[..., Daemon]) -> None:
    daemon = shop(new_daemon())
    for (name, kind), (data, _) in RECORDS.items():
        daemon.netd("dns", "record", "add", "shop", name, kind, data)
    all_resolve(daemon)
    daemon.kill9()
    daemon.start()
    all_resolve(daemon)
    (resolver,) = (pid for pid, words in daemon.processes().items() if "-m dns " in words)
    os.kill(resolver, signal.SIGKILL)
    eventually(lambda: any("-m dns " in words for pid, words in daemon.processes().items() if pid != resolver))
    # a name that is not answered in the kernel, which never stopped
    eventually(lambda: daemon.resolve("web", "front"), within=15)
    all_resolve(daemon)


def test_records_are_listed_and_removed_by_name_and_type(daemon: Daemon) -> None:
    shop(daemon)
    for words in ("www A 10.1.2.3 --ttl 5", "www A 10.1.2.4", "www AAAA fd00::1", "WWW. a 10.1.2.4"):
        daemon.netd("dns", "record", "add", "shop", *words.split())
    listed = daemon.netd("dns", "record", "ls", "shop").stdout.splitlines()
    assert [line.split() for line in listed] == [
        ["NAME", "TTL", "TYPE", "DATA"],
        ["www", "5", "A", "10.1.2.3"],
        ["www", "A", "10.1.2.4"],
        ["www", "AAAA", "fd00::1"],
    ]
    assert sorted(answers(daemon, "web", "www")) == [("A", "10.1.2.3"), ("A", "10.1.2.4")]
    daemon.netd("dns", "record", "rm", "shop", "www", "A")
    assert answers(daemon, "web", "www") == []
    assert answers(daemon, "web", "www", "AAAA") == [("AAAA", "fd00::1")]
    daemon.netd("dns", "record", "rm", "shop", "www")
    assert daemon.get("/netd/dns/records/shop") == []
    assert "there is no static record www" in daemon.netd("dns", "record", "rm", "shop", "www", check=False).stderr


def test_records_go_with_their_network(daemon: Daemon) -> None:
    daemon.network("shop")
    daemon.netd("dns", "record", "add", "shop", "www", "A", "10.1.2.3")
    daemon.api("DELETE", "/networks/shop")
    daemon.network("shop")
    assert daemon.get("/netd/dns/records/shop") == []


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("shop www A nonsense", "'nonsense' is not the data of a record of type A: write IPV4-ADDRESS"),
        ("shop www AAAA 10.1.2.3", "'10.1.2.3' is not the data of a record of type AAAA: write IPV6-ADDRESS"),
        ("shop www SRV 0 web 80", "'0 web 80' is not the data of a record of type SRV"),
        ("shop www SRV 0 0 x web", "is not a resource record"),
        ("shop www CNAME a;b", "'a;b' is not the data of a record of type CNAME"),
        ("shop www MX 10 mail", "records of type 'MX' are not kept: use one of A, AAAA, CNAME, SRV, TXT"),
        ("shop w;w A 10.1.2.3", "'w;w' is not a name that a record can have"),
        ("shop $TTL A 10.1.2.3", "'$TTL' is not a name that a record can have"),
        ("shop www A 10.1.2.3 --ttl -5", "a TTL of -5 is not a number of seconds"),
        ("nosuch www A 10.1.2.3", "network nosuch not found"),
        ("bridge www A 10.1.2.3", "no names are served on network bridge"),
    ],
)
def test_what_is_no_record_is_refused(daemon: Daemon, words: str, told: str) -> None:
    daemon.network("shop")
    refused = daemon.netd("dns", "record", "add", *words.split(), check=False)
    assert (refused.returncode, told in refused.stderr) == (1, True), refused.stderr
    assert daemon.get("/netd/dns/records/shop") == []


@pytest.mark.parametrize("data", ["10.1.2.3\nwww IN A 10.6.6.6", "\x1b[31m", 'x" \n "y', "\u202e"])
def test_a_record_cannot_smuggle_in_another(daemon: Daemon, data: str) -> None:
    daemon.network("shop")
    for kind in ("A", "TXT"):
        reply = daemon.api("POST", "/netd/dns/records/shop", {"Name": "www", "Type": kind, "Data": data})
        assert reply.status == 400, reply
        assert "\n" not in reply.message and "\x1b" not in reply.message


# ---- what comes by itself ---------------------------------------------------------------------------------


def test_a_published_port_has_an_srv_record(daemon: Daemon) -> None:
    shop(daemon)
    reply = ask(daemon, "web", "_80._tcp.web", "SRV")
    assert [(str(r.rdata.target), r.rdata.port) for r in reply.rr] == [("web.shop.", 80)]
    assert answers(daemon, "web", "_80._udp.web", "SRV") == []


def test_a_wildcard_alias_is_every_name_below_it(daemon: Daemon) -> None:
    shop(daemon)
    address = daemon.address("web", "shop")
    for name in ("one.app", "two.app", "a.b.app"):
        assert answers(daemon, "web", name) == [("A", address)]
    assert answers(daemon, "web", "app") == []


def test_a_network_has_a_ttl_of_its_own(daemon: Daemon) -> None:
    shop(daemon, **{"netd.dns.ttl": "77"})
    assert [record.ttl for record in ask(daemon, "web", "web").rr] == [77]


def test_a_domain_is_asked_of_a_server_of_its_own(daemon: Daemon) -> None:
    daemon.network("shop")
    command = ("busybox", "nslookup", "www.example.test")
    lost = daemon.netd(
        "run", "--rm", "--net", "shop", "--dns", "192.0.2.99", "--dns-opt", "timeout:1", *command, check=False
    )
    assert "198.51.100.7" not in lost.stdout
    route = ("--dns", "192.0.2.99", "--dns-route", f"example.test={OUTSIDE_IP}")
    found = daemon.netd("run", "--rm", "--net", "shop", *route, *command)
    assert "198.51.100.7" in found.stdout
    refused = daemon.netd("run", "--rm", "--dns-route", "example.test", *command, check=False)
    assert "write DOMAIN=SERVER" in refused.stderr


# ---- explain ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind", "source", "rule"),
    [
        ("web", "A", "local", "name web on network 'shop'"),
        ("web.shop", "A", "local", "name web on network 'shop'"),
        ("x.app", "A", "local", "wildcard *.app on network 'shop'"),
        ("www", "A", "local", "name www on network 'shop'"),
        ("web", "MX", "local", "name web on network 'shop'"),
        ("_80._tcp.web", "SRV", "local", "port 80/tcp of name web"),
        ("www.example.test", "A", "upstream", f"upstream {OUTSIDE_IP}:53"),
    ],
)
def test_explain_names_the_rule_that_answers(daemon: Daemon, name: str, kind: str, source: str, rule: str) -> None:
    shop(daemon)
    daemon.netd("dns", "record", "add", "shop", "www", "A", "10.1.2.3")
    done = daemon.netd("dns", "explain", name, "--type", kind, "--from", "web", "--format", "json")
    told = json.loads(done.stdout)
    assert told["Source"] == source
    assert [step["Rule"] for step in told["Steps"] if step["Answers"]] == [rule]
    asked = [
        f"{record.rname} {record.ttl} IN {QTYPE[record.rtype]} {record.rdata}"
        for record in ask(daemon, "web", name, kind).rr
    ]
    assert source == "upstream" or told["Records"] == asked


def test_explain_tells_why_the_other_networks_do_not_answer(daemon: Daemon) -> None:
    shop(daemon)
    daemon.network("back")
    daemon.run_container("db", network="back")
    daemon.api("POST", "/networks/shop/connect", {"Container": "db"})
    lines = daemon.netd("dns", "explain", "web", "--from", "db").stdout.splitlines()
    assert lines[0] == "web. A, asked by db, is answered by netd itself:"
    assert lines[1] == f"web. 10 IN A {daemon.address('web', 'shop')}"
    steps = [line.removeprefix("->").split(maxsplit=1)[1].strip() for line in lines[4:]]
    if daemon.get("/info")["Names"]["Kernel"]:
        assert steps.pop(0).split() == ["kernel", "answers,", "without", "asking", "the", "resolver"]
    assert [step.split() for step in steps] == [
        ["network", "'back'", "no", "such", "name"],
        ["network", "'shop'", "name", "web"],
        ["name", "web", "on", "network", "'shop'", "1", "record"],
    ]
    assert [line.startswith("->") for line in lines[4:]] == [False] * (len(lines) - 5) + [True]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("web", "add --from CONTAINER"),
        ("web --from nosuch", "no container or attached namespace is called nosuch"),
        ("web --from plain", "plain does not ask netd's resolver"),
        ("web --from idle", "container idle is not running: start it first"),
        ("web --from web --type XX", "'XX' is not a record type"),
        (f"{'x' * 64} --from web", "63"),
        ("web --from web --format xml", "unknown format xml: use text or json"),
    ],
)
def test_what_cannot_be_explained_is_said(daemon: Daemon, words: str, told: str) -> None:
    shop(daemon)
    daemon.run_container("plain")
    daemon.create("idle", network="shop")
    refused = daemon.netd("dns", "explain", *words.split(), check=False)
    assert (refused.returncode, told in refused.stderr) == (1, True), refused.stderr


# ---- the log ----------------------------------------------------------------------------------------------


@contextmanager
def followed(daemon: Daemon, *words: str) -> Iterator[Callable[[], list[str]]]:
    """`netd dns log --follow` while it runs; call for the lines so far."""
    path = daemon.directory / "followed"
    with path.open("wb") as output:
        command = [NETD, "dns", "log", "--follow", *words]
        with subprocess.Popen(command, stdout=output, env=daemon.environment) as process:

            def lines() -> list[str]:
                return path.read_text().splitlines()

            started = time.monotonic()
            while not lines() and time.monotonic() < started + 10:
                daemon.exec("web", "nslookup", "first.example.test")  # until the log has begun
            yield lines
            process.terminate()


def test_the_log_shows_who_asked_what_and_who_answered(daemon: Daemon) -> None:
    shop(daemon)
    with followed(daemon, "--format", "json") as lines:

        def entry(name: str) -> Any:
            return next((e for line in lines() if (e := json.loads(line))["Name"] == name), None)

        ask(daemon, "web", "web")
        ask(daemon, "web", "www.example.test")
        ask(daemon, "web", "nosuch.example.test", "TXT")
        local, outside = eventually(lambda: entry("web.")), eventually(lambda: entry("www.example.test."))
        missing = eventually(lambda: entry("nosuch.example.test."))
    source = "kernel" if daemon.get("/info")["Names"]["Kernel"] else "local"
    assert (local["Container"], local["Type"], local["Source"], local["Rcode"]) == ("web", "A", source, "NOERROR")
    assert (outside["Source"], outside["Records"], outside["Transport"]) == ("upstream", 1, "udp")
    assert (missing["Type"], missing["Rcode"]) == ("TXT", "NXDOMAIN")
    assert 0 < local["Latency"] < 1


def test_the_log_of_one_container_shows_no_other(daemon: Daemon) -> None:
    shop(daemon)
    daemon.run_container("db", network="shop")
    with followed(daemon, "web") as lines:
        ask(daemon, "db", "secret.example.test")
        ask(daemon, "web", "last.example.test")
        eventually(lambda: "last.example.test." in lines()[-1])
        assert all(line.split()[1] == "web" for line in lines())


def test_without_follow_the_log_ends_by_itself(daemon: Daemon) -> None:
    shop(daemon)
    started = time.monotonic()
    assert daemon.netd("dns", "log").stdout == ""
    assert time.monotonic() - started < 5


def test_the_log_goes_on_with_the_next_resolver_process(daemon: Daemon) -> None:
    shop(daemon)
    with followed(daemon) as lines:
        for pid, words in daemon.processes().items():
            if "-m dns " in words:
                os.kill(pid, signal.SIGKILL)

        def heard() -> bool:
            daemon.exec("web", "nslookup", "again.example.test")
            return any("again.example.test." in line for line in lines())

        eventually(heard, within=15)


HOSTILE = [
    b"line\nbreak",
    b"\x1b[31mred",
    b"two words",
    b"dot.in.label",
    b"back\\slash",
    b'"quoted"',
    "\u202eabc".encode(),
    bytes(range(1, 33)),
]


def test_no_name_can_forge_a_line_of_the_log(daemon: Daemon) -> None:
    """A name is one word of printable ASCII in the log, whatever bytes were asked for."""
    shop(daemon)
    with followed(daemon) as lines:
        for label in HOSTILE:
            query = DNSRecord.question("placeholder")
            query.questions[0].qname = DNSLabel([label, b"example", b"test"])
            script = (
                "import socket, sys; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(3);"
                "s.sendto(bytes.fromhex(sys.argv[1]), ('127.0.0.11', 53)); s.recv(4096)"
            )
            daemon.inside("web", ROOT / ".venv/bin/python", "-c", script, query.pack().hex())
        ask(daemon, "web", "last.example.test")
        eventually(lambda: "last.example.test." in lines()[-1])
        asked = [line for line in lines() if "first.example.test" not in line]
    assert len(asked) == len(HOSTILE) + 1
    for line in asked:
        assert len(line.split()) == 10
        assert line.isascii() and line.isprintable()
    assert r"line\010break.example.test." in asked[0]
    assert r"dot\.in\.label.example.test." in asked[3] or r"dot\046in\046label.example.test." in asked[3]
