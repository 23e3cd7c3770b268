"""A host of a cluster of fakes, and words for what tests do with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from drivers import spec
from netd.cluster.model import EndpointRecord
from netd.model.networks import EndpointSettings
from netd.model.sandboxes import Endpoint, Sandbox
from netd.networks.endpoints import EndpointRequest
from netd.networks.spec import network_spec
from netd.overlays.projection import Projection
from tests.fakes.world import World
from tests.overlays.hosts import two_hosts

FAR = EndpointRecord(
    id="f", network_id="far" * 8, name="db", mac="02:42:00:00:00:01", ipv4="10.9.0.9/24", names=("db",), host="far",
    vtep="192.0.2.2",
)  # fmt: skip
WEB = Sandbox(id="5", container_id="c" * 64, name="web", netns="/n")
OTHER = Sandbox(id="6", container_id="d" * 64, name="other", netns="/m")


@pytest.fixture
def make(tmp_path: Path) -> Callable[[], World]:
    """A host of a cluster, which knows of the overlay `far` with the endpoint `db` on another host."""

    def build() -> World:
        made = World(tmp_path, clustered=True)
        far = made.cluster.networks.make_elsewhere("far", "10.9.0.0/24")
        made.cluster.remote.records[far.id] = [FAR]
        made.run(made.cluster.networks.refresh())
        return made

    return build


@pytest.fixture
def world(make: Callable[[], World]) -> Iterator[World]:
    made = make()
    yield made
    made.close()


async def join(world: World, sandbox: Sandbox = WEB, settings: EndpointSettings | None = None) -> Endpoint:
    networks = world.daemon.networks
    request = EndpointRequest(settings or EndpointSettings(), "eth0", names=(sandbox.name,))
    return await networks.join(networks.find("far"), sandbox, request)


async def leave(world: World, endpoint: Endpoint) -> None:
    world.daemon.networks.leave(endpoint)


def here(world: World) -> bool:
    """Whether the network is in this host's kernel; the resolver must know it exactly then."""
    present = "far" * 8 in world.kernel.networks
    assert ("far" * 8 in world.resolver.networks) == present
    return present


def projection(world: World) -> Projection:
    return world.daemon.projection


def network(world: World) -> spec.Network:
    """The network `far` as the kernel needs it."""
    return network_spec(world.daemon.networks.find("far").record)


async def ensure(world: World) -> None:
    """Have it in the kernel."""
    await projection(world).ensure(network(world), world.cluster.remote.on)


@pytest.fixture
def cluster() -> Any:
    """Hosts `here`, which is this one, and `far`; all is well."""
    return two_hosts()
