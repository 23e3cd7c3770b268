"""What somebody else takes away comes back within a second: the kernel is made to follow the store."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.daemon.harness import HOST_IP, OUTSIDE_IP, Daemon, mended


@pytest.fixture
def shop(daemon: Daemon) -> Iterator[Daemon]:
    """`db` and `web` on network `shop`, with a published port and a service behind it."""
    daemon.network("shop", IPAM={"Config": [{"Subnet": "10.77.0.0/24"}]})
    daemon.run_container("db", network="shop")
    daemon.run_container("web", network="shop", HostConfig={"PortBindings": {"80/tcp": [{"HostPort": "8080"}]}})
    daemon.serve("web", 80)
    assert_all_works(daemon)
    yield daemon


def assert_all_works(daemon: Daemon) -> None:
    assert daemon.ask_from("db", daemon.address("web", "shop"), 80).endswith(" 80")
    assert daemon.host.ask_outside(HOST_IP, 8080) == f"{OUTSIDE_IP} 80"
    assert daemon.resolve("web", "db") == {daemon.address("db", "shop")}
    assert daemon.exec("web", "ping", "-c1", "-W1", OUTSIDE_IP)[0] == 0


def port_of(daemon: Daemon, container: str) -> str:
    """The host's end of a container's cable."""
    index = daemon.exec(container, "cat", "/sys/class/net/eth0/iflink")[1].strip()
    lines = daemon.host.run("ip", "-o", "link").stdout.splitlines()
    return str(next(line.split()[1] for line in lines if line.startswith(f"{index}:")).partition("@")[0])


def bridge_of(daemon: Daemon) -> str:
    return f"br-{daemon.get('/networks/shop')['Id'][:12]}"


def comes_back(daemon: Daemon, *damage: str) -> None:
    """After this command everything is soon again as it was."""
    before = (daemon.links(), daemon.ruleset(), daemon.routes())
    mended(lambda: daemon.host.run(*damage), lambda: (daemon.links(), daemon.ruleset(), daemon.routes()) == before)
    assert_all_works(daemon)


def test_a_cable(shop: Daemon) -> None:
    comes_back(shop, "ip", "link", "del", port_of(shop, "web"))


def test_a_cable_pulled_from_the_bridge(shop: Daemon) -> None:
    comes_back(shop, "ip", "link", "set", port_of(shop, "web"), "nomaster")


def test_a_cable_deleted_inside_the_container(shop: Daemon) -> None:
    pid = shop.inspect("web")["State"]["Pid"]
    comes_back(shop, "nsenter", f"--net=/proc/{pid}/ns/net", "ip", "link", "del", "eth0")


def test_a_bridge(shop: Daemon) -> None:
    comes_back(shop, "ip", "link", "del", bridge_of(shop))


def test_a_bridge_that_is_down(shop: Daemon) -> None:
    comes_back(shop, "ip", "link", "set", bridge_of(shop), "down")


def test_the_address_of_a_bridge(shop: Daemon) -> None:
    comes_back(shop, "ip", "address", "flush", "dev", bridge_of(shop))


def test_the_default_bridge(shop: Daemon) -> None:
    comes_back(shop, "ip", "link", "del", "netd0")


def test_our_table(shop: Daemon) -> None:
    tables = [line.split() for line in shop.host.run("nft", "list", "tables").stdout.splitlines()]
    ours = [(family, name) for _, family, name in tables if "netd" in name]
    assert ours
    for family, name in ours:
        comes_back(shop, "nft", "delete", "table", family, name)


def test_the_whole_ruleset(shop: Daemon) -> None:
    comes_back(shop, "nft", "flush", "ruleset")


def test_the_rules_inside_a_container(shop: Daemon) -> None:
    pid = shop.inspect("web")["State"]["Pid"]
    flush = ("nsenter", f"--net=/proc/{pid}/ns/net", "nft", "flush", "ruleset")
    mended(lambda: shop.host.run(*flush), lambda: shop.resolve("web", "db") == {shop.address("db", "shop")})


def test_what_was_wrong_is_logged(shop: Daemon) -> None:
    name = bridge_of(shop)
    comes_back(shop, "ip", "link", "del", name)
    assert name in shop.log.read_text()
