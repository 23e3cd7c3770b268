"""Sandboxes made real: namespace, links, published ports, names and the files in /etc, up and down."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

from msgspec.structs import replace

from dns.client import Ports
from drivers import spec
from drivers.kernel import Kernel
from netd import resolvconf
from netd.names import Names
from netd.namespaces import Namespaces
from netd.network_live import Member
from netd.networks import NetworkManager
from netd.records import Records
from netd.sandbox import Endpoint, Sandbox, kernel_spec
from netd.tasks import both
from netd.teardown import Teardown

log = logging.getLogger(__name__)

_RESOLV_CONF_SECONDS = 1.0


class SandboxManager:
    """All sandboxes of this host. The managed record says what should be; the kernel and the resolver follow."""

    def __init__(
        self,
        records: Records[Sandbox],
        networks: NetworkManager,
        kernel: Kernel,
        names: Names,
        namespaces: Namespaces,
    ) -> None:
        self._records = records
        self._networks = networks
        self._kernel = kernel
        self._names = names
        self._namespaces = namespaces
        self._dns: dict[str, spec.DnsPorts] = {}

    def get(self, sandbox_id: str) -> Sandbox | None:
        return self._records.items.get(sandbox_id)

    def all(self) -> Iterable[Sandbox]:
        return self._records.items.values()

    def netns_path(self, sandbox_id: str) -> str:
        """Where a sandbox's namespace is pinned (fact 3.60)."""
        return self._namespaces.path(sandbox_id)

    # ---- up and down ------------------------------------------------------------------------------------

    async def pin(self, sandbox: Sandbox) -> None:
        """Make the sandbox's namespace, with nothing but loopback in it."""
        if sandbox.netns:
            await self._namespaces.pin(sandbox.netns)

    async def bring_up(self, sandbox: Sandbox) -> None:
        """Record a sandbox whose namespace is there, and give it links, ports and names."""
        await both(self._records.add(sandbox.id, sandbox), self._project(sandbox))
        for endpoint in sandbox.endpoints:
            await self._names.join(endpoint)

    async def tear_down(self, sandbox: Sandbox) -> None:
        """Undo `pin` and `bring_up`, however far they came; goes on after an error and tells it in the log."""
        teardown = Teardown(f"sandbox {sandbox.id[:12]}")
        for endpoint in sandbox.endpoints:
            with teardown.step(f"names of {endpoint.network}"):
                await self._names.leave(endpoint)
        with teardown.step("resolver"):
            await self._names.forget(sandbox.id)
        with teardown.step("links and rules"):
            await self._kernel.remove_sandbox(sandbox.id)
        with teardown.step("namespace"):
            await self._namespaces.unpin(sandbox.netns)
        with teardown.step("record"):
            await self._records.delete(sandbox.id)
        teardown.tell()
        self._dns.pop(sandbox.id, None)
        for endpoint in sandbox.endpoints:
            self._networks.leave(endpoint)

    async def clear(self, sandbox: Sandbox) -> None:
        """Take what netd put there out of a namespace that lives on."""
        await self._kernel.ensure_sandbox(kernel_spec(replace(sandbox, endpoints=(), published=()), None))

    async def _project(self, sandbox: Sandbox) -> None:
        """Kernel and resolver as the record says."""
        if not sandbox.netns:
            return
        if sandbox.resolves:
            await self._serve(sandbox)
        await self._kernel.ensure_sandbox(self._spec(sandbox))

    def _spec(self, sandbox: Sandbox) -> spec.Sandbox:
        # a container whose names the resolver still has to be told may get answers from the kernel meanwhile
        unknown = spec.UNKNOWN if sandbox.resolves else None
        return kernel_spec(sandbox, self._dns.get(sandbox.id, unknown))

    async def _serve(self, sandbox: Sandbox) -> bool:
        """Tell the resolver of a sandbox, with new sockets if it has none; whether its ports are others now."""
        before = self._dns.get(sandbox.id)
        if before is None:
            await self._open_resolver(sandbox)
        elif (ports := await self._names.serve(sandbox)) is not None:
            self._dns[sandbox.id] = dns_ports(ports)
        return self._dns.get(sandbox.id) != before

    async def _open_resolver(self, sandbox: Sandbox) -> None:
        """New resolver sockets inside the sandbox, handed over to the resolver process."""
        async with self._namespaces.sockets(sandbox.netns) as sockets:
            if (ports := await self._names.serve(sandbox, sockets)) is not None:
                self._dns[sandbox.id] = dns_ports(ports)

    # ---- changes of a running sandbox -------------------------------------------------------------------

    async def attach(self, sandbox: Sandbox, wider: Sandbox) -> None:
        """Make a running sandbox the `wider` one, which has more endpoints."""
        added = [endpoint for endpoint in wider.endpoints if endpoint not in sandbox.endpoints]
        try:
            await self._project(wider)
            for endpoint in added:
                await self._names.join(endpoint)
            await self._records.put(sandbox.id, wider)
        except BaseException:
            for endpoint in added:
                await self._names.leave(endpoint)
                self._networks.leave(endpoint)
            await self._project(sandbox)
            raise

    async def detach(self, sandbox: Sandbox, endpoint: Endpoint) -> Sandbox:
        """Take an endpoint from a running sandbox; returns the sandbox as it is then."""
        narrower = sandbox.without_endpoint(endpoint.id)
        await self._records.put(sandbox.id, narrower)
        await self._names.leave(endpoint)
        await self._project(narrower)
        self._networks.leave(endpoint)
        return narrower

    async def rename(self, sandbox: Sandbox, renamed: Sandbox) -> None:
        """The same sandbox under a new name: its records in the tables change at once."""
        await self._records.put(sandbox.id, renamed)
        for endpoint in renamed.endpoints:
            self._networks.count(Member(renamed.container_id, renamed.name, endpoint))
            await self._names.join(endpoint)

    # ---- after a restart --------------------------------------------------------------------------------

    async def load(self) -> None:
        """Read the records; members count again, their addresses are taken again."""
        await self._records.load()
        for sandbox in self.all():
            for endpoint in sandbox.endpoints:
                self._networks.adopt(Member(sandbox.container_id, sandbox.name, endpoint))

    async def sweep_namespaces(self) -> None:
        """Remove the pinned namespaces that no record vouches for: a crash between pinning and recording."""
        await self._namespaces.sweep({sandbox.netns for sandbox in self.all()})

    def specs(self) -> list[spec.Sandbox]:
        """Every sandbox that has something in the kernel."""
        return [self._spec(s) for s in self.all() if s.netns]

    def adopt_resolver(self, served: Mapping[str, Ports]) -> None:
        """Go on with the sockets that the resolver already holds; the others will be opened anew."""
        self._dns = {key: dns_ports(ports) for key, ports in served.items() if self.get(key) is not None}

    async def restore_names(self, served: Iterable[str], networks: Iterable[str]) -> None:
        """Tell the resolver everything again; `served` sandboxes and `networks` are what it knows."""
        for live in list(self._networks.live.values()):
            if not live.predefined and not live.record.config_only:
                endpoints = self._networks.endpoints(live)
                await self._names.put_network(live.record, endpoints)
        for sandbox in [s for s in self.all() if s.resolves]:
            if sandbox.netns and await self._serve(sandbox):
                await self._kernel.ensure_sandbox(self._spec(sandbox))
        for sandbox_id in set(served) - self._records.items.keys():
            await self._names.forget(sandbox_id)
        for network_id in set(networks) - self._networks.live.keys():
            await self._names.delete_network(network_id)

    async def follow_host_resolvers(self) -> None:
        """Tell the resolver new upstreams whenever the host's resolv.conf changes; runs until cancelled."""
        seen = _signature(resolvconf.host_file())
        while True:
            await asyncio.sleep(_RESOLV_CONF_SECONDS)
            now = _signature(resolvconf.host_file())
            if now != seen:
                seen = now
                log.info("the host's resolv.conf has changed, its servers are used from now on")
                for sandbox in [s for s in self.all() if s.resolves]:
                    await self._names.serve(sandbox)

    async def restore_kernel(self) -> None:
        """One pass over everything: what is missing comes back, what is not ours to keep goes."""
        await self._kernel.reconcile(self._networks.specs(), self.specs())


def dns_ports(ports: Ports) -> spec.DnsPorts:
    """Where the resolver listens, as the drivers need it."""
    return spec.DnsPorts(ports.udp, ports.tcp, ports.program, ports.number)


def _signature(path: Path) -> tuple[int, int, int] | None:
    """What changes when a file is edited or replaced; None while it is absent."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size
