"""`netd attach`: namespaces that netd did not start get an address, names and the resolver, and give them back."""

from __future__ import annotations

import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.daemon.harness import Daemon, eventually, run


class Namespace:
    """A network namespace of somebody else's."""

    def __init__(self, path: str) -> None:
        self.path = path

    def run(self, *command: str, **options: Any) -> Any:
        return run("nsenter", f"--net={self.path}", *command, **options)

    def resolve(self, name: str) -> set[str]:
        """The addresses that the embedded resolver gives here."""
        output = self.run("busybox", "nslookup", name, "127.0.0.11", check=False).stdout.partition("\n\n")[2]
        return {line.split()[-1] for line in output.splitlines() if line.startswith("Address")}

    def reaches(self, address: str) -> bool:
        return bool(self.run("busybox", "ping", "-c1", "-W1", address, check=False).returncode == 0)

    def contents(self) -> list[str]:
        """Links, addresses, routes and firewall rules."""
        shown = [("ip", "-o", "address"), ("ip", "route", "show", "table", "all"), ("nft", "list", "ruleset")]
        return [self.run(*command).stdout for command in shown]


@pytest.fixture
def build() -> Iterator[Namespace]:
    """A namespace of `ip netns`."""
    name = f"b-{uuid.uuid4().hex[:6]}"
    run("ip", "netns", "add", name)
    run("ip", "-n", name, "link", "set", "lo", "up")
    yield Namespace(f"/run/netns/{name}")
    run("ip", "netns", "delete", name, check=False)


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    """A process with a network namespace of its own, as bubblewrap or systemd-nspawn make them."""
    with subprocess.Popen(["unshare", "--net", "sleep", "1000"]) as process:
        eventually(lambda: own(process.pid) != own("self"))
        yield process
        process.kill()


def own(pid: int | str) -> int:
    return Path(f"/proc/{pid}/ns/net").stat().st_ino


@pytest.fixture
def shop(daemon: Daemon) -> Iterator[Daemon]:
    """A daemon with network `shop` and container `web` on it; what is attached is detached at the end."""
    daemon.network("shop", IPAM={"Config": [{"Subnet": "10.77.0.0/24"}]})
    daemon.run_container("web", network="shop")
    yield daemon
    for found in daemon.get("/netd/sandboxes"):
        daemon.api("DELETE", f"/netd/sandboxes/{found['Name']}")


def attached(daemon: Daemon) -> list[str]:
    return [found["Name"] for found in daemon.get("/netd/sandboxes")]


def test_a_namespace_of_ip_netns_resolves_and_is_resolved(shop: Daemon, build: Namespace) -> None:
    shop.netd("attach", "--netns", build.path, "--name", "build", "--network", "shop", "--alias", "ci")
    (address,) = shop.get("/netd/sandboxes")[0]["Networks"]["shop"]
    assert build.resolve("web") == {shop.address("web", "shop")}
    assert build.resolve("www.example.test") == {"198.51.100.7"}
    assert shop.resolve("web", "build") == shop.resolve("web", "ci") == {address}
    assert build.reaches(shop.address("web", "shop"))
    assert shop.exec("web", "ping", "-c1", "-W1", "build")[0] == 0


def test_its_user_is_told_how_names_are_resolved(shop: Daemon, build: Namespace) -> None:
    name = Path(build.path).name
    told = shop.netd("attach", "--netns", name, "--name", "build", "--network", "shop").stdout
    assert told.startswith("build is on network shop as 10.77.0.")
    assert f"echo 'nameserver 127.0.0.11' >/etc/netns/{name}/resolv.conf" in told
    listed = shop.netd("attach", "--list").stdout.splitlines()[1].split()
    assert listed[1:] == ["build", build.path, "shop=10.77.0.3"]


def test_detaching_leaves_the_namespace_as_it_was(shop: Daemon, build: Namespace) -> None:
    before, rules = build.contents(), shop.ruleset()
    shop.netd("attach", "--netns", build.path, "--name", "build", "--network", "shop")
    assert build.contents() != before
    assert shop.netd("detach", "build").stdout == "build\n"
    assert build.contents() == before
    assert shop.ruleset() == rules
    assert shop.resolve("web", "build") == set()
    assert attached(shop) == []


def test_a_process_is_attached_by_its_pid_and_let_go_when_it_ends(
    shop: Daemon, process: subprocess.Popen[bytes]
) -> None:
    shop.netd("attach", "--pid", str(process.pid), "--name", "job", "--network", "shop")
    inside = Namespace(f"/proc/{process.pid}/ns/net")
    assert inside.resolve("web") == {shop.address("web", "shop")}
    assert inside.reaches(shop.address("web", "shop"))
    assert shop.resolve("web", "job") != set()
    process.kill()
    process.wait()
    eventually(lambda: attached(shop) == [])
    assert shop.resolve("web", "job") == set()


def test_a_namespace_may_be_on_several_networks(shop: Daemon, build: Namespace) -> None:
    shop.network("back")
    shop.run_container("db", network="back")
    shop.netd("attach", "--netns", build.path, "--name", "build", "--network", "shop", "--network", "back")
    for name, network in (("web", "shop"), ("db", "back")):
        assert build.resolve(name) == {shop.address(name, network)}
        assert build.reaches(shop.address(name, network))


def test_what_somebody_else_breaks_in_it_is_repaired(shop: Daemon, build: Namespace) -> None:
    shop.netd("attach", "--netns", build.path, "--name", "build", "--network", "shop")
    address = shop.address("web", "shop")
    build.run("nft", "flush", "ruleset")
    eventually(lambda: build.resolve("web") == {address})
    build.run("ip", "link", "delete", "netd0")
    eventually(lambda: build.reaches(address))
    assert build.resolve("web") == {address}


def test_its_network_is_in_use(shop: Daemon, build: Namespace) -> None:
    shop.netd("attach", "--netns", build.path, "--name", "build", "--network", "shop")
    members = shop.get("/networks/shop")["Containers"]
    assert sorted(member["Name"] for member in members.values()) == ["build", "web"]
    shop.remove_container("web")
    assert shop.netd("network", "rm", "shop", check=False).returncode == 1
    assert shop.api("POST", "/networks/prune").json["NetworksDeleted"] is None
    shop.netd("detach", "build")
    assert shop.netd("network", "rm", "shop").returncode == 0


def test_a_container_of_netd_is_not_attached(shop: Daemon) -> None:
    shop.run_container("bare", network="none")
    pid = shop.inspect("bare")["State"]["Pid"]
    refused = shop.netd("attach", "--pid", str(pid), "--name", "guest", "--network", "shop", check=False)
    assert "already belongs to bare: a container gets its networks by" in refused.stderr


def test_a_namespace_stays_attached_over_a_daemon_that_is_killed(
    new_daemon: Callable[..., Daemon], build: Namespace
) -> None:
    daemon = new_daemon()
    daemon.network("shop")
    daemon.run_container("web", network="shop")
    before = build.contents()
    daemon.netd("attach", "--netns", build.path, "--name", "build", "--network", "shop")
    during = build.contents()
    daemon.kill9()
    assert build.resolve("web") != set()
    daemon.start()
    assert build.contents() == during
    assert build.resolve("web") == {daemon.address("web", "shop")}
    assert daemon.resolve("web", "build") != set()
    daemon.netd("detach", "build")
    assert build.contents() == before


def test_a_namespace_that_went_while_the_daemon_was_down_is_let_go(
    new_daemon: Callable[..., Daemon], build: Namespace, process: subprocess.Popen[bytes]
) -> None:
    daemon = new_daemon()
    daemon.network("shop")
    daemon.run_container("web", network="shop")
    daemon.netd("attach", "--netns", build.path, "--name", "build", "--network", "shop")
    daemon.netd("attach", "--pid", str(process.pid), "--name", "job", "--network", "shop")
    daemon.kill9()
    run("ip", "netns", "delete", Path(build.path).name)
    run("ip", "netns", "add", Path(build.path).name)  # another one of the same name
    process.kill()
    process.wait()
    daemon.start()
    assert attached(daemon) == []
    assert daemon.resolve("web", "build") == daemon.resolve("web", "job") == set()
    assert "netd0" not in build.contents()[0]
    assert set(daemon.get("/networks/shop")["Containers"]) == {daemon.inspect("web")["Id"]}


def test_a_namespace_has_dns_settings_of_its_own(shop: Daemon, build: Namespace) -> None:
    started = time.monotonic()
    shop.netd(
        *("attach", "--netns", build.path, "--name", "build", "--network", "shop"),
        *("--dns", "192.0.2.99", "--dns-route", "example.test=192.0.2.2", "--dns-opt", "timeout:1"),
    )
    assert build.resolve("www.example.test") == {"198.51.100.7"}
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--netns /etc/passwd --name build", "cannot attach to /etc/passwd: it is no network namespace"),
        ("--netns /nosuch/net --name build", "cannot attach to /nosuch/net: it does not exist"),
        ("--netns NS --name build --network nosuch", "network nosuch not found"),
        (
            "--netns NS --name build --network host",
            "network host is of driver host: attach to a bridge or an overlay network",
        ),
        ("--netns NS --name build --dns example", "bad nameserver address example"),
        ("--netns NS --name b/d", "Invalid container name (b/d)"),
        ("--netns NS --name web --network shop", "the name web is already in use"),
        ("--netns NS --pid 1 --name build", "give the namespace either as a path or as a pid"),
        ("--pid 0x7fffffff --name build", "cannot attach to /proc/2147483647/ns/net: it does not exist"),
        ("--pid 1", "an attached namespace needs a name: add --name NAME"),
        ("--pid 1 --name build web", "a namespace is attached, not a container: leave out web"),
    ],
)
def test_what_cannot_be_attached_is_refused_and_leaves_nothing(
    shop: Daemon, build: Namespace, words: str, told: str
) -> None:
    before = build.contents()
    refused = shop.netd("attach", *words.replace("NS", build.path).split(), check=False)
    assert (refused.returncode, told in refused.stderr) == (1, True), refused.stderr
    assert build.contents() == before
    assert attached(shop) == []


def test_neither_the_daemons_own_namespace_nor_one_twice(shop: Daemon, build: Namespace) -> None:
    refused = shop.netd("attach", "--pid", str(shop.pid), "--name", "self", check=False)
    assert "is the daemon's own network namespace" in refused.stderr
    shop.netd("attach", "--netns", build.path, "--name", "build", "--network", "shop")
    for name in ("build", "other"):
        refused = shop.netd("attach", "--netns", build.path, "--name", name, "--network", "shop", check=False)
        assert "already" in refused.stderr
    assert "no attached namespace is called other" in shop.netd("detach", "other", check=False).stderr
