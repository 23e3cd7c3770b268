"""Whatever happens to daemons, rules and the resolver itself: whoever asks gets an answer."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from dnslib import DNSRecord

from dns.netns import Namespace
from tests.daemon.harness import OUTSIDE_IP, Daemon, eventually, mended, run

NewDaemon = Callable[..., Daemon]
HOSTILE = Path(__file__).parent / "hostile.py"
PACKETS = int(os.environ.get("NETD_HOSTILE_PACKETS", "1000000"))


class Stub:
    """A resolver library inside a container: asks 127.0.0.11:53."""

    def __init__(self, daemon: Daemon, ref: str) -> None:
        self._namespace = Namespace(os.open(f"/proc/{daemon.inspect(ref)['State']['Pid']}/ns/net", os.O_RDONLY))

    def socket(self, kind: socket.SocketKind) -> socket.socket:
        sock = self._namespace.open_socket(socket.AF_INET, kind)
        sock.settimeout(5)
        sock.connect(("127.0.0.11", 53))
        return sock

    def ask(self, name: str, timeout: float = 5) -> list[str] | None:
        """The addresses of a name, or None for no answer at all."""
        query = DNSRecord.question(name)
        with self.socket(socket.SOCK_DGRAM) as sock:
            sock.settimeout(timeout)
            try:
                sock.send(query.pack())
                reply = DNSRecord.parse(sock.recv(65535))
            except OSError:
                return None
        assert reply.header.id == query.header.id
        return [str(rr.rdata) for rr in reply.rr]

    def pipeline(self, *names: str) -> dict[str, list[str]]:
        """All names on one TCP connection, before the first answer is read."""
        with self.socket(socket.SOCK_STREAM) as sock:
            messages = [bytes(DNSRecord.question(name).pack()) for name in names]
            sock.sendall(b"".join(struct.pack("!H", len(m)) + m for m in messages))
            with sock.makefile("rb") as stream:
                replies = [DNSRecord.parse(stream.read(*struct.unpack("!H", stream.read(2)))) for _ in names]
        return {str(r.q.qname).rstrip("."): [str(rr.rdata) for rr in r.rr] for r in replies}


@pytest.fixture
def shop(daemon: Daemon) -> Daemon:
    daemon.network("shop", IPAM={"Config": [{"Subnet": "10.77.0.0/24"}]})
    for name in ("db", "web"):
        daemon.run_container(name, network="shop")
    return daemon


def resolver_pid(daemon: Daemon) -> int:
    return next(pid for pid, words in daemon.processes().items() if "-m dns --control" in words)


def resident(pid: int) -> float:
    """MiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


@pytest.mark.skipif(shutil.which("dnsperf") is None, reason="needs dnsperf")
def test_daemons_killed_again_and_again_while_networks_change(new_daemon: NewDaemon, tmp_path: Path) -> None:
    daemon = new_daemon()
    daemon.network("shop")
    for number in range(5):
        daemon.run_container(f"c{number}", network="shop")
    queries = tmp_path / "queries"
    queries.write_text("".join(f"c{n} A\nC{n}.shop AAAA\n" for n in range(5)))
    pid = daemon.inspect("c0")["State"]["Pid"]
    load = subprocess.Popen(
        [
            *("nsenter", f"--net=/proc/{pid}/ns/net", "dnsperf", "-s", "127.0.0.11", "-d", str(queries)),
            *("-l", "15", "-Q", "1500", "-q", "3000", "-c", "10", "-t", "3"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    rounds = 0
    while load.poll() is None:
        storm(daemon, rounds)
        daemon.kill9()
        daemon.start()
        rounds += 1
    output, _ = load.communicate()
    sent, lost = (int(re.findall(rf"Queries {w}:\s+(\d+)", output)[0]) for w in ("sent", "lost"))
    assert rounds >= 3
    assert sent > 3000 and lost == 0, output
    assert "NOERROR" in output and "SERVFAIL" not in output and "NXDOMAIN" not in output, output


def storm(daemon: Daemon, turn: int) -> None:
    """Networks and containers come and go; the asking container itself is connected and disconnected."""
    for number in range(2):
        network, container = f"n{turn}-{number}", f"x{turn}-{number}"
        daemon.network(network)
        daemon.run_container(container, network="shop")
        for ref in (container, "c0"):
            assert daemon.api("POST", f"/networks/{network}/connect", {"Container": ref}).status == 200
        for ref in ("c0", container):
            assert daemon.api("POST", f"/networks/{network}/disconnect", {"Container": ref}).status == 200
        daemon.remove_container(container)
        assert daemon.api("DELETE", f"/networks/{network}").status == 204


def test_rules_flushed_on_the_machine(shop: Daemon) -> None:
    stub = Stub(shop, "web")
    known = [shop.address("db", "shop")]
    mended(
        lambda: shop.host.run("nft", "flush", "ruleset"),
        lambda: stub.ask("db", 0.1) == known and stub.ask("www.example.test", 0.2) == ["198.51.100.7"],
    )


def test_rules_flushed_inside_a_container(shop: Daemon) -> None:
    stub = Stub(shop, "web")
    netns = f"--net=/proc/{shop.inspect('web')['State']['Pid']}/ns/net"
    known = [shop.address("db", "shop")]
    for _ in range(3):
        mended(lambda: shop.host.run("nsenter", netns, "nft", "flush", "ruleset"), lambda: stub.ask("db", 0.1) == known)


@pytest.mark.skipif(shutil.which("iptables") is None, reason="needs iptables")
def test_a_container_that_manages_its_own_iptables(shop: Daemon) -> None:
    stub = Stub(shop, "web")
    netns = f"--net=/proc/{shop.inspect('web')['State']['Pid']}/ns/net"
    for table in ("nat", "raw", "filter"):
        for flag in ("-F", "-X"):
            shop.host.run("nsenter", netns, "iptables", "-t", table, flag)
            assert stub.ask("db", 0.5) == [shop.address("db", "shop")]


def test_the_resolver_killed(shop: Daemon) -> None:
    for number in range(10):
        shop.run_container(f"c{number}", network="shop")
    stubs = [Stub(shop, f"c{number}") for number in range(10)]
    known = [shop.address("db", "shop")]

    def all_answered() -> bool:
        return all(stub.ask("db", 0.1) == known for stub in stubs) and (
            stubs[0].ask("www.example.test", 0.5) == ["198.51.100.7"]
        )

    for _ in range(2):
        mended(lambda: os.kill(resolver_pid(shop), signal.SIGKILL), all_answered, within=2)


def test_a_container_that_starts_and_a_daemon_that_starts_while_the_resolver_stands_still(shop: Daemon) -> None:
    """Nothing waits for it for long, and when it goes on it is told all it missed."""
    pid = resolver_pid(shop)
    os.kill(pid, signal.SIGSTOP)
    try:
        late = shop.run_container("late", network="shop")
        shop.run_container("later", network="shop")
        shop.remove_container("db")
        shop.kill9()
        shop.start()
        assert shop.inspect(late)["State"]["Running"]
    finally:
        os.kill(pid, signal.SIGCONT)
    stubs = [Stub(shop, name) for name in ("web", "late", "later")]
    for name in ("web", "late", "later"):
        eventually(lambda name=name: all(stub.ask(name, 0.5) == [shop.address(name, "shop")] for stub in stubs))
    eventually(lambda: all(stub.ask("db", 0.5) == [] for stub in stubs))
    assert resolver_pid(shop) == pid


def test_udp_and_tcp_and_pipelining(shop: Daemon) -> None:
    stub = Stub(shop, "web")
    known = {name: [shop.address(name, "shop")] for name in ("db", "web")}
    outside = {"www.example.test": ["198.51.100.7"], "nosuch.example.test": []}
    assert {name: stub.ask(name) for name in known | outside} == known | outside
    assert (
        stub.pipeline(*(known | outside), *[f"{'x' * n}.db.shop" for n in range(1, 60)], "web.shop").items()
        >= (known | outside | {"web.shop": known["web"]}).items()
    )


def test_a_container_that_is_a_name_server_itself(shop: Daemon) -> None:
    shop.serve("web", 53)
    stub = Stub(shop, "web")
    assert stub.ask("db") == [shop.address("db", "shop")]
    assert stub.pipeline("db") == {"db": [shop.address("db", "shop")]}
    for kind in ("udp", "tcp"):
        assert shop.ask_from("db", shop.address("web", "shop"), 53, kind).endswith(" 53")


def test_a_million_hostile_packets(shop: Daemon) -> None:
    pid = resolver_pid(shop)
    netns = f"--net=/proc/{shop.inspect('web')['State']['Pid']}/ns/net"
    innocent = Stub(shop, "db")
    quiet = latencies(innocent, shop, 200)
    with hostile(netns, "tcp", "1000000"), hostile(netns, "udp", str(PACKETS)) as flood:
        busy: list[float] = []
        sizes = []
        while flood.poll() is None:
            busy += latencies(innocent, shop, 20)
            sizes.append(resident(pid))
            time.sleep(0.05)
        assert flood.returncode == 0
    assert resolver_pid(shop) == pid
    # four busy processes may share two processors: a moment for that, and others may use them before or after
    quiet = max(statistics.median(times) for times in (quiet, latencies(innocent, shop, 200)))
    assert statistics.median(busy) < quiet + 0.01
    assert sorted(busy)[int(len(busy) * 0.99)] < 0.25
    # the cache and the ready answers fill, within their bounds; then there is no growth
    assert max(sizes) < 120
    assert sizes[-1] < sizes[len(sizes) // 2] + 16
    eventually(lambda: Stub(shop, "web").ask("db", 0.5) == [shop.address("db", "shop")])


@contextlib.contextmanager
def hostile(netns: str, *what: str) -> Iterator[subprocess.Popen[bytes]]:
    """A hostile program in a container's network; see hostile.py."""
    process = subprocess.Popen(["nsenter", netns, sys.executable, HOSTILE, *what])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def latencies(stub: Stub, daemon: Daemon, count: int) -> list[float]:
    """Seconds for each of so many answered questions."""
    taken = []
    for _ in range(count):
        start = time.perf_counter()
        assert stub.ask("db", 1)
        taken.append(time.perf_counter() - start)
    return taken


def test_the_machine_s_resolv_conf_is_followed(new_daemon: NewDaemon, tmp_path: Path) -> None:
    file = tmp_path / "resolv.conf"
    file.write_text(f"nameserver {OUTSIDE_IP}\n")
    run("mount", "--bind", file, "/etc/resolv.conf")  # the whole run has its own mount namespace
    try:
        daemon = new_daemon("--debug")
        daemon.host.start_dns()
        second = "192.0.2.3"
        run("ip", "-n", daemon.host.outside, "address", "add", f"{second}/24", "dev", "lan")
        daemon.host.spawn(
            daemon.host.outside,
            *("dnsmasq", "--keep-in-foreground", "--no-resolv", "--no-hosts", "--conf-file=/dev/null", "--user=root"),
            *(f"--listen-address={second}", "--bind-interfaces", "--pid-file="),
            "--host-record=www.example.test,198.51.100.8",
        )
        daemon.network("shop")
        daemon.run_container("web", network="shop")
        stub = Stub(daemon, "web")
        eventually(lambda: stub.ask("www.example.test", 1) == ["198.51.100.7"])
        for address, answer in ((second, "198.51.100.8"), (OUTSIDE_IP, "198.51.100.7")):
            file.write_text(f"# changed\nnameserver {address}\n")
            eventually(lambda answer=answer: stub.ask("www.example.test", 1) == [answer], within=2)
    finally:
        run("umount", "/etc/resolv.conf")
