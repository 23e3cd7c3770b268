"""What is wrong with a host of the cluster, or with the way to it: the most telling sentence."""

from __future__ import annotations

from typing import Any

from netd.cluster.channel import Path
from netd.overlays.hosts import ClusterView
from tests.overlays.hosts import registered, shown


def problems(cluster: Any) -> dict[str, str]:
    found = ClusterView(cluster).problems()
    assert {name: line["Problem"] for name, line in shown(cluster).items()} == found
    return found


def test_nothing_is_wrong_with_hosts_that_are_well(cluster: Any) -> None:
    assert problems(cluster) == {"here": "", "far": ""}


def test_a_host_whose_record_has_gone_no_longer_renews_its_lease(cluster: Any) -> None:
    cluster.hosts._absent["far"] = None
    assert problems(cluster)["far"] == "host far no longer renews its lease in the cluster store"
    assert not shown(cluster)["far"]["Lease"]["Alive"]


def test_this_host_says_that_it_is_not_registered(cluster: Any) -> None:
    registered(cluster.hosts, alive=False)
    assert problems(cluster) == {"here": "not registered in the cluster store, which does not answer", "far": ""}


def test_what_is_wrong_with_the_way_to_a_host_is_told(cluster: Any) -> None:
    cluster.channel.problems["far"] = "TCP port 7946 to host far (192.0.2.2) is blocked"
    assert problems(cluster) == {"here": "", "far": "TCP port 7946 to host far (192.0.2.2) is blocked"}


def test_what_another_host_says_of_the_way_back_is_told(cluster: Any) -> None:
    cluster.channel.back["far"] = Path("here", udp=True)
    assert problems(cluster)["far"].startswith("far says: TCP port 7946 to host here (192.0.2.1) is blocked")


def test_a_way_that_was_not_checked_yet_is_a_problem(cluster: Any) -> None:
    cluster.channel.paths.clear()
    assert problems(cluster)["far"] == "the way to host far has not been checked yet"


def test_what_makes_two_hosts_clash_comes_before_everything_else(cluster: Any) -> None:
    registered(cluster.hosts, alive=False)
    cluster.hosts.problems |= {"here": "another host is named here too", "far": "far has this host's address"}
    cluster.channel.problems["far"] = "far does not answer"
    assert problems(cluster) == {"here": "another host is named here too", "far": "far has this host's address"}
