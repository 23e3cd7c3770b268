"""Several daemons on one machine, each with its own roots, in its own network namespace."""

from __future__ import annotations

from collections.abc import Callable

from tests.daemon.harness import HOST_IP, OUTSIDE_IP, Daemon, Host, nothing_changed


def test_daemons_do_not_see_each_other(new_daemon: Callable[..., Daemon], _machines: Callable[[], Host]) -> None:
    one, two = new_daemon(), new_daemon(host=_machines())
    for daemon in (one, two):
        daemon.network("shop", IPAM={"Config": [{"Subnet": "10.77.0.0/24"}]})
        daemon.run_container("db", network="shop", HostConfig={"PortBindings": {"80/tcp": [{"HostPort": "8080"}]}})
        daemon.run_container("web", network="shop")
        daemon.serve("db", 80)
    for daemon in (one, two):
        assert [item["Names"] for item in daemon.get("/containers/json")] == [["/web"], ["/db"]]
        assert daemon.resolve("web", "db") == {"10.77.0.2"}
        assert daemon.host.ask_outside(HOST_IP, 8080) == f"{OUTSIDE_IP} 80"
    with nothing_changed(two):
        one.kill9()
        one.start()
        one.clean()
    two.run_container("late", network="shop")
    assert two.resolve("web", "late") == {two.address("late", "shop")}


def test_a_daemon_starts_beside_the_firewall_of_another(machine: Host, new_daemon: Callable[..., Daemon]) -> None:
    """A machine whose forwarding is closed by others' rules is not opened by ours, nor ours by theirs."""
    machine.run("nft", "table inet theirs { chain input { type filter hook input priority 0; tcp dport 9 drop; }; }")
    daemon = new_daemon()
    daemon.run_container("web")
    assert "table inet theirs" in daemon.ruleset()
    assert "has the policy drop" not in daemon.log.read_text()
    daemon.stop()
    assert "tcp dport 9 drop" in daemon.ruleset()


def test_another_firewall_that_forwards_nothing_for_containers_is_named(
    machine: Host, new_daemon: Callable[..., Daemon]
) -> None:
    """Docker closes forwarding when it is the one that turns it on; a drop of others cannot be overruled."""
    machine.serve_outside(80)
    machine.run("nft", "table ip filter { chain FORWARD { type filter hook forward priority 0; policy drop; }; }")
    daemon = new_daemon()
    daemon.run_container("web")
    assert "nothing" in daemon.ask_from("web", OUTSIDE_IP, 80)
    assert "chain ip filter FORWARD has the policy drop" in daemon.log.read_text()
    for way in ("iifname", "oifname"):
        machine.run("nft", "insert", "rule", "ip", "filter", "FORWARD", way, "netd0", "accept")
    assert daemon.ask_from("web", OUTSIDE_IP, 80) == f"{HOST_IP} 80"
