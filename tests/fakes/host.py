"""A host with networks and sandboxes, over fakes: what names and sandboxes are tested on."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from kvstore.contract import Entry
from netd.config.values import Config
from netd.core.events import EventBus
from netd.core.records import Records
from netd.core.tasks import Tasks
from netd.ipam.pools import PoolAllocator
from netd.model.networks import Network, NetworkCreate, StaticRecord
from netd.model.sandboxes import Endpoint, Sandbox
from netd.names.hostresolv import HostResolvConf
from netd.names.resolver import Names
from netd.networks.live import LiveNetworks, Member
from netd.networks.local import LocalScope
from netd.networks.manager import NetworkManager
from netd.networks.scope import NoCluster, Scopes
from netd.sandboxes.manager import SandboxManager
from netd.sandboxes.reconciler import Reconciler
from tests.fakes.calls import Calls
from tests.fakes.kernel import FakeKernel
from tests.fakes.loop import Loop
from tests.fakes.namespaces import FakeNamespaces
from tests.fakes.resolver import FakeResolver
from tests.fakes.store import FakeStore

T = TypeVar("T")

CONFIG = Config(bip="172.17.0.1/28")


class Host:
    """One daemon's managers. `run` lets time pass until something is done, `settle` until nothing more happens."""

    def __init__(
        self, loop: Loop, entries: Mapping[str, Entry] | None = None, host_file: HostResolvConf | None = None
    ) -> None:
        self.loop = loop
        self.calls = Calls()
        self.store = FakeStore(self.calls, entries)
        self.namespaces = FakeNamespaces(self.calls)
        self.kernel = FakeKernel(self.calls, self.namespaces)
        self.resolver = FakeResolver(self.calls)
        self._host_file = host_file
        self._number = itertools.count(2)
        self.tasks = Tasks()
        self.begin()

    def begin(self) -> None:
        """Another daemon, which has not loaded yet; the job of the one before is at an end."""
        self.run(self.tasks.close())
        store: Any = self.store
        kernel: Any = self.kernel
        resolver: Any = self.resolver
        namespaces: Any = self.namespaces
        self.tasks = Tasks()
        self.names = Names(resolver, Records(store, "dns", tuple[StaticRecord, ...]), lambda: CONFIG, self._host_file)
        pools = PoolAllocator(host_id="fake")
        table = LiveNetworks()
        local = LocalScope(table, Records(store, "networks", Network), pools, kernel, self.names, CONFIG)
        self.networks = NetworkManager(table, Scopes(local, NoCluster()), EventBus())
        self.sandboxes = SandboxManager(
            Records(store, "sandboxes", Sandbox), self.networks, kernel, self.names, namespaces
        )
        self.reconciler = Reconciler(resolver, self.names, self.networks, self.sandboxes)

    async def load(self) -> None:
        """As a daemon does at its start."""
        await self.names.load()
        await self.networks.load()
        await self.sandboxes.load()
        await self.reconciler.adopt()
        await self.sandboxes.restore_kernel()
        self.tasks.keep_running(self.reconciler.run, "reconciling", pause=0.1)
        await self.reconciler.settled(5)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run(work)

    def settle(self, seconds: float = 30) -> None:
        self.loop.settle(seconds)

    def until(self, condition: Callable[[], bool]) -> None:
        """Let everything go on until something is so."""
        for _ in range(20_000):
            if condition():
                return
            if self.loop.step() is None and not self.loop.pass_time(self.loop.time() + 90):
                break
        assert condition(), "it never comes about"

    # ---- what is there ----------------------------------------------------------------------------------

    def network(self, name: str) -> Network:
        """A new bridge network."""
        self.run(self.networks.create(NetworkCreate(name=name)))
        return self.networks.by_name(name).record

    def endpoint(self, network: Network, name: str) -> Endpoint:
        """An endpoint that counts as a member, as when a start is planned."""
        number = next(self._number)
        live = self.networks.live[network.id]
        endpoint = Endpoint(
            id=f"{name}-on-{network.name}",
            network_id=network.id,
            network=network.name,
            ifname=f"eth{number}",
            mac="02:42:0a:00:00:02",
            ipv4=live.addresses.take(4),
            predefined=live.predefined,
            names=() if live.predefined else (name,),
        )
        live.members[endpoint.id] = Member(f"c-{name}", name, endpoint)
        return endpoint

    def planned(self, name: str, *networks: Network) -> Sandbox:
        """A sandbox with its namespace, which nothing else has been done for."""
        sandbox = Sandbox(
            id=f"s-{name}",
            container_id=f"c-{name}",
            name=name,
            netns=self.namespaces.path(f"s-{name}"),
            endpoints=tuple(self.endpoint(network, name) for network in networks),
        )
        self.run(self.sandboxes.pin(sandbox))
        return sandbox

    def up(self, name: str, *networks: Network) -> Sandbox:
        """A sandbox that is there."""
        sandbox = self.planned(name, *networks)
        self.run(self.sandboxes.bring_up(sandbox))
        return sandbox

    # ---- what a user notices ----------------------------------------------------------------------------

    def names_on(self, network: Network) -> set[str]:
        """The names that resolve on a network."""
        return {name for record in self.resolver.networks.get(network.id, {}).values() for name in record.names}

    def static_on(self, network: Network) -> list[str]:
        """The static records that resolve on a network."""
        return sorted(self.resolver.lines.get(network.id, ()))

    def has_dns(self, sandbox: Sandbox) -> bool:
        """Whether its questions reach the resolver: it has sockets, and they are where the kernel sends them."""
        ports, there = self.resolver.ports(sandbox.id), self.kernel.sandboxes.get(sandbox.id)
        return (
            ports is not None
            and there is not None
            and there.dns is not None
            and (there.dns.udp, there.dns.tcp) == (ports.udp, ports.tcp)
        )

    def taken_on(self, network: Network) -> set[str]:
        """The addresses that are held by members or not free."""
        live = self.networks.live[network.id]
        held = {address for member in live.members.values() for address in member.endpoint.addresses}
        gateway = (network.ipam.config or [])[0].gateway
        hosts = list(live.addresses.spaces[0].pool.hosts())[:32]
        return held | {str(a) for a in hosts if live.addresses.spaces[0].in_use(a) and str(a) != gateway}


@contextmanager
def host(entries: Mapping[str, Entry] | None = None, host_file: HostResolvConf | None = None) -> Iterator[Host]:
    """A host whose daemon has started."""
    with Loop() as loop:
        made = Host(loop, entries, host_file)
        made.run(made.load())
        yield made
