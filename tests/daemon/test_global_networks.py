"""Global networks in detail: what is the same on every kind of store is shown on one."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.daemon.cluster import Hub, Member, everywhere, overlay
from tests.daemon.harness import eventually, run
from tests.kvstore.conftest import servers
from tests.kvstore.servers import Server

__all__ = ["servers"]

MTU = "com.docker.network.driver.mtu"
Pair = tuple[Member, Member]


@pytest.fixture(scope="module")
def _pair(servers: Callable[[str], Server], image: Path) -> Iterator[Pair]:
    hub = Hub("etcd", servers("etcd").port)
    try:
        hub.make()
        yield hub.member(1, image), hub.member(2, image)
    finally:
        hub.remove()


@pytest.fixture
def pair(_pair: Pair) -> Iterator[Pair]:
    """Two hosts with a daemon each, empty but for the image."""
    yield _pair
    for member in _pair:
        member.remove_containers()
    for network in _pair[0].get("/networks"):
        if network["Scope"] == "global":
            eventually(lambda n=network: _pair[0].api("DELETE", f"/networks/{n['Id']}").status in (204, 404))


def start(member: Member, name: str, network: str, address: str = "", **settings: Any) -> None:
    """Create and start a container with endpoint settings."""
    create(member, name, network, address, **settings)
    member.start_container(name)


def create(member: Member, name: str, network: str, address: str = "", **settings: Any) -> None:
    if address:
        settings["IPAMConfig"] = {"IPv4Address": address}
    member.create(name, network=network, NetworkingConfig={"EndpointsConfig": {network: settings}})


def connect(member: Member, network: str, container: str, verb: str = "connect", **settings: Any) -> None:
    body = {"Container": container, "EndpointConfig": settings}
    reply = member.api("POST", f"/networks/{network}/{verb}", body)
    assert reply.status == 200, reply


def interfaces(member: Member, container: str) -> dict[str, Any]:
    links = json.loads(member.inside(container, "ip", "-json", "address").stdout)
    return {link["ifname"]: link for link in links if link["ifname"] != "lo"}


def subnets(*pools: str) -> dict[str, Any]:
    return {"IPAM": {"Config": [{"Subnet": pool} for pool in pools]}}


# ---- what every host shows ------------------------------------------------------------------------------


def test_every_host_lists_all_endpoints_of_a_network_with_their_hosts_also_if_it_is_not_on_it(pair: Pair) -> None:
    one, two = pair
    overlay(one, "shop")
    one.run_container("db", network="shop")
    one.run_container("web", network="shop")

    def shown(member: Member) -> set[tuple[str, str, str]]:
        found = member.get("/networks/shop")["Containers"].values()
        return {(c["Name"], c["Host"], c["IPv4Address"].partition("/")[0]) for c in found}

    expected = {(name, "host1", one.address(name, "shop")) for name in ("db", "web")}
    assert shown(two) == expected
    assert two.get("/networks/shop")["Peers"] == [{"Name": "host1", "IP": "10.99.0.1"}]
    two.run_container("third", network="shop")
    everywhere(pair, "shop", {"db", "web", "third"})
    expected |= {("third", "host2", two.address("third", "shop"))}
    assert shown(one) == shown(two) == expected
    assert [peer["Name"] for peer in one.get("/networks/shop")["Peers"]] == ["host1", "host2"]


def test_hosts_are_told_with_what_is_on_them_and_the_ways_there_and_back(pair: Pair) -> None:
    one, two = pair
    overlay(one, "shop")
    two.run_container("web", network="shop")
    line = "{{.Name}} {{.Endpoints}} {{.State}}"
    eventually(lambda: one.netd("hosts", "--format", line).stdout == "host1 * 0 ok\nhost2 1 ok\n", within=15)
    (host,) = json.loads(one.netd("hosts", "inspect", "host2").stdout)
    assert (host["Name"], host["Address"], host["Self"], host["Problem"]) == ("host2", "10.99.0.2", False, "")
    assert host["Lease"] == {"Seconds": 10, "Alive": True}
    assert [endpoint["Name"] for endpoint in host["Networks"]["shop"]] == ["web"]
    free = {"ControlUDP": True, "ControlTCP": True, "SmallPackets": True, "FullPackets": True, "MTU": 1500}
    assert {key: host["Path"]["There"][key] for key in free} == free
    assert abs(host["ClockOffset"]) < 1
    unknown = one.netd("hosts", "inspect", "host9", check=False)
    assert (unknown.returncode, "no host of the cluster is called host9" in unknown.stderr) == (1, True)


# ---- names ----------------------------------------------------------------------------------------------


def test_new_names_and_aliases_are_told_to_the_other_hosts(pair: Pair) -> None:
    one, two = pair
    overlay(one, "shop")
    one.run_container("db", network="shop")
    two.run_container("web", network="shop")
    assert one.api("POST", "/containers/db/rename?name=base").status == 204
    address = one.address("base", "shop")
    eventually(lambda: two.resolve("web", "base") == {address})
    everywhere(pair, "shop", {"base", "web"})
    taken = one.api("POST", "/containers/base/rename?name=web")
    assert (taken.status, "endpoint with name web already exists in network shop" in taken.message) == (403, True)
    assert one.inspect("base")["Name"] == "/base"
    two.run_container("db", network="shop")
    assert two.resolve("web", "db") == {two.address("db", "shop")}, "the old name is free"
    one.run_container("late")
    connect(one, "shop", "late", Aliases=["nick"])
    eventually(lambda: two.resolve("web", "nick") == {one.address("late", "shop")})


# ---- addresses ------------------------------------------------------------------------------------------


def test_a_static_address_is_kept_while_its_container_is_stopped(pair: Pair) -> None:
    one, two = pair
    overlay(one, "shop", **subnets("10.77.0.0/24"))
    create(one, "db", "shop", "10.77.0.9")
    create(two, "thief", "shop", "10.77.0.9")
    create(one, "cuckoo", "shop", "10.77.0.9")

    def refused() -> bool:
        replies = [two.api("POST", "/containers/thief/start"), one.api("POST", "/containers/cuckoo/start")]
        return all((r.status, r.message) == (403, "Address already in use") for r in replies)

    assert refused(), "before its first start"
    one.start_container("db")
    one.api("POST", "/containers/db/stop?t=0")
    assert refused()
    one.kill9()
    one.start()
    assert refused(), "after a restart of the daemon"
    one.start_container("db")
    assert one.address("db", "shop") == "10.77.0.9"
    one.remove_container("db")
    eventually(lambda: two.api("POST", "/containers/thief/start").status == 204)


def test_a_container_whose_address_was_taken_while_its_host_was_away_gets_another_one(pair: Pair) -> None:
    one, two = pair
    overlay(one, "shop", **subnets("10.77.0.0/24"))
    since = str(int(time.time()))
    two.stop()
    two.options = [*two.options, "--cluster-store-opt=discovery.ttl=2"]
    two.start()
    start(one, "db", "shop")
    two.run_container("web", network="shop")
    address = two.address("web", "shop")
    two.cut()
    try:
        eventually(lambda: one.containers_on("shop") == {"db"}, within=25, every=0.2)
        eventually(lambda: _started(one, "heir", "shop", address), within=10, every=0.2)
    finally:
        two.heal()
    eventually(lambda: two.address("web", "shop") == "", within=25, every=0.2)
    eventually(lambda: "eth0" not in interfaces(two, "web"))
    everywhere(pair, "shop", {"db", "heir"})
    past = ("events", "--since", since, "--until", "0s", "--filter", "event=disconnect")
    eventually(lambda: "network disconnect" in two.netd(*past).stdout, every=0.2)
    assert "is taken by host host1" in two.log.read_text()
    connect(two, "shop", "web")
    assert two.address("web", "shop") not in ("", address)
    eventually(lambda: two.reaches("web", "heir") and one.reaches("heir", "web"))


def _started(member: Member, name: str, network: str, address: str) -> bool:
    if member.api("GET", f"/containers/{name}/json").status == 404:
        create(member, name, network, address)
    return member.api("POST", f"/containers/{name}/start").status == 204


# ---- the way out ----------------------------------------------------------------------------------------


def test_the_way_out_comes_with_the_first_global_network_and_goes_with_the_last(pair: Pair) -> None:
    one, _ = pair
    overlay(one, "shop")
    overlay(one, "till")
    one.network("front", Driver="bridge")
    one.run_container("web", network="none")
    connect(one, "none", "web", "disconnect")

    def on_the_bridge() -> bool:
        return "web" in one.containers_on("docker_gwbridge")

    connect(one, "shop", "web")
    assert on_the_bridge() and len(interfaces(one, "web")) == 2
    connect(one, "till", "web")
    assert len(interfaces(one, "web")) == 3
    connect(one, "shop", "web", "disconnect")
    assert on_the_bridge(), "it is still on one"
    connect(one, "front", "web")
    assert not on_the_bridge(), "there is another way out"
    connect(one, "front", "web", "disconnect")
    assert on_the_bridge()
    connect(one, "till", "web", "disconnect")
    assert not on_the_bridge() and not interfaces(one, "web")
    one.remove_container("web")
    one.api("DELETE", "/networks/front")


# ---- options --------------------------------------------------------------------------------------------


def test_several_subnets_reach_each_other_over_both_families(pair: Pair) -> None:
    one, two = pair
    overlay(one, "wide", **subnets("10.70.0.0/24", "10.71.0.0/24"), Options={"vxlanid_list": "300,301", MTU: "1400"})
    overlay(one, "six", EnableIPv6=True, **subnets("10.72.0.0/24", "10.73.0.0/24", "fd72::/64"))
    start(one, "left", "wide", "10.70.0.10")
    start(two, "right", "wide", "10.71.0.10")
    connect(one, "six", "left", IPAMConfig={"IPv4Address": "10.72.0.10", "IPv6Address": "fd72::10"})
    connect(two, "six", "right", IPAMConfig={"IPv4Address": "10.73.0.10"})
    everywhere(pair, "wide", {"left", "right"})
    everywhere(pair, "six", {"left", "right"})
    eventually(lambda: one.reaches("left", "10.71.0.10") and one.reaches("left", "10.73.0.10"))
    eventually(lambda: two.reaches("right", "fd72::10"))
    assert two.resolve("right", "left") == {"10.72.0.10", "fd72::10"}
    assert interfaces(one, "left")["eth0"]["mtu"] == 1350
    links = "".join(
        one.host.run("nsenter", f"--net={n}", "ip", "link").stdout for n in one.exec_root.glob("overlays/*")
    )
    assert "vxlan300" in links and "vxlan301" in links


def test_an_internal_network_has_no_way_out(pair: Pair) -> None:
    one, two = pair
    overlay(one, "vault", Internal=True)
    one.run_container("db", network="vault")
    two.run_container("web", network="vault")
    eventually(lambda: one.reaches("db", "web"))
    assert list(interfaces(one, "db")) == ["eth0"]
    assert one.inside("db", "ip", "route", "show", "default").stdout == ""


def test_a_namespace_of_somebody_else_is_attached_to_a_global_network(pair: Pair) -> None:
    one, two = pair
    overlay(one, "shop")
    two.run_container("web", network="shop")
    foreign = f"{one.host.name}-x"
    run("ip", "netns", "add", foreign)
    try:
        one.netd("attach", "--netns", f"/run/netns/{foreign}", "--name", "guest", "--network", "shop")
        eventually(lambda: two.reaches("web", "guest"))
        assert "netd0" in run("ip", "-n", foreign, "-o", "link").stdout
        everywhere(pair, "shop", {"web", "guest"})
        one.netd("detach", "guest")
        everywhere(pair, "shop", {"web"})
    finally:
        run("ip", "netns", "del", foreign)
