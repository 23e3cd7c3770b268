"""What must be true of a world in which nothing is under way: memory, store and fakes tell the same story."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from ipaddress import IPv4Address, IPv4Network, ip_network
from typing import Any, NamedTuple

import msgspec

from netd.model.containers import Container
from netd.model.images import Image
from netd.model.networks import Network
from netd.model.sandboxes import Sandbox
from netd.names.resolver import record as resolver_record
from netd.overlays.gateway import NETWORK as GATEWAY
from tests.fakes.world import World


class Complaint(NamedTuple):
    """What is wrong, and in which respect."""

    area: str  # named after the check below that makes it, but for bundles
    text: str


def complaints(world: World) -> list[Complaint]:
    """Everything that is wrong with a quiet world; empty if nothing is."""
    checks = (
        *(_processes, _records, _sandboxes, _endpoints, _kernel, _resolver),
        *(_namespaces, _addresses, _ports, _files, _images),
    )
    return [complaint for check in checks for complaint in check(world)]


def _differ(area: str, what: str, found: Any, wanted: Any) -> Iterator[Complaint]:
    if found != wanted:
        yield Complaint(area, f"{what}: {_short(found)}, but it should be {_short(wanted)}")


def _short(value: Any) -> str:
    if isinstance(value, str):
        return value[:12] if len(value) == 64 else value
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_short(k)}: {_short(v)}" for k, v in value.items()) + "}"
    if isinstance(value, (set, frozenset, list, tuple)):
        return "{" + ", ".join(sorted(_short(item) for item in value)) + "}"
    return str(value)


def _processes(world: World) -> Iterator[Complaint]:
    """A container runs exactly if it says so."""
    says = {r.id: r.state.paused for r in world.daemon.records().values() if r.state.running}
    runs = {id: process.paused for id, process in world.launcher.running().items()}
    names = {r.id: r.name for r in world.daemon.records().values()}
    for id in says.keys() - runs:
        yield Complaint("processes", f"{names[id]} says that it runs, and has no process")
    for id in runs.keys() - says:
        yield Complaint(
            "processes", f"a process of {names.get(id, 'a container that is gone')} runs, and nobody says so"
        )
    for id in says.keys() & runs:
        if says[id] != runs[id]:
            yield Complaint("processes", f"{names[id]} says paused={says[id]}, its process is paused={runs[id]}")
    for id in world.launcher.processes.keys() - runs:
        yield Complaint("bundles", f"a bundle of {names.get(id, 'a container that is gone')} is left")


def _records(world: World) -> Iterator[Complaint]:
    """What the daemon believes is what is stored."""
    stored = {k: msgspec.json.decode(v, type=Container) for k, v in world.store.under("containers").items()}
    believed = world.daemon.records()
    for id in stored.keys() - believed:
        yield Complaint("records", f"{stored[id].name} is stored, but not known")
    for id in believed.keys() - stored:
        yield Complaint("records", f"{believed[id].name} is known, but not stored")
    for id in believed.keys() & stored:
        yield from _differ("records", f"the record of {believed[id].name} in memory", believed[id], stored[id])
    networks = {k: msgspec.json.decode(v, type=Network) for k, v in world.store.under("networks").items()}
    local = {k: n.record for k, n in world.daemon.networks.live.items() if n.record.scope == "local"}
    yield from _differ("records", "networks", local, networks)
    names = [record.name for record in believed.values()]
    if len(names) != len(set(names)):
        yield Complaint("records", f"a name is taken twice: {names}")


def _sandboxes(world: World) -> Iterator[Complaint]:
    """Each sandbox is an attached namespace's or a running container's, and each of those has its own."""
    found = {s.id: s for s in world.daemon.sandboxes.all()}
    stored = {k: msgspec.json.decode(v, type=Sandbox) for k, v in world.store.under("sandboxes").items()}
    yield from _differ("sandboxes", "stored sandboxes", stored, found)
    wanted = {
        record.sandbox_id: record.id
        for record in world.daemon.records().values()
        if record.state.running and not record.host_config.network_mode.startswith("container:")
    }
    own = {s.id: s.container_id for s in found.values() if not s.attached}
    yield from _differ("sandboxes", "sandboxes of containers", own, wanted)


def _endpoints(world: World) -> Iterator[Complaint]:
    """A running container is on the networks that it says, under its name."""
    for record in world.daemon.records().values():
        sandbox = world.daemon.sandboxes.get(record.sandbox_id)
        if sandbox is not None and record.state.running:
            on = {endpoint.network for endpoint in sandbox.endpoints if endpoint.network != GATEWAY}
            yield from _differ("endpoints", f"networks of {record.name}'s sandbox", on, set(record.networks))
            yield from _differ("endpoints", f"the name of {record.name}'s sandbox", sandbox.name, record.name)
    for sandbox in world.daemon.sandboxes.all():
        for endpoint in sandbox.endpoints:
            if endpoint.network_id not in world.daemon.networks.live:
                yield Complaint("endpoints", f"{sandbox.name} is on {endpoint.network}, which is gone")
    for live in world.daemon.networks.live.values():
        wanted = {
            e.id: (s.name, e)
            for s in world.daemon.sandboxes.all()
            for e in s.endpoints
            if e.network_id == live.record.id
        }
        members = {key: (member.container, member.endpoint) for key, member in live.members.items()}
        yield from _differ("endpoints", f"members of {live.record.name}", members, wanted)


def _kernel(world: World) -> Iterator[Complaint]:
    wanted = {n.record.id for n in world.daemon.networks.live.values() if n.record.driver == "bridge" or n.members}
    yield from _differ("kernel", "networks in the kernel", set(world.kernel.networks), wanted)
    links = {s.id: {e.id for e in s.endpoints} for s in world.kernel.sandboxes.values()}
    own = {s.id: {e.id for e in s.endpoints if e.ifname} for s in world.daemon.sandboxes.all() if s.netns}
    yield from _differ("kernel", "links in the kernel", links, own)


def _resolver(world: World) -> Iterator[Complaint]:
    """It has been told everything, and has forgotten what is gone."""
    live = [n for n in world.daemon.networks.live.values() if n.record.name not in ("bridge", "host", "none")]
    tables = {n.record.id: {} for n in live}
    unused = {
        n.record.id for n in live if n.record.scope == "global" and not n.members
    }  # it may know them all the same
    for sandbox in world.daemon.sandboxes.all():
        for endpoint in sandbox.endpoints:
            if endpoint.names and endpoint.network_id in tables:
                tables[endpoint.network_id][endpoint.id] = resolver_record(endpoint)
    known = {key: table for key, table in world.resolver.networks.items() if key not in unused}
    tables = {key: table for key, table in tables.items() if key not in unused}
    yield from _differ("resolver", "names that resolve", known, tables)
    views = {view.sandbox: (view.container, view.networks) for view in world.resolver.sandboxes.values()}
    # one that has left its last network still asks, and is told nothing
    served = {
        s.id: (s.name, tuple(e.network_id for e in s.ordered if not e.predefined))
        for s in world.daemon.sandboxes.all()
        if s.netns and (s.resolves or s.id in views)
    }
    yield from _differ("resolver", "who is answered, and from which networks", views, served)
    lines = {n.record.id: sorted(r.line for r in world.daemon.names.static(n.record.id)) for n in live}
    lines = {key: wanted for key, wanted in lines.items() if key not in unused}
    told = {key: sorted(lines) for key, lines in world.resolver.lines.items() if key not in unused}
    yield from _differ("resolver", "static records that resolve", told, lines)


def _namespaces(world: World) -> Iterator[Complaint]:
    ours = {path for path in world.namespaces.present if path == world.namespaces.path(path.rpartition("/")[2])}
    wanted = {s.netns for s in world.daemon.sandboxes.all() if s.netns and not s.attached}
    yield from _differ("namespaces", "pinned namespaces", ours, wanted)


def _addresses(world: World) -> Iterator[Complaint]:
    """Taken are the addresses of the endpoints that are there, and those kept for containers that asked for them."""
    for live in world.daemon.networks.live.values():
        space = next((s for s in live.addresses.spaces if s.pool.version == 4), None)
        if space is None:
            continue
        name, pool = live.record.name, str(space.pool)
        wanted = {e.ipv4.partition("/")[0] for m in live.members.values() for e in (m.endpoint,) if e.ipv4}
        for record in world.daemon.records().values():
            settings = record.networks.get(name)
            if settings is not None and settings.ipam_config is not None and settings.ipam_config.ipv4_address:
                wanted.add(settings.ipam_config.ipv4_address)
        gateway = (live.record.ipam.config or [])[0].gateway
        taken = {str(a) for a in _hosts(pool) if space.in_use(a)} - {gateway}
        yield from _differ("addresses", f"addresses taken on {name}", taken, wanted)


@cache
def _hosts(pool: str) -> list[IPv4Address]:
    network = ip_network(pool)
    assert isinstance(network, IPv4Network) and network.prefixlen >= 24, "a test's networks are small"
    return list(network.hosts())


def _ports(world: World) -> Iterator[Complaint]:
    wanted = {sandbox.id for sandbox in world.daemon.sandboxes.all() if sandbox.published}
    yield from _differ("ports", "sandboxes that hold ports", world.daemon.ports_held(), wanted)


def _files(world: World) -> Iterator[Complaint]:
    """No directory of a container that is gone."""
    directory = world.root / "containers"
    left = {path.name for path in directory.iterdir()} if directory.is_dir() else set()
    for name in left - world.daemon.records().keys():
        yield Complaint("files", f"the directory of {name[:12]}, which is gone, is left")


def _images(world: World) -> Iterator[Complaint]:
    """Each image has its record and its files, each name is one image's, and no container lacks its own."""
    stored = {k: msgspec.json.decode(v, type=Image) for k, v in world.store.under("images").items()}
    yield from _differ("images", "images", dict(world.daemon.images.images), stored)
    left = {path.name for path in (world.root / "images").iterdir()}
    yield from _differ("images", "directories of images", left, set(stored))
    names = [name for image in stored.values() for name in image.repo_tags]
    if len(names) != len(set(names)):
        yield Complaint("images", f"a name is two images': {names}")
    for record in world.daemon.records().values():
        if record.image_id.removeprefix("sha256:") not in stored:
            yield Complaint("images", f"the image of {record.name} is gone")
