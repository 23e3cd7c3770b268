"""Counts for Prometheus: over the API's own socket, and at a port where it is told to look."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.daemon.harness import Daemon, eventually

ADDRESS = "127.0.0.1:9323"


@pytest.fixture(scope="module", params=["on", "off"])
def daemon_options(request: pytest.FixtureRequest) -> tuple[str, ...]:
    return (f"--metrics-addr={ADDRESS}", f"--dns-kernel={request.param}")


def counts(daemon: Daemon) -> dict[tuple[str, ...], float]:
    """Every sample by its name and the values of its labels."""
    text = daemon.host.run("curl", "--silent", "--fail", f"http://{ADDRESS}/metrics").stdout
    families = text_string_to_metric_families(text)
    return {(s.name, *s.labels.values()): s.value for family in families for s in family.samples}


def test_containers_and_networks_are_counted(daemon: Daemon) -> None:
    daemon.network("shop")
    daemon.run_container("web", network="shop")
    daemon.create("idle", network="shop")
    found = counts(daemon)
    assert [found["netd_containers", state] for state in ("running", "paused", "stopped")] == [1, 0, 1]
    assert found["netd_networks", "bridge", "local"] == 2
    assert found["netd_networks", "host", "local"] == found["netd_networks", "null", "local"] == 1


def test_a_question_is_counted_by_who_dealt_with_it(daemon: Daemon) -> None:
    daemon.network("shop")
    daemon.run_container("web", network="shop")
    before = counts(daemon)
    assert daemon.resolve("web", "web") == {daemon.address("web", "shop")}
    after = counts(daemon)
    answering = _questions("kernel" if daemon.get("/info")["Names"]["Kernel"] else "netd-dns")
    assert after[answering] > before[answering]
    daemon.remove_container("web")
    assert counts(daemon)[_questions("netd-dns")] >= after[_questions("netd-dns")], "a counter never goes back"


def _questions(by: str) -> tuple[str, str]:
    return "netd_dns_questions_total", by


def test_repairs_are_counted(daemon: Daemon) -> None:
    before = counts(daemon)["netd_repairs_total",]
    daemon.host.run("nft", "flush", "ruleset")
    eventually(lambda: counts(daemon)["netd_repairs_total",] > before)


def test_the_api_tells_the_same_and_the_port_nothing_else(daemon: Daemon) -> None:
    reply = daemon.api("GET", "/netd/metrics")
    assert (reply.status, b"# TYPE netd_containers gauge" in reply.body) == (200, True)
    assert daemon.host.run("curl", "--silent", f"http://{ADDRESS}/_ping").stdout.startswith("404")


def test_a_port_that_is_taken_is_named(daemon: Daemon, new_daemon: Callable[..., Daemon]) -> None:
    second = new_daemon(host=daemon.host, start=False)
    second.options.append(f"--metrics-addr={ADDRESS}")
    with pytest.raises(AssertionError, match=f"cannot serve metrics at {ADDRESS}"):
        second.start()
