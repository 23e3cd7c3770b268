"""Containers find each other by name; everything else is asked of the servers they are given."""

from __future__ import annotations

import pytest

from tests.daemon.harness import OUTSIDE_IP, ROOT, Daemon


@pytest.fixture
def shop(daemon: Daemon) -> Daemon:
    """Network `shop` with `db` (many names), and `web` that asks."""
    daemon.network("shop", IPAM={"Config": [{"Subnet": "10.77.0.0/24"}]})
    daemon.run_container(
        "db",
        network="shop",
        Hostname="database",
        NetworkingConfig={"EndpointsConfig": {"shop": {"Aliases": ["sql", "store"]}}},
    )
    daemon.run_container(
        "web", network="shop", NetworkingConfig={"EndpointsConfig": {"shop": {"Links": ["db:primary"]}}}
    )
    return daemon


@pytest.mark.parametrize(
    "name", ["db", "sql", "store", "database", "primary", "db.shop", "sql.shop", "DB", "db.", "primary.shop"]
)
def test_every_name_of_a_container_resolves(shop: Daemon, name: str) -> None:
    assert shop.resolve("web", name) == {shop.address("db", "shop")}


def test_the_short_id_resolves(shop: Daemon) -> None:
    identity = shop.inspect("db")["Id"][:12]
    assert shop.resolve("web", identity) == {shop.address("db", "shop")}


def test_a_link_is_known_only_to_the_container_that_has_it(shop: Daemon) -> None:
    assert shop.resolve("db", "primary") == set()


def test_a_container_resolves_its_own_name(shop: Daemon) -> None:
    assert shop.resolve("db", "db") == {shop.address("db", "shop")}


def test_an_address_resolves_to_name_and_network(shop: Daemon) -> None:
    assert "name = db.shop" in shop.exec("web", "nslookup", shop.address("db", "shop"))[1]


def test_an_alias_that_several_share_has_the_addresses_of_all(shop: Daemon) -> None:
    for name in ("one", "two"):
        shop.run_container(name, network="shop", NetworkingConfig={"EndpointsConfig": {"shop": {"Aliases": ["all"]}}})
    assert shop.resolve("web", "all") == {shop.address("one", "shop"), shop.address("two", "shop")}
    shop.remove_container("one")
    assert shop.resolve("web", "all") == {shop.address("two", "shop")}


def test_names_come_and_go_with_the_container(shop: Daemon) -> None:
    shop.create("late", network="shop")
    assert shop.resolve("web", "late") == set()
    shop.start_container("late")
    assert shop.resolve("web", "late")
    shop.api("POST", "/containers/late/stop?t=0")
    assert shop.resolve("web", "late") == set()


def test_a_renamed_container_has_its_new_name_at_once(shop: Daemon) -> None:
    shop.api("POST", "/containers/db/rename?name=cellar")
    assert shop.resolve("web", "cellar") == {shop.address("cellar", "shop")}
    assert shop.resolve("web", "db") == set()


def test_names_of_other_networks_are_unknown(shop: Daemon) -> None:
    shop.network("elsewhere")
    shop.run_container("stranger", network="elsewhere")
    assert shop.resolve("stranger", "db") == set()
    shop.api("POST", "/networks/shop/connect", {"Container": "stranger"})
    assert shop.resolve("stranger", "db") == {shop.address("db", "shop")}
    shop.api("POST", "/networks/shop/disconnect", {"Container": "stranger"})
    assert shop.resolve("stranger", "db") == set()


def test_the_default_bridge_has_no_names(shop: Daemon) -> None:
    shop.run_container("plain")
    shop.run_container("other")
    assert "127.0.0.11" not in shop.exec("plain", "cat", "/etc/resolv.conf")[1]
    assert shop.resolve("plain", "other") == set()


def test_an_outside_name_is_asked_of_the_given_server(shop: Daemon) -> None:
    assert shop.resolve("web", "www.example.test") == {"198.51.100.7"}


def test_dns_options_of_a_container_are_used_and_written(daemon: Daemon) -> None:
    daemon.network("shop")
    daemon.run_container(
        "web",
        network="shop",
        HostConfig={"Dns": [OUTSIDE_IP], "DnsSearch": ["example.test"], "DnsOptions": ["timeout:2"]},
    )
    lines = daemon.exec("web", "cat", "/etc/resolv.conf")[1].splitlines()
    words = [line.split() for line in lines if not line.startswith("#")]
    assert ["nameserver", "127.0.0.11"] in words
    assert ["search", "example.test"] in words
    assert any(line[0] == "options" and "timeout:2" in line for line in words if line)
    assert daemon.exec("web", "ping", "-c1", "-W1", "www")[1].startswith("PING www (198.51.100.7)")


def test_resolution_is_cut_off_from_the_outside_on_an_internal_network(daemon: Daemon) -> None:
    daemon.network("cellar", Internal=True)
    daemon.run_container("db", network="cellar")
    daemon.run_container("web", network="cellar")
    assert daemon.resolve("web", "db") == {daemon.address("db", "cellar")}
    assert daemon.resolve("web", "www.example.test") == set()


def test_questions_are_answered_over_udp_and_tcp(shop: Daemon) -> None:
    script = (
        "import sys; from dnslib import DNSRecord, QTYPE;"
        "q = DNSRecord.question(sys.argv[1]); tcp = sys.argv[2] == 'tcp';"
        "r = DNSRecord.parse(q.send('127.0.0.11', 53, tcp=tcp, timeout=2));"
        "print(r.header.id == q.header.id, [str(a.rdata) for a in r.rr])"
    )
    for transport in ("udp", "tcp"):
        done = shop.inside("web", ROOT / ".venv/bin/python", "-c", script, "db", transport)
        assert done.stdout.strip() == f"True ['{shop.address('db', 'shop')}']"
