"""A machine of fakes, and the real managers on it, put together as netd/daemon/wiring.py does it.

The machine outlives the daemon: `restart_daemon` is kill -9 and a new one that loads.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Coroutine, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from kvstore.contract import Entry
from netd.config.values import Config
from netd.containers.attachments import Attachments
from netd.containers.manager import ContainerManager
from netd.containers.publishing import Publisher
from netd.containers.streams import ContainerStreams
from netd.core.events import EventBus
from netd.core.records import Records
from netd.core.tasks import Tasks
from netd.images.store import ImageStore
from netd.ipam.pools import PoolAllocator
from netd.model.containers import Container
from netd.model.images import Image, ImageConfig
from netd.model.networks import Network, StaticRecord
from netd.model.sandboxes import Sandbox
from netd.names.resolver import Names
from netd.networks.live import LiveNetworks
from netd.networks.local import LocalScope
from netd.networks.manager import NetworkManager
from netd.networks.scope import NoCluster, Scope, Scopes
from netd.overlays.gateway import Gateway
from netd.overlays.projection import Projection
from netd.overlays.scope import Overlays
from netd.sandboxes.attached import AttachedSandboxes
from netd.sandboxes.holders import follow_up, lose_endpoints
from netd.sandboxes.joining import Joining
from netd.sandboxes.manager import SandboxManager
from netd.sandboxes.reconciler import Reconciler
from tests.fakes.calls import Calls
from tests.fakes.cluster import FakeCluster
from tests.fakes.kernel import FakeKernel
from tests.fakes.launcher import FakeLauncher
from tests.fakes.loop import Loop
from tests.fakes.namespaces import FakeNamespaces
from tests.fakes.resolver import FakeResolver
from tests.fakes.store import FakeStore

T = TypeVar("T")

IMAGE = "1" * 64
_ID = re.compile(r"\b[0-9a-f]{12}(?:[0-9a-f]{52})?\b")
_VARIES = re.compile(r"20\d\d-\d\d-\d\dT[\d:.]+Z|(?<=\"Pid\":)\d+")
_CONFIG = Config(bip="172.17.0.1/28")
_POOLS = (("172.17.0.0/16", 28), ("fd00::/48", 64))


class World:
    """A machine, and the daemon that runs on it now. Close it: it is the running event loop until then."""

    def __init__(
        self,
        root: Path,
        entries: Mapping[str, Entry] | None = None,
        *,
        like: World | None = None,
        clustered: bool = False,
    ) -> None:
        self.root = root
        self.watching = False  # whether daemons look for attached namespaces that go, every second
        self.calls = Calls()
        self.cluster = FakeCluster(self.calls)
        self.clustered = clustered
        self.store = FakeStore(self.calls, entries or {f"images/{IMAGE}": _image()})
        self.namespaces = FakeNamespaces(self.calls)
        self.kernel = FakeKernel(self.calls, self.namespaces)
        self.resolver = FakeResolver(self.calls)
        self.launcher = FakeLauncher(self.calls, root)
        if like is not None:
            self.resemble(like)
        else:
            for key in self.store.under("images"):
                (root / "images" / key / "rootfs").mkdir(parents=True)
        self.loop = Loop()
        self.loop.enter()
        self._gone: list[Loop] = []
        self.daemon = Daemon(self)
        self.run(self.daemon.load())

    def resemble(self, other: World) -> None:
        """Have what another machine has, at rest; a daemon has yet to load."""
        self.store = FakeStore(self.calls, other.store.entries)
        self.namespaces.present |= other.namespaces.present
        self.kernel.networks |= other.kernel.networks
        self.kernel.sandboxes |= other.kernel.sandboxes
        self.resolver.resemble(other.resolver)
        self.launcher.processes |= {id: process.twin() for id, process in other.launcher.processes.items()}
        for path, content in other.files:
            if content is None:
                os.makedirs(f"{self.root}/{path}", exist_ok=True)
            else:
                with open(f"{self.root}/{path}", "wb") as file:
                    file.write(content)

    @cached_property
    def files(self) -> list[tuple[str, bytes | None]]:
        """Directories and files of a machine at rest, each after its parent."""
        found = sorted(self.root.rglob("*"))
        return [(str(path.relative_to(self.root)), path.read_bytes() if path.is_file() else None) for path in found]

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run(work)

    def kill_daemon(self) -> Daemon:
        """kill -9: what was under way stops where it is. The new daemon has not loaded yet."""
        self._gone.append(self.loop)
        self.calls.waiting.clear()
        self.loop = Loop(self.loop.time())
        self.loop.enter()
        self.daemon = Daemon(self)
        return self.daemon

    def restart_daemon(self) -> None:
        self.run(self.kill_daemon().load())

    def shape(self, known: Mapping[str, Entry]) -> str:
        """All that outlives the daemon, with ids and times left out: worlds of one shape load in one way.

        Of what is `known` to be in all worlds that are compared, only the key.
        """
        entries = self.store.entries
        parts = [
            *(key if known.get(key) is entry else f"{key}={entry.value!r}" for key, entry in entries.items()),
            *(f"{id} {p.started} {p.paused} {p.status}" for id, p in self.launcher.processes.items()),
            *self.namespaces.present,
            *self.kernel.networks,
            *(f"{s.id} {[e.id for e in s.endpoints]}" for s in self.kernel.sandboxes.values()),
            *(f"{key} {[(r.endpoint, r.names) for r in t.values()]}" for key, t in self.resolver.networks.items()),
            *(f"{v.sandbox} {v.container} {v.networks}" for v in self.resolver.sandboxes.values()),
        ]
        numbers: dict[str, str] = {}
        text = _VARIES.sub("", "\n".join(parts))
        return _ID.sub(lambda found: numbers.setdefault(found[0][:12], f"#{len(numbers)}"), text)

    def close(self) -> None:
        for loop in (*self._gone, self.loop):
            loop.enter()
            loop.drain()
        self.loop.leave()
        shutil.rmtree(self.root, ignore_errors=True)


class Daemon:
    """One life of the daemon: its managers, over a machine's fakes."""

    def __init__(self, world: World) -> None:
        store, kernel, resolver, launcher = world.store, world.kernel, world.resolver, world.launcher
        self._world = world
        self.loaded = False
        self.events = EventBus()
        self.names = Names(resolver, Records(store, "dns", tuple[StaticRecord, ...]), lambda: _CONFIG)  # type: ignore[arg-type]
        table = LiveNetworks()
        local = LocalScope(
            table,
            Records(store, "networks", Network),
            PoolAllocator(_POOLS),
            kernel,  # type: ignore[arg-type]
            self.names,
            _CONFIG,
        )
        self.projection = Projection(table, kernel, self.names)  # type: ignore[arg-type]
        everywhere: Scope = NoCluster()
        if world.clustered:
            world.cluster.listener = self.projection
            everywhere = Overlays(table, world.cluster, self.projection, kernel)  # type: ignore[arg-type]
        self.networks = NetworkManager(table, Scopes(local, everywhere), self.events)
        self.sandboxes = SandboxManager(
            Records(store, "sandboxes", Sandbox),
            self.networks,
            kernel,  # type: ignore[arg-type]
            self.names,
            world.namespaces,  # type: ignore[arg-type]
        )
        self.publisher = Publisher()
        self.joining = Joining(self.networks, self.sandboxes, Gateway(self.networks))
        self.attachments = Attachments(
            self.networks, self.sandboxes, self.joining, self.names, self.publisher, self.events, world.root
        )
        self.images = ImageStore(world.root, store)
        self.containers = ContainerManager(
            Records(store, "containers", Container),
            self.images,
            self.attachments,
            launcher,  # type: ignore[arg-type]
            self.events,
            world.root,
        )
        self.attached = AttachedSandboxes(self.networks, self.sandboxes, self.joining, world.namespaces)  # type: ignore[arg-type]
        self.reconciler = Reconciler(resolver, self.names, self.networks, self.sandboxes)  # type: ignore[arg-type]
        self.tasks = Tasks()
        self.streams = ContainerStreams(self.containers, launcher, self.events)  # type: ignore[arg-type]

    async def load(self) -> None:
        """As `Daemon._open` in netd/daemon/wiring.py, in its order."""
        await self.images.load()
        await self.names.load()
        await self.networks.load()
        await self.sandboxes.load()
        await self.containers.load()
        await self.attached.let_go_of_the_lost()
        await self.reconciler.adopt()
        await self.sandboxes.restore_kernel()
        await self.networks.start(self.sandboxes.all())
        await self.joining.recover()
        if self._world.clustered:
            holders = (self.containers, self.attached)
            self.tasks.keep_running(partial(lose_endpoints, self.projection.lost, holders, self.tasks), "losing")
            self.tasks.keep_running(partial(follow_up, self.joining.behind, holders, self.tasks), "following up")
        self.tasks.keep_running(self.reconciler.run, "reconciling names and sandboxes")
        await self.reconciler.settled(1)
        if self._world.watching:
            self.tasks.keep_running(self.attached.watch, "watching attached namespaces")
        self.containers.begin()
        self.loaded = True

    def records(self) -> dict[str, Container]:
        """What it believes of its containers."""
        return {live.record.id: live.record for live in self.containers.live.values()}

    def ports_held(self) -> set[str]:
        """The ids of the sandboxes that hold ports of the host."""
        return {owner for owner, ports in self.publisher._ports._owned.items() if ports}


def _image() -> Entry:
    image = Image(id=f"sha256:{IMAGE}", created="2026-01-01T00:00:00Z", repo_tags=["app:latest"], config=ImageConfig())
    return Entry(f"images/{IMAGE}", msgspec.json.encode(image), 1)
