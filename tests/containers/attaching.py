"""Words for what tests do with the networks of containers, and for where it shows."""

from __future__ import annotations

from pathlib import Path

from msgspec.structs import replace

from netd.containers.attachments import Attachments, Plan
from netd.model.containers import Container, PortBinding
from netd.model.networks import EndpointSettings, NetworkConnect, NetworkCreate, NetworkDisconnect
from netd.model.sandboxes import Sandbox
from tests.containers.conftest import Host

EPHEMERAL = {"80/tcp": [PortBinding()]}


def attachments(host: Host) -> Attachments:
    return host.world.daemon.attachments


def network(host: Host, name: str, **asked: bool) -> None:
    """A new one."""
    host.world.run(host.world.daemon.networks.create(NetworkCreate(name=name, **asked)))  # type: ignore[arg-type]


def connect(host: Host, network: str, settings: EndpointSettings | None = None) -> None:
    """The container web, to one more."""
    host.containers.connect(network, NetworkConnect(container="web", endpoint_config=settings))


def disconnect(host: Host, network: str) -> None:
    host.containers.disconnect(network, NetworkDisconnect(container="web"))


# ---- starts ---------------------------------------------------------------------------------------------


def on(record: Container, **networks: EndpointSettings) -> Container:
    """The container with these networks in its settings."""
    return replace(record, networks=networks)


def plan(host: Host, record: Container) -> Plan:
    return host.world.run(attachments(host).plan(record, host.record))


def own(made: Plan) -> Sandbox:
    """The sandbox of a container that has one of its own."""
    assert made.sandbox is not None
    return made.sandbox


# ---- where it shows -------------------------------------------------------------------------------------


def sandbox(host: Host, name: str = "web") -> Sandbox:
    """What a running container is in."""
    found = attachments(host).sandbox(host.record(name))
    assert found is not None
    return found


def path(host: Host, file: str, name: str = "web") -> Path:
    """Where a container's file in /etc is."""
    return host.world.root / "containers" / host.record(name).id / file


def lines(host: Host, file: str = "hosts", name: str = "web") -> list[str]:
    return path(host, file, name).read_text().splitlines()


def names_on(host: Host, name: str) -> set[str]:
    """What resolves on a network."""
    table = host.world.resolver.networks.get(host.world.daemon.networks.by_name(name).record.id, {})
    return {each for record in table.values() for each in record.names}


def members_of(host: Host, name: str) -> set[str]:
    """The containers that are on a network."""
    return {member.container for member in host.world.daemon.networks.by_name(name).members.values()}


def networks(host: Host) -> tuple[set[str], set[str]]:
    """The networks of the container web: in its settings, and as it has an endpoint on them in the kernel."""
    there = host.world.kernel.sandboxes[sandbox(host).id]
    ids = {endpoint.id for endpoint in there.endpoints}
    return set(host.record().networks), {e.network for e in sandbox(host).endpoints if e.id in ids}
