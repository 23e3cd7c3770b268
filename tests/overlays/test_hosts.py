"""The cluster's hosts as `netd hosts` shows them."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from netd.cluster.channel import Path
from netd.core.errors import NotFound, Unavailable
from netd.overlays.hosts import NoHosts
from tests.fakes.loop import Loop
from tests.overlays.hosts import DB, ME, details, shown

# ---- who is there ---------------------------------------------------------------------------------------


def test_each_host_has_a_line_in_the_order_of_names(cluster: Any) -> None:
    assert list(shown(cluster)) == ["far", "here"]
    seen = shown(cluster)["far"]
    assert seen == {
        "Name": "far",
        "ID": "2",
        "Self": False,
        "Address": "192.0.2.2",
        "Version": "1.1",
        "Started": "1970-01-02T00:00:00.000000000Z",
        "Lease": {"Seconds": 10.0, "Alive": True},
        "LastSeen": "1970-01-02T00:00:01.000000000Z",
        "Problem": "",
        "Endpoints": 1,
    }


def test_this_host_knows_itself_and_was_seen_just_now(cluster: Any) -> None:
    here = shown(cluster)["here"]
    assert here["Self"] and here["LastSeen"] > "2020"


def test_this_host_is_shown_once_though_the_cluster_tells_of_it_too(cluster: Any) -> None:
    cluster.hosts.live["here"] = replace(ME, incarnation="i")
    assert list(shown(cluster)) == ["far", "here"]


def test_a_host_that_was_never_heard_says_nothing_of_when(cluster: Any) -> None:
    cluster.channel.seen.clear()
    assert shown(cluster)["far"]["LastSeen"] == ""


def test_while_the_store_is_away_the_endpoints_that_are_known_are_counted(cluster: Any) -> None:
    cluster.endpoints.away = True
    assert {name: line["Endpoints"] for name, line in shown(cluster).items()} == {"far": 0, "here": 1}


# ---- one of them ----------------------------------------------------------------------------------------


def test_a_host_is_shown_with_its_endpoints_by_network(cluster: Any) -> None:
    cluster.endpoints.stored += [
        replace(DB, id="e3", network_id="unknown", name="lost"),
        replace(DB, id="e4", name="db2"),
    ]
    networks = details(cluster, "far")["Networks"]
    assert {name: [e["Name"] for e in on] for name, on in networks.items()} == {
        "shop": ["db", "db2"],
        "unknown": ["lost"],
    }
    assert networks["shop"][0] == {
        "Name": "db",
        "EndpointID": "e1",
        "ContainerID": "",
        "MacAddress": "02:42:0a:09:00:09",
        "IPv4Address": "10.9.0.9/24",
        "IPv6Address": "",
    }


def test_the_ways_to_a_host_and_back_are_shown_as_they_were_checked_last(cluster: Any) -> None:
    cluster.channel.back["far"] = Path("here", udp=True, tcp=False, checked=86400.0)
    far = details(cluster, "far")
    assert far["Path"]["There"] == {
        "Checked": "1970-01-02T00:00:00.000000000Z",
        "ControlUDP": True,
        "ControlTCP": True,
        "SmallPackets": True,
        "FullPackets": True,
        "MTU": 1500,
    }
    assert far["Path"]["Back"]["ControlUDP"] and not far["Path"]["Back"]["ControlTCP"]
    assert (far["Delay"], far["ClockOffset"]) == (0.001235, 0.0)


def test_a_way_that_was_not_checked_yet_is_shown_as_unknown(cluster: Any) -> None:
    cluster.channel.paths.clear()
    far = details(cluster, "far")
    assert far["Path"] == {"There": None, "Back": None}
    assert (far["Delay"], far["ClockOffset"]) == (None, None)


def test_without_a_control_channel_hosts_are_shown_all_the_same(cluster: Any) -> None:
    cluster.channel = None
    far = details(cluster, "far")
    assert (far["Path"], far["LastSeen"], far["Problem"]) == ({"There": None, "Back": None}, "", "")


def test_a_host_that_nobody_knows_is_not_found(cluster: Any) -> None:
    with pytest.raises(NotFound, match="no host of the cluster is called fra: `netd hosts` lists them"):
        details(cluster, "fra")


# ---- without a cluster ----------------------------------------------------------------------------------


def test_a_daemon_without_a_cluster_has_no_hosts_to_show() -> None:
    no_cluster = pytest.raises(Unavailable, match="this daemon runs without --cluster-store")
    with Loop() as loop:
        for question in (NoHosts().hosts(), NoHosts().host("far")):
            with no_cluster:
                loop.run(question)
    assert NoHosts().problems() == {}
