"""Names answered in the kernel, with whole daemons: nothing inside a container breaks them, and nobody has to live."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.daemon.harness import OUTSIDE_IP, ROOT, Daemon, eventually, mended, run
from tests.daemon.test_never_silent import Stub, resolver_pid

NewDaemon = Callable[..., Daemon]


@pytest.fixture(scope="module")
def daemon_options() -> tuple[str, ...]:
    return ("--dns-kernel=on", f"--dns={OUTSIDE_IP}")


def fill(daemon: Daemon) -> Daemon:
    daemon.network("shop", IPAM={"Config": [{"Subnet": "10.77.0.0/24"}]})
    for name in ("db", "web"):
        daemon.run_container(name, network="shop")
    return daemon


@pytest.fixture
def shop(daemon: Daemon) -> Daemon:
    return fill(daemon)


def inside(daemon: Daemon, ref: str) -> tuple[str, str]:
    return "nsenter", f"--net=/proc/{daemon.inspect(ref)['State']['Pid']}/ns/net"


@contextlib.contextmanager
def no_pause(daemon: Daemon, folder: Path, seconds: int = 2) -> Iterator[None]:
    """Known names are asked for in `web` all the time, and each question is answered at once."""
    (folder / "questions").write_text("db A\nDB.shop A\nweb AAAA\n")
    load = ("-l", seconds, "-Q", "2000", "-c", "10", "-t", "1")
    words = ("dnsperf", "-s", "127.0.0.11", "-d", folder / "questions", *load)
    asking = subprocess.Popen([*inside(daemon, "web"), *map(str, words)], stdout=subprocess.PIPE, text=True)
    try:
        yield
        said = asking.communicate()[0]
    finally:
        asking.kill()
        asking.wait()
    assert "Queries lost:         0 " in said and re.search(r"NOERROR \d+ \(100", said), said


def filters(daemon: Daemon, ref: str) -> str:
    return str(daemon.host.run(*inside(daemon, ref), "tc", "filter", "show", "dev", "lo", "egress").stdout)


def test_info_tells_who_answers_and_how_many(shop: Daemon) -> None:
    before = shop.get("/info")["Names"]
    stub = Stub(shop, "web")
    for name, count in (("db", 20), ("www.example.test", 5)):
        for _ in range(count):
            assert stub.ask(name)
    after = shop.get("/info")["Names"]
    assert (before["Kernel"], after["Reason"]) == (True, "")
    assert after["AnsweredInKernel"] - before["AnsweredInKernel"] == 20
    assert after["PassedByKernel"] - before["PassedByKernel"] == 5
    assert " Names: answered in the kernel\n" in shop.netd("info").stdout
    assert "names are answered in the kernel" in shop.log.read_text()


@pytest.mark.skipif(shutil.which("dnsperf") is None, reason="needs dnsperf")
def test_rules_flushed_and_port_53_taken_inside_make_no_pause(shop: Daemon, tmp_path: Path) -> None:
    stub, known = Stub(shop, "web"), [shop.address("db", "shop")]
    with no_pause(shop, tmp_path):
        shop.serve("web", 53)  # a server of its own on 0.0.0.0:53, udp and tcp
        for _ in range(5):
            shop.host.run(*inside(shop, "web"), "nft", "flush", "ruleset")
            shop.host.run(*inside(shop, "web"), "iptables", "-t", "nat", "-F", check=False)
            assert stub.ask("db", 0.5) == known and stub.pipeline("db") == {"db": known}
            assert stub.ask("www.example.test", 1) == ["198.51.100.7"]


def test_what_is_taken_from_loopback_comes_back(shop: Daemon) -> None:
    stub, known = Stub(shop, "web"), [shop.address("db", "shop")]
    for damage in (("qdisc", "del", "dev", "lo", "clsact"), ("filter", "del", "dev", "lo", "egress")):
        command = (*inside(shop, "web"), "tc", *damage)
        mended(
            lambda command=command: shop.host.run(*command),  # type: ignore[misc]
            lambda: stub.ask("db", 0.1) == known and "netd-dns" in filters(shop, "web"),
        )


def test_filters_of_the_container_s_own_are_left_alone(shop: Daemon) -> None:
    for place in (("pref", "5"), ("pref", "50")):
        words = ("filter", "add", "dev", "lo", "egress", "protocol", "ip", *place, "bpf", "bytecode", "1,6 0 0 0")
        shop.host.run(*inside(shop, "web"), "tc", *words)
    before = filters(shop, "web")
    shop.stop()
    shop.start()
    shown = [re.sub(r" id \d+ ", " ", text) for text in (before, filters(shop, "web"))]
    assert shown[0] == shown[1] and shown[0].count("bytecode") == 2


@pytest.mark.skipif(shutil.which("dnsperf") is None, reason="needs dnsperf")
def test_known_names_while_daemon_and_resolver_are_dead(shop: Daemon, tmp_path: Path) -> None:
    stub, known = Stub(shop, "web"), [shop.address("db", "shop")]
    shop.run_container("gone", network="shop")
    with no_pause(shop, tmp_path, 4):
        pid = resolver_pid(shop)
        shop.kill9()
        os.kill(pid, signal.SIGKILL)
        for _ in range(10):
            assert stub.ask("db", 0.5) == known
            time.sleep(0.05)
        assert stub.ask("www.example.test", 0.2) is None
        shop.start()
        eventually(lambda: stub.ask("www.example.test", 0.3) == ["198.51.100.7"], within=2)
        shop.remove_container("gone")
        shop.run_container("new", network="shop")
        assert stub.ask("new", 1) == [shop.address("new", "shop")]
    assert stub.ask("gone", 1) in (None, [])


def test_one_way_and_the_other_with_the_same_containers(new_daemon: NewDaemon) -> None:
    daemon = fill(new_daemon("--dns-kernel=off"))
    stub, known = Stub(daemon, "web"), [daemon.address("db", "shop")]
    for mode in ("on", "off"):
        daemon.stop()
        daemon.options = (f"--dns-kernel={mode}",)
        daemon.start()
        assert daemon.get("/info")["Names"]["Kernel"] == (mode != "off")
        rules = daemon.host.run(*inside(daemon, "web"), "nft", "list", "ruleset").stdout
        assert ("127.0.0.11" in rules, "netd-dns" in filters(daemon, "web")) == (mode == "off", mode != "off")
        assert stub.ask("db", 1) == known and stub.pipeline("web.shop")["web.shop"]


def test_where_it_cannot_be_done_on_refuses_and_auto_says_why(new_daemon: NewDaemon, tmp_path: Path) -> None:
    nothing = tmp_path / "nothing"
    nothing.write_bytes(b"")
    run("mount", "--bind", nothing, ROOT / "dns" / "kernel.bpf.o")  # the whole run has its own mount namespace
    try:
        daemon = new_daemon("--dns-kernel=auto")
        names = daemon.get("/info")["Names"]
        assert names["Kernel"] is False and "no BPF program" in names["Reason"]
        assert "no BPF program" in daemon.netd("info").stdout
        fill(daemon)
        assert Stub(daemon, "web").ask("db") == [daemon.address("db", "shop")]
        daemon.stop()
        daemon.options = ("--dns-kernel=on",)
        refused = run(*daemon.command(), check=False)
        assert refused.returncode == 1
        assert "names cannot be answered in the kernel" in refused.stderr + refused.stdout
    finally:
        run("umount", ROOT / "dns" / "kernel.bpf.o")
