"""Which scope a record is of, and the global scope of a daemon that has no cluster."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from netd.core.errors import Forbidden, NotFound, Unavailable
from netd.model.networks import EndpointSettings, Network, NetworkCreate
from netd.model.sandboxes import Endpoint
from netd.networks.endpoints import EndpointRequest
from netd.networks.live import LiveNetwork, Member
from netd.networks.local import LocalScope
from netd.networks.scope import NoCluster, Scope, Scopes
from netd.overlays.scope import Overlays
from tests.fakes.world import World
from tests.networks.conftest import WEB, local

OVERLAY = Network(name="far", id="f", created="", scope="global", driver="overlay")
ENDPOINT = Endpoint(id="e", network_id="f", network="far", ifname="eth0", ipv4="10.9.0.2/24", scope="global")
REQUEST = EndpointRequest(EndpointSettings(), "eth0")

NO_CLUSTER = "this daemon runs without --cluster-store: it has no global networks"


# ---- the contract ---------------------------------------------------------------------------------------


def contract() -> Iterator[tuple[str, Any]]:
    return ((name, method) for name, method in vars(Scope).items() if callable(method) and name[0] != "_")


@pytest.mark.parametrize("kind", [LocalScope, NoCluster, Overlays])
def test_every_scope_has_all_that_the_contract_says(kind: type) -> None:
    assert isinstance(kind.loses, bool)  # type: ignore[attr-defined]
    for name, wanted in contract():
        found = getattr(kind, name)
        assert inspect.iscoroutinefunction(found) == inspect.iscoroutinefunction(wanted), name
        assert str(inspect.signature(found)) == str(inspect.signature(wanted)), name


def test_the_contract_is_not_empty() -> None:
    assert {"load", "create", "join", "left", "keep", "endpoints"} <= {name for name, _ in contract()}


# ---- choosing -------------------------------------------------------------------------------------------


def test_the_scope_of_a_network_or_an_endpoint_is_what_its_record_says(world: World) -> None:
    here, everywhere = local(world), NoCluster()
    scopes = Scopes(here, everywhere)
    assert scopes.of(OVERLAY) is everywhere
    assert scopes.of(ENDPOINT) is everywhere
    assert scopes.of(world.daemon.networks.by_name("shop").record) is here
    assert scopes.of(Endpoint(id="e", network_id="s", network="shop")) is here


def test_the_local_scope_comes_first(world: World) -> None:
    here, everywhere = local(world), NoCluster()
    assert list(Scopes(here, everywhere)) == [here, everywhere]


# ---- without a cluster ----------------------------------------------------------------------------------


def test_a_daemon_without_a_cluster_makes_no_global_network(world: World) -> None:
    with pytest.raises(Forbidden, match="This node is not a swarm manager"):
        world.run(world.daemon.networks.create(NetworkCreate(name="global", driver="overlay")))
    assert world.run(world.daemon.networks.create(NetworkCreate(name="global"))), "the name is free"


@pytest.mark.parametrize(
    "ask",
    [lambda live: NoCluster().remove(live), lambda live: NoCluster().join(live, WEB, REQUEST)],
    ids=["remove", "join"],
)
def test_whatever_needs_a_cluster_is_refused_with_the_reason(world: World, ask: Callable[[LiveNetwork], Any]) -> None:
    with pytest.raises(Unavailable, match=f"^{NO_CLUSTER}$"):
        world.run(ask(LiveNetwork(OVERLAY)))


def test_what_is_left_of_a_cluster_counts_no_more(world: World) -> None:
    scope, live = NoCluster(), LiveNetwork(OVERLAY)
    member = Member("c", "web", ENDPOINT)
    scope.adopt(live, member)
    scope.remember(live, ["10.9.0.7"], "c")
    world.run(scope.start([member]))
    world.run(scope.keep(live, ["10.9.0.7"], "c"))
    assert not live.members
    assert (scope.specs(), scope.endpoints(live), world.run(scope.members(live))) == ([], (), ())
    world.run(scope.rename(ENDPOINT, WEB))
    scope.let_go("c")
    scope.left(ENDPOINT)


def test_a_daemon_that_leaves_its_cluster_goes_on_without_the_global_networks(tmp_path: Path) -> None:
    world = World(tmp_path, clustered=True)
    try:
        world.cluster.networks.make_elsewhere("far", "10.9.0.0/24")
        world.run(world.cluster.networks.refresh())
        networks = world.daemon.networks
        endpoint = world.run(networks.join(networks.find("far"), WEB, REQUEST))
        world.run(world.namespaces.pin(WEB.netns))
        sandbox = WEB.with_endpoint(endpoint)
        world.run(world.daemon.sandboxes.bring_up(sandbox))
        world.clustered = False
        world.restart_daemon()
        with pytest.raises(NotFound, match="network far not found"):
            world.daemon.networks.find("far")
        assert "far" * 8 not in world.kernel.networks
        world.daemon.networks.leave(endpoint)  # which nobody counts
        assert {live.record.name for live in world.daemon.networks.live.values()} == {"bridge", "host", "none"}
    finally:
        world.close()
