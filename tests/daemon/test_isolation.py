"""Who reaches whom, and who does not."""

from __future__ import annotations

import pytest

from tests.daemon.harness import HOST_IP, OUTSIDE_IP, Daemon


def pings(daemon: Daemon, container: str, address: str) -> bool:
    return daemon.exec(container, "ping", "-c1", "-W1", address)[0] == 0


def test_containers_of_one_network_reach_each_other(daemon: Daemon) -> None:
    daemon.network("shop")
    for name in ("db", "web"):
        daemon.run_container(name, network="shop")
    daemon.serve("db", 5432)
    assert pings(daemon, "web", daemon.address("db", "shop"))
    address = daemon.address("web", "shop")
    assert daemon.ask_from("web", daemon.address("db", "shop"), 5432) == f"{address} 5432"


def test_containers_of_different_networks_do_not(daemon: Daemon) -> None:
    for name in ("one", "two"):
        daemon.network(name)
        daemon.run_container(name, network=name)
        daemon.serve(name, 80)
    for asker, other in (("one", "two"), ("two", "one")):
        assert not pings(daemon, asker, daemon.address(other, other))
        for kind in ("tcp", "udp"):
            assert daemon.ask_from(asker, daemon.address(other, other), 80, kind).startswith("nothing")


def test_the_outside_is_reached_under_the_address_of_the_host(daemon: Daemon) -> None:
    daemon.network("shop")
    daemon.run_container("web", network="shop")
    # the neighbour has no route to the container's network: only the host's address finds a way back
    assert pings(daemon, "web", OUTSIDE_IP)
    daemon.host.serve_outside(7777)
    for kind in ("tcp", "udp"):
        assert daemon.ask_from("web", OUTSIDE_IP, 7777, kind) == f"{HOST_IP} 7777"


def test_without_masquerade_packets_keep_the_address_of_the_container(daemon: Daemon) -> None:
    daemon.network("shop", Options={"com.docker.network.bridge.enable_ip_masquerade": "false"})
    daemon.run_container("web", network="shop")
    assert not pings(daemon, "web", OUTSIDE_IP)  # the neighbour knows no way back
    daemon.host.run_outside("ip", "route", "add", f"{daemon.address('web', 'shop')}/32", "via", HOST_IP)
    assert pings(daemon, "web", OUTSIDE_IP)
    daemon.host.run_outside("ip", "route", "del", f"{daemon.address('web', 'shop')}/32")


def test_an_internal_network_ends_at_the_host(daemon: Daemon) -> None:
    daemon.network("cellar", Internal=True)
    for name in ("db", "web"):
        daemon.run_container(name, network="cellar")
    assert pings(daemon, "web", daemon.address("db", "cellar"))
    assert not pings(daemon, "web", OUTSIDE_IP)
    assert "default" not in daemon.exec("web", "ip", "route")[1]


def test_without_inter_container_communication_only_names_work(daemon: Daemon) -> None:
    daemon.network("hotel", Options={"com.docker.network.bridge.enable_icc": "false"})
    for name in ("one", "two"):
        daemon.run_container(name, network="hotel")
    assert daemon.resolve("one", "two") == {daemon.address("two", "hotel")}
    assert not pings(daemon, "one", daemon.address("two", "hotel"))
    assert pings(daemon, "one", OUTSIDE_IP)


@pytest.mark.parametrize("kind", ["tcp", "udp"])
def test_a_published_port_is_reached_from_a_network_that_is_otherwise_isolated(daemon: Daemon, kind: str) -> None:
    daemon.network("one")
    daemon.network("two")
    daemon.run_container("asker", network="one")
    daemon.run_container("web", network="two", HostConfig={"PortBindings": {f"80/{kind}": [{"HostPort": "8080"}]}})
    daemon.serve("web", 80)
    assert daemon.ask_from("asker", HOST_IP, 8080, kind).endswith(" 80")
    assert daemon.ask_from("asker", daemon.address("web", "two"), 80, kind).startswith("nothing")


def test_tables_of_others_are_left_alone(daemon: Daemon) -> None:
    """Beside firewalld, ufw or Docker: their tables are as they were, whatever we do."""
    rules = "table inet theirs { chain forward { type filter hook forward priority 0; ip daddr 203.0.113.9 drop; }; }"
    daemon.host.run("nft", rules)
    try:
        before = daemon.host.run("nft", "list", "table", "inet", "theirs").stdout
        daemon.network("shop")
        daemon.run_container("web", network="shop", HostConfig={"PortBindings": {"80/tcp": [{"HostPort": "8080"}]}})
        daemon.remove_container("web")
        daemon.api("DELETE", "/networks/shop")
        assert daemon.host.run("nft", "list", "table", "inet", "theirs").stdout == before
    finally:
        daemon.host.run("nft", "delete", "table", "inet", "theirs")
