"""Sandboxes made real: namespace, links, published ports, names and the files in /etc, up and down."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from msgspec.structs import replace

from dns.client import Ports
from drivers import spec
from drivers.kernel import Kernel
from drivers.spec import DriverError
from netd.core.errors import NotFound
from netd.core.locks import Locks
from netd.core.records import Records
from netd.core.tasks import both
from netd.core.teardown import Teardown
from netd.model.sandboxes import Endpoint, Sandbox
from netd.names.resolver import Names
from netd.networks.live import Member
from netd.networks.manager import NetworkManager
from netd.sandboxes.namespaces import Namespaces
from netd.sandboxes.spec import kernel_spec

log = logging.getLogger(__name__)

_RESOLV_CONF_SECONDS = 1.0


class SandboxManager:
    """All sandboxes of this host. The record says what should be; kernel and resolver follow.

    What they do not follow at once is marked in `names.dirty`, and made so later by `settle`. What is done about one
    sandbox is done one after the other.
    """

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
        self._locks = Locks()
        self._going: dict[str, Sandbox] = {}  # being taken down: they are gone for everybody else
        self._dns: dict[str, spec.DnsPorts] = {}  # where the resolver listens
        self._projected: dict[str, spec.Sandbox] = {}  # what the kernel was made to look like

    def get(self, sandbox_id: str) -> Sandbox | None:
        return None if sandbox_id in self._going else self._records.items.get(sandbox_id)

    def all(self) -> Iterable[Sandbox]:
        return [sandbox for key, sandbox in self._records.items.items() if key not in self._going]

    def endpoints_on(self, network_id: str) -> list[Endpoint]:
        """The endpoints that sandboxes of this host have on a network: theirs are the names that resolve there."""
        return [e for sandbox in self.all() for e in sandbox.endpoints if e.network_id == network_id]

    def netns_path(self, sandbox_id: str) -> str:
        """Where a sandbox's namespace is pinned (fact 3.60)."""
        return self._namespaces.path(sandbox_id)

    # ---- up and down ------------------------------------------------------------------------------------

    async def pin(self, sandbox: Sandbox) -> None:
        """Make the sandbox's namespace, with nothing but loopback in it."""
        if sandbox.netns:
            await self._namespaces.pin(sandbox.netns)

    async def bring_up(self, sandbox: Sandbox) -> None:
        """Record a sandbox whose namespace is there, and give it links, ports and names.

        If it fails `tear_down` is due: some of it may be there.
        """
        async with self._locks.of(sandbox.id):
            await both(self._records.add(sandbox.id, sandbox), self._project(sandbox))
            for endpoint in sandbox.endpoints:
                await self._names.join(endpoint)

    async def condemn(self, sandbox: Sandbox) -> Sandbox:
        """Store that a sandbox is to be taken down: from here on it is, if not by this daemon then by the next."""
        async with self._locks.of(sandbox.id):
            self._must_be_there(sandbox)
            condemned = replace(sandbox, going=True)
            await self._records.put(sandbox.id, condemned)
        return condemned

    async def tear_down(self, sandbox: Sandbox) -> None:
        """Undo `pin` and `bring_up`, however far they came. What cannot be undone now is told in the log, and undone
        later: until then the record stays, which a daemon that starts again takes up."""
        async with self._locks.of(sandbox.id):
            self._going[sandbox.id] = sandbox
            try:
                teardown = await self._take_down(sandbox, sandbox.endpoints)
                teardown.tell()
            finally:
                for endpoint in sandbox.endpoints:
                    self._networks.leave(endpoint)

    async def _take_down(self, sandbox: Sandbox, endpoints: Iterable[Endpoint]) -> Teardown:
        with self._following(sandbox) as teardown:
            for endpoint in endpoints:
                with teardown.step(f"names of {endpoint.network}"):
                    await self._names.leave(endpoint)
            with teardown.step("resolver"):
                await self._names.forget(sandbox.id)
            with teardown.step("links and rules"):
                await self._kernel.remove_sandbox(sandbox.id)
            with teardown.step("namespace"):
                await self._namespaces.unpin(sandbox.netns)
            if not teardown.errors:
                with teardown.step("record"):
                    await self._records.delete(sandbox.id)
        self._dns.pop(sandbox.id, None)
        self._projected.pop(sandbox.id, None)
        if not teardown.errors:
            del self._going[sandbox.id]
        return teardown

    async def clear(self, sandbox: Sandbox) -> None:
        """Take what netd put there out of a namespace that lives on."""
        async with self._locks.of(sandbox.id):
            self._projected.pop(sandbox.id, None)
            await self._kernel.ensure_sandbox(kernel_spec(replace(sandbox, endpoints=(), published=()), None))

    @contextmanager
    def _following(self, sandbox: Sandbox) -> Iterator[Teardown]:
        """Steps by which the rest follows the record: if one fails, or they are cut off, it does so later."""
        teardown = Teardown(f"sandbox {sandbox.id[:12]}")
        done = False
        try:
            yield teardown
            done = not teardown.errors
        finally:
            if not done:
                self._names.dirty.mark_sandbox(sandbox.id)

    # ---- kernel and resolver ----------------------------------------------------------------------------

    async def _project(self, sandbox: Sandbox) -> None:
        """Kernel and resolver as this sandbox says."""
        if sandbox.netns:
            await self._serve(sandbox)
            await self._ensure(sandbox)

    async def _ensure(self, sandbox: Sandbox) -> None:
        wanted = self._spec(sandbox)
        self._projected.pop(sandbox.id, None)
        await self._kernel.ensure_sandbox(wanted)
        self._projected[sandbox.id] = wanted

    def _spec(self, sandbox: Sandbox) -> spec.Sandbox:
        # a container whose names the resolver still has to be told may get answers from the kernel meanwhile
        unknown = spec.UNKNOWN if sandbox.resolves else None
        return kernel_spec(sandbox, self._dns.get(sandbox.id, unknown))

    async def _serve(self, sandbox: Sandbox) -> None:
        """Tell the resolver of a sandbox, with new sockets if it has none."""
        if sandbox.id in self._dns:
            ports = await self._names.serve(sandbox)
        elif not sandbox.resolves:
            return
        elif self._names.away:  # no sockets are opened for nobody
            self._names.dirty.mark_sandbox(sandbox.id)
            return
        else:
            async with self._namespaces.sockets(sandbox.netns) as sockets:
                ports = await self._names.serve(sandbox, sockets)
        if ports is not None:
            self._dns[sandbox.id] = dns_ports(ports)
        elif not self._names.away:  # it refuses: perhaps it has no sockets for it any more
            self._dns.pop(sandbox.id, None)

    async def settle(self, sandbox_id: str) -> None:
        """Make kernel and resolver follow the record, whatever they have now; what fails is marked again."""
        async with self._locks.of(sandbox_id):
            if (going := self._going.get(sandbox_id)) is not None:
                # its container may run again by now, with the endpoints that it had
                await self._take_down(going, [e for e in going.endpoints if not self._networks.has(e)])
            elif (sandbox := self.get(sandbox_id)) is None:
                await self._names.forget(sandbox_id)
            elif sandbox.netns:
                with self._following(sandbox):
                    if sandbox.resolves or sandbox_id in self._dns:
                        await self._serve(sandbox)
                    else:  # the resolver may have it all the same
                        await self._names.forget(sandbox_id)
                    if self._projected.get(sandbox_id) != self._spec(sandbox):
                        await self._ensure(sandbox)

    # ---- changes of a running sandbox -------------------------------------------------------------------

    async def attach(self, sandbox: Sandbox, wider: Sandbox) -> None:
        """Make a running sandbox the `wider` one, which has more endpoints; if it fails it is as it was."""
        added = [endpoint for endpoint in wider.endpoints if endpoint not in sandbox.endpoints]
        async with self._locks.of(sandbox.id):
            try:
                self._must_be_there(sandbox)
                await self._project(wider)
                await self._records.put(sandbox.id, wider)
            except BaseException:
                await self._take_back(sandbox, added)
                raise
            for endpoint in added:
                await self._names.join(endpoint)

    async def _take_back(self, sandbox: Sandbox, added: Iterable[Endpoint]) -> None:
        try:
            with self._following(sandbox) as teardown, teardown.step("new links"):
                if self.get(sandbox.id) is not None:
                    await self._project(sandbox)
            teardown.tell()
        finally:
            for endpoint in added:
                self._networks.leave(endpoint)

    async def detach(self, sandbox: Sandbox, endpoint: Endpoint) -> Sandbox:
        """Take an endpoint from a running sandbox; returns the sandbox as it is then."""
        narrower = sandbox.without_endpoint(endpoint.id)
        async with self._locks.of(sandbox.id):
            self._must_be_there(sandbox)
            await self._records.put(sandbox.id, narrower)  # from here on it is so, and all else follows, now or later
            try:
                with self._following(narrower) as teardown:
                    with teardown.step(f"names of {endpoint.network}"):
                        await self._names.leave(endpoint)
                    with teardown.step(f"link to {endpoint.network}"):
                        await self._project(narrower)
                teardown.tell()
            finally:
                self._networks.leave(endpoint)
        return narrower

    async def rename(self, sandbox: Sandbox, renamed: Sandbox) -> None:
        """The same sandbox under a new name: its records in the tables change at once."""
        async with self._locks.of(sandbox.id):
            self._must_be_there(sandbox)
            await self._records.put(sandbox.id, renamed)
            self._names.dirty.mark_sandbox(sandbox.id)  # the name in the query log can wait
            for endpoint in renamed.endpoints:
                self._networks.count(Member(renamed.container_id, renamed.name, endpoint))
                await self._names.join(endpoint)

    def _must_be_there(self, sandbox: Sandbox) -> None:
        if self.get(sandbox.id) is None:
            raise NotFound(f"sandbox {sandbox.id} has been removed")

    # ---- after a restart --------------------------------------------------------------------------------

    async def load(self) -> None:
        """Read the records; members count again, their addresses are taken again."""
        await self._records.load()
        for sandbox in self.all():
            try:
                kernel_spec(sandbox, None)
                for endpoint in sandbox.endpoints:
                    self._networks.adopt(Member(sandbox.container_id, sandbox.name, endpoint))
            except Exception as error:
                log.error("the record of sandbox %s makes no sense, it is left alone: %s", sandbox.id[:12], error)
                self._records.disbelieve(sandbox.id)

    async def sweep_namespaces(self) -> None:
        """Remove the pinned namespaces that no record vouches for: a crash between pinning and recording."""
        try:
            unread = map(self._namespaces.path, self._records.unreadable)
            await self._namespaces.sweep({*(sandbox.netns for sandbox in self.all()), *unread})
        except (DriverError, OSError) as error:
            log.error("namespaces that belong to no container are left until the next start: %s", error)

    def specs(self) -> list[spec.Sandbox]:
        """Every sandbox that has something in the kernel."""
        return [self._spec(s) for s in self.all() if s.netns]

    def adopt_resolver(self, served: Mapping[str, Ports]) -> None:
        """Go on with the sockets that the resolver already holds; the others will be opened anew."""
        self._dns = {key: dns_ports(ports) for key, ports in served.items() if self.get(key) is not None}

    async def follow_host_resolvers(self) -> None:
        """Have the resolver told new upstreams whenever the host's resolv.conf changes; runs until cancelled."""
        host = self._names.host
        seen = host.text
        while True:
            await asyncio.sleep(_RESOLV_CONF_SECONDS)
            await host.look()
            if host.text != seen:
                seen = host.text
                log.info("the host's resolv.conf has changed, its servers are used from now on")
                for sandbox in self.all():
                    if sandbox.resolves:
                        self._names.dirty.mark_sandbox(sandbox.id)

    async def restore_kernel(self) -> None:
        """One pass over everything: what is missing comes back, what is not ours to keep goes."""
        wanted = self.specs()
        self._projected.clear()
        try:
            repairs = await self._kernel.reconcile(self._networks.specs(), wanted)
        except DriverError as error:
            log.error("the kernel does not look as it should, this is tried again: %s", error)
            self._names.dirty.mark_kernel()
            return
        if not repairs.failed:
            self._projected = {each.id: each for each in wanted}


def dns_ports(ports: Ports) -> spec.DnsPorts:
    """Where the resolver listens, as the drivers need it."""
    return spec.DnsPorts(ports.udp, ports.tcp, ports.program, ports.number)
