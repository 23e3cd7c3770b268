"""`docker network …` of a stock docker CLI, pointed at netd."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.daemon.harness import Daemon


def listed(daemon: Daemon, *filters: str) -> list[str]:
    arguments = [word for one in filters for word in ("--filter", one)]
    return list(daemon.docker("network", "ls", "--format", "{{.Name}}", *arguments).stdout.split())


def inspected(daemon: Daemon, name: str) -> Any:
    return json.loads(daemon.docker("network", "inspect", name).stdout)[0]


def test_the_three_default_networks_are_there_from_the_first_start(daemon: Daemon) -> None:
    lines = daemon.docker("network", "ls", "--format", "{{.Name}} {{.Driver}} {{.Scope}}").stdout.splitlines()
    assert lines == ["bridge bridge local", "host host local", "none null local"]


def test_the_default_bridge_is_called_netd0_so_that_docker_keeps_its_own(daemon: Daemon) -> None:
    assert inspected(daemon, "bridge")["Options"]["com.docker.network.bridge.name"] == "netd0"
    assert "netd0" in daemon.links()


def test_a_network_is_created_listed_inspected_and_removed(daemon: Daemon) -> None:
    identity = daemon.docker("network", "create", "shop").stdout.strip()
    assert len(identity) == 64
    assert "shop" in listed(daemon)
    network = inspected(daemon, "shop")
    assert network["Id"] == identity
    assert (network["Driver"], network["Scope"], network["Internal"]) == ("bridge", "local", False)
    assert f"br-{identity[:12]}" in daemon.links()

    assert daemon.docker("network", "rm", "shop").stdout.strip() == "shop"
    assert "shop" not in listed(daemon)
    assert f"br-{identity[:12]}" not in daemon.links()


def test_all_the_options_of_a_network_are_kept_and_shown(daemon: Daemon) -> None:
    daemon.docker(
        *("network", "create", "--driver=bridge", "--subnet=10.77.0.0/16", "--ip-range=10.77.5.0/24"),
        *("--gateway=10.77.5.254", "--aux-address=printer=10.77.5.3", "--attachable", "--label=team=web"),
        *("--opt=com.docker.network.bridge.name=br-shop", "--opt=com.docker.network.driver.mtu=1400", "shop"),
    )
    network = inspected(daemon, "shop")
    assert network["IPAM"]["Config"] == [
        {
            "Subnet": "10.77.0.0/16",
            "IPRange": "10.77.5.0/24",
            "Gateway": "10.77.5.254",
            "AuxiliaryAddresses": {"printer": "10.77.5.3"},
        }
    ]
    assert network["Attachable"] is True
    assert network["Labels"] == {"team": "web"}
    assert network["Options"]["com.docker.network.bridge.name"] == "br-shop"
    daemon.run_container("web", network="shop")
    bridge = daemon.links()["br-shop"]
    assert bridge["mtu"] == 1400
    assert "10.77.5.254" in bridge["addresses"]
    assert " mtu 1400 " in daemon.exec("web", "ip", "link", "show", "eth0")[1]
    assert daemon.address("web", "shop") == "10.77.5.0"


def test_a_network_with_ipv6_gives_its_containers_both_kinds_of_address(daemon: Daemon) -> None:
    daemon.docker("network", "create", "--ipv6", "--subnet=10.77.0.0/24", "--subnet=fd77::/64", "shop")
    daemon.run_container("web", network="shop")
    endpoint = daemon.inspect("web")["NetworkSettings"]["Networks"]["shop"]
    assert (endpoint["IPAddress"], endpoint["GlobalIPv6Address"]) == ("10.77.0.2", "fd77::2")
    code, output = daemon.exec("web", "ping", "-6", "-c3", "-W1", "fd77::1")
    assert code == 0, output


def test_a_subnet_is_found_that_does_not_overlap_a_network_of_the_host(daemon: Daemon) -> None:
    daemon.host.run("ip", "route", "add", "172.18.0.0/16", "dev", "lan")
    try:
        daemon.docker("network", "create", "shop")
        assert inspected(daemon, "shop")["IPAM"]["Config"][0]["Subnet"] != "172.18.0.0/16"
    finally:
        daemon.host.run("ip", "route", "del", "172.18.0.0/16")


def test_a_network_answers_to_its_name_its_id_and_any_unique_prefix_of_it(daemon: Daemon) -> None:
    identity = daemon.network("shop")
    for reference in ("shop", identity, identity[:12], identity[:5]):
        assert inspected(daemon, reference)["Name"] == "shop"


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("name=sho", {"shop"}),
        ("driver=bridge", {"bridge", "shop", "store"}),
        ("driver=null", {"none"}),
        ("label=team=web", {"shop"}),
        ("type=custom", {"shop", "store"}),
        ("type=builtin", {"bridge", "host", "none"}),
        ("dangling=true", {"store"}),
        ("scope=global", set()),
    ],
)
def test_networks_are_filtered(daemon: Daemon, condition: str, expected: set[str]) -> None:
    daemon.network("shop", Labels={"team": "web"})
    daemon.network("store")
    daemon.run_container("web", network="shop")
    assert set(listed(daemon, condition)) == expected


def test_a_running_container_joins_and_leaves_networks(daemon: Daemon) -> None:
    daemon.network("front")
    daemon.network("back", IPAM={"Config": [{"Subnet": "10.77.0.0/24"}]})
    daemon.run_container("web", network="front")

    daemon.docker("network", "connect", "--ip=10.77.0.50", "--alias=www", "back", "web")
    assert daemon.address("web", "back") == "10.77.0.50"
    assert "10.77.0.50" in daemon.exec("web", "ip", "address")[1]
    container = next(iter(inspected(daemon, "back")["Containers"].values()))
    assert (container["Name"], container["IPv4Address"]) == ("web", "10.77.0.50/24")

    daemon.docker("network", "disconnect", "back", "web")
    assert inspected(daemon, "back")["Containers"] == {}
    assert "10.77.0.50" not in daemon.exec("web", "ip", "address")[1]


def test_the_default_route_is_that_of_the_highest_gateway_priority(daemon: Daemon) -> None:
    daemon.network("a", IPAM={"Config": [{"Subnet": "10.77.1.0/24"}]})
    daemon.network("b", IPAM={"Config": [{"Subnet": "10.77.2.0/24"}]})
    daemon.run_container("web", network="b")
    assert "default via 10.77.2.1" in daemon.exec("web", "ip", "route")[1]
    daemon.api("POST", "/networks/a/connect", {"Container": "web"})
    assert "default via 10.77.1.1" in daemon.exec("web", "ip", "route")[1]  # equal priority: by name
    daemon.api("POST", "/networks/a/disconnect", {"Container": "web"})
    daemon.api("POST", "/networks/a/connect", {"Container": "web", "EndpointConfig": {"GwPriority": -1}})
    assert "default via 10.77.2.1" in daemon.exec("web", "ip", "route")[1]


def test_a_stopped_container_can_be_connected_and_has_the_network_when_it_starts(daemon: Daemon) -> None:
    daemon.network("back")
    daemon.create("web")
    daemon.docker("network", "connect", "back", "web")
    assert daemon.address("web", "back") == ""
    daemon.start_container("web")
    assert daemon.address("web", "back")


def test_a_network_in_use_is_not_removed(daemon: Daemon) -> None:
    daemon.network("shop")
    daemon.run_container("web", network="shop")
    refused = daemon.docker("network", "rm", "shop", check=False)
    assert refused.returncode == 1
    assert "has active endpoints" in refused.stderr
    assert "shop" in listed(daemon)


def test_a_failing_name_among_several_does_not_stop_the_others(daemon: Daemon) -> None:
    daemon.network("one")
    daemon.network("two")
    done = daemon.docker("network", "rm", "one", "nosuch", "two", check=False)
    assert done.returncode == 1
    assert done.stdout.split() == ["one", "two"]
    assert "network nosuch not found" in done.stderr


def test_prune_removes_the_networks_that_nothing_uses(daemon: Daemon) -> None:
    daemon.network("used")
    daemon.network("idle")
    daemon.network("kept", Labels={"keep": ""})
    daemon.run_container("web", network="used")
    output = daemon.docker("network", "prune", "--force", "--filter", "label!=keep").stdout
    assert output.split() == ["Deleted", "Networks:", "idle"]
    assert set(listed(daemon, "type=custom")) == {"used", "kept"}


def test_events_tell_what_happens_to_a_network(daemon: Daemon) -> None:
    started = daemon.docker("info", "--format", "{{.SystemTime}}").stdout.strip()
    daemon.network("shop")
    daemon.run_container("web", network="shop")
    daemon.remove_container("web")
    daemon.api("DELETE", "/networks/shop")
    ended = daemon.docker("info", "--format", "{{.SystemTime}}").stdout.strip()
    lines = daemon.docker(
        *("events", f"--since={started}", f"--until={ended}", "--filter=type=network"),
        *("--format", "{{.Action}} {{.Actor.Attributes.name}}"),
    ).stdout.splitlines()
    assert lines == ["create shop", "connect shop", "disconnect shop", "destroy shop"]
