"""Puts the house together, opens the doors, and leaves everything running when it goes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import signal
import socket
from functools import partial
from pathlib import Path

from dns.client import Resolver
from drivers.kernel import Kernel
from kvstore.contract import Store
from kvstore.open import open_store
from netd.api.routes import ROUTES
from netd.api.server.app import Api
from netd.api.server.listen import Listeners
from netd.api.server.metrics import serving
from netd.api.server.services import Services
from netd.cluster.cluster import Cluster
from netd.config import load as configuration
from netd.config.cluster import parse_advertise
from netd.config.values import Config
from netd.containers.attachments import Attachments
from netd.containers.manager import ContainerManager
from netd.containers.publishing import Publisher
from netd.containers.streams import ContainerStreams
from netd.core.errors import InvalidParameter, NetdError, NotFound
from netd.core.events import EventBus
from netd.core.records import Records
from netd.core.tasks import Tasks
from netd.daemon import logs, systemd
from netd.images.store import ImageStore
from netd.ipam.pools import PoolAllocator
from netd.launcher import Launcher
from netd.model.containers import Container
from netd.model.networks import Network, StaticRecord
from netd.model.sandboxes import Sandbox
from netd.names.questions import Naming
from netd.names.resolver import Names
from netd.networks.live import LiveNetworks
from netd.networks.local import LocalScope
from netd.networks.manager import NetworkManager
from netd.networks.scope import NoCluster, Scope, Scopes
from netd.overlays.gateway import Gateway
from netd.overlays.hosts import ClusterView, HostsView, NoHosts
from netd.overlays.projection import Projection
from netd.overlays.scope import Overlays
from netd.sandboxes.attached import AttachedSandboxes
from netd.sandboxes.holders import follow_up, lose_endpoints
from netd.sandboxes.joining import Joining
from netd.sandboxes.manager import SandboxManager
from netd.sandboxes.namespaces import Namespaces
from netd.sandboxes.reconciler import Reconciler
from netd.status.metrics import Metrics
from netd.status.system import System

log = logging.getLogger(__name__)

_NAMES_SECONDS = 5.0  # that a start waits until the resolver knows all names


class Daemon:
    """One daemon: what it is made of, in the order it is opened."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._stop = asyncio.Event()

    async def run(self) -> int:
        async with contextlib.AsyncExitStack() as stack:
            await self._open(stack)
            systemd.notify("READY=1")
            log.info("netd is ready on %s", ", ".join(self.config.hosts))
            await self._stop.wait()
            systemd.notify("STOPPING=1")
            log.info("netd stops; containers, their network and their names go on")
        return 0

    async def _open(self, stack: contextlib.AsyncExitStack) -> None:
        config = self.config
        data, run = Path(config.data_root), Path(config.exec_root)
        daemon_id = _identity(data / "id")
        store = await open_store(data / "netd.db")
        stack.push_async_callback(store.close)
        kernel = await Kernel.open(daemon_id[:12], str(run / "overlays"))
        stack.push_async_callback(kernel.close)
        resolver = await Resolver.connect(run / "dns.sock", kernel=config.dns_kernel)
        stack.push_async_callback(resolver.close)
        _check_kernel(resolver)

        events = EventBus()
        names = Names(resolver, Records(store, "dns", tuple[StaticRecord, ...]), lambda: self.config)
        pools = PoolAllocator([(p.base, p.size) for p in config.default_address_pools] or None)
        table = LiveNetworks()
        projection = Projection(table, kernel, names)
        local = LocalScope(table, Records(store, "networks", Network), pools, kernel, names, config)
        everywhere, hosts = await self._open_cluster(stack, store, daemon_id, table, projection, kernel)
        networks = NetworkManager(table, Scopes(local, everywhere), events)
        namespaces = Namespaces(run / "netns")
        sandboxes = SandboxManager(Records(store, "sandboxes", Sandbox), networks, kernel, names, namespaces)
        joining = Joining(networks, sandboxes, Gateway(networks))
        attachments = Attachments(networks, sandboxes, joining, names, Publisher(), events, data)
        images = ImageStore(data, store)
        launcher = Launcher(data, run, config.default_runtime or None)
        containers = ContainerManager(
            Records(store, "containers", Container), images, attachments, launcher, events, data
        )
        stack.push_async_callback(launcher.close)
        stack.push_async_callback(containers.close)
        attached = AttachedSandboxes(networks, sandboxes, joining, namespaces)
        reconciler = Reconciler(resolver, names, networks, sandboxes)
        tasks = Tasks()
        stack.push_async_callback(tasks.close)
        streams = ContainerStreams(containers, launcher, events)
        stack.push_async_callback(streams.close)
        system = System(daemon_id, lambda: self.config, containers, images, launcher.runtime, names.state)

        await images.load()
        await names.load()
        await networks.load()
        await sandboxes.load()
        await containers.load()
        await attached.let_go_of_the_lost()
        # the resolver's sockets first: a redirect to them must not be taken down and put up again
        await reconciler.adopt()
        await sandboxes.restore_kernel()
        await networks.start(sandboxes.all())
        await joining.recover()
        holders = (containers, attached)
        tasks.keep_running(partial(lose_endpoints, projection.lost, holders, tasks), "losing endpoints")
        tasks.keep_running(partial(follow_up, joining.behind, holders, tasks), "following up changes of networks")
        tasks.keep_running(reconciler.run, "reconciling names and sandboxes")
        if not await reconciler.settled(_NAMES_SECONDS):
            log.warning("not all names are told to the resolver yet, which goes on")
        await kernel.watch()
        tasks.keep_running(sandboxes.follow_host_resolvers, "following the host's resolv.conf")
        tasks.keep_running(attached.watch, "watching attached namespaces")
        naming = Naming(networks, partial(_find_sandbox, containers, attached), names)
        metrics = Metrics(system, networks, names, kernel, hosts)
        services = Services(networks, containers, images, events, system, streams, attached, naming, metrics, hosts)
        app = Api(services, ROUTES)
        await stack.enter_async_context(serving(config.metrics_addr, metrics))
        listeners = Listeners(app, config)
        await listeners.start()
        stack.push_async_callback(listeners.stop)
        containers.begin()
        self._handle_signals()

    async def _open_cluster(
        self,
        stack: contextlib.AsyncExitStack,
        store: Store,
        daemon_id: str,
        table: LiveNetworks,
        projection: Projection,
        kernel: Kernel,
    ) -> tuple[Scope, HostsView]:
        """Global networks, where the configuration names a cluster's store."""
        config = self.config
        if not config.cluster_store:
            return NoCluster(), NoHosts()
        advertise = parse_advertise(config.cluster_advertise).address() if config.cluster_advertise else ""
        cluster = await Cluster.open(
            config.cluster_store,
            dict(config.cluster_store_opts),
            advertise,
            store,
            projection,
            host=socket.gethostname(),
            host_id=daemon_id,
        )
        stack.push_async_callback(cluster.close)
        overlays = Overlays(table, cluster, projection, kernel)
        stack.push_async_callback(overlays.close)
        return overlays, ClusterView(cluster)

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload)

    def _reload(self) -> None:
        systemd.notify("RELOADING=1")
        try:
            self.config, late = configuration.reload(self.config)
        except InvalidParameter as error:
            log.error("the configuration stays as it is: %s", error)
        else:
            logs.set_up(self.config)
            log.info("configuration reloaded from %s", self.config.config_file)
            if late:
                told = "these take effect at the next start of the daemon, which containers do not notice: %s"
                log.warning(told, ", ".join(late))
        systemd.notify("READY=1")


def _check_kernel(resolver: Resolver) -> None:
    """Say who answers names; raises `NetdError` if it is to be the kernel and cannot be."""
    found = resolver.kernel
    if resolver.lost.is_set():
        log.warning("netd-dns does not answer yet")
    elif found.program:
        log.info("names are answered in the kernel")
    elif found.mode == "on":
        raise NetdError(f"names cannot be answered in the kernel: {found.reason} (see --dns-kernel)")
    else:
        log.info("names are answered by netd-dns, not in the kernel: %s", found.reason or "--dns-kernel=off")


def _find_sandbox(containers: ContainerManager, attached: AttachedSandboxes, ref: str) -> Sandbox:
    """That of a container or of an attached namespace, named as in every other command."""
    try:
        return containers.sandbox(ref)
    except NotFound:
        found = attached.find(ref)
        if found is None:
            raise NotFound(f"no container or attached namespace is called {ref}") from None
        return found


def _identity(path: Path) -> str:
    """This daemon's id, made at its first start: kernel objects carry it, so that daemons never mix them up."""
    if path.exists():
        return path.read_text().strip()
    identity = secrets.token_hex(32)
    path.write_text(f"{identity}\n")
    return identity
