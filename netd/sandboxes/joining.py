"""The one way by which a sandbox comes to its endpoints, and loses them: a container's or an attached namespace's.

An endpoint brings what follows from it: a sandbox that gets nowhere from its networks has one more endpoint on the
gateway network, until another network leads out.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Iterable

from netd.model.sandboxes import Endpoint, Sandbox
from netd.networks.endpoints import EndpointRequest
from netd.networks.live import LiveNetwork
from netd.networks.manager import NetworkManager
from netd.networks.settings import IFACE_PREFIX, check_network_accepts
from netd.overlays.gateway import Gateway
from netd.sandboxes.manager import SandboxManager

log = logging.getLogger(__name__)

ATTACHED_PREFIX = "netd"  # of interfaces in namespaces that are somebody else's


class Joining:
    """Endpoints for the sandboxes of this host."""

    def __init__(self, networks: NetworkManager, sandboxes: SandboxManager, gateway: Gateway) -> None:
        self._networks = networks
        self._sandboxes = sandboxes
        self._gateway = gateway
        # whose gateway endpoint is not as it follows from the others: to be followed up by who holds the sandbox
        self.behind: asyncio.Queue[str] = asyncio.Queue()

    def asked_for(self, sandbox: Sandbox) -> list[Endpoint]:
        """A sandbox's endpoints but for the one that follows from them."""
        return [endpoint for endpoint in sandbox.endpoints if not self._gateway.made(endpoint)]

    # ---- as a plan --------------------------------------------------------------------------------------

    async def added(self, sandbox: Sandbox, wanted: Iterable[tuple[LiveNetwork, EndpointRequest]]) -> Sandbox:
        """The sandbox with these endpoints and what follows from them; they count, yet the kernel has none of them.

        If this fails, nothing is left of them. Make it so with `SandboxManager.bring_up` or `widen`, or `give_back`.
        """
        wider = sandbox
        try:
            for live, request in wanted:
                check_network_accepts(live, request.settings)
                wider = wider.with_endpoint(await self._networks.join(live, wider, _named(live, wider, request)))
            return await self._gateway.added(wider)
        except BaseException:
            self.give_back(sandbox, wider)
            raise

    def give_back(self, sandbox: Sandbox, wider: Sandbox) -> None:
        """The endpoints that `wider` has more than `sandbox` are not made after all."""
        for endpoint in wider.endpoints[len(sandbox.endpoints) :]:
            self._networks.leave(endpoint)

    # ---- in a running sandbox ---------------------------------------------------------------------------

    async def widen(self, sandbox: Sandbox, wider: Sandbox) -> Sandbox:
        """Make a running sandbox what `added` planned; as it is then. If this fails, the endpoints are given back."""
        await self._sandboxes.attach(sandbox, wider)
        return await self._followed_up(wider)

    async def narrow(self, sandbox: Sandbox, endpoint: Endpoint) -> Sandbox:
        """Take an endpoint from a running sandbox; as it is then."""
        return await self._followed_up(await self._sandboxes.detach(sandbox, endpoint))

    async def recover(self) -> None:
        """After a restart: the last daemon may have been killed between an endpoint and what follows from it."""
        for sandbox in list(self._sandboxes.all()):
            await self._followed_up(sandbox)

    async def _followed_up(self, sandbox: Sandbox) -> Sandbox:
        """The sandbox with what follows. What was asked for is done: what fails now is its holder's to try again."""
        try:
            return await self.follow_up(sandbox)
        except Exception as error:
            log.error("sandbox %s: its gateway endpoint is tried again: %s", sandbox.id[:12], error, exc_info=error)
            self.behind.put_nowait(sandbox.container_id)
            return self._sandboxes.get(sandbox.id) or sandbox

    async def follow_up(self, sandbox: Sandbox) -> Sandbox:
        """Take away or add the gateway endpoint, as follows from the others."""
        needless = self._gateway.needless(sandbox)
        if needless is not None:
            sandbox = await self._sandboxes.detach(sandbox, needless)
        wider = await self._gateway.added(sandbox)
        if wider != sandbox:
            await self._sandboxes.attach(sandbox, wider)
        return wider


def _named(live: LiveNetwork, sandbox: Sandbox, request: EndpointRequest) -> EndpointRequest:
    """The request with the name of its interface (fact 2.106)."""
    prefix = ATTACHED_PREFIX if sandbox.attached else live.record.options.get(IFACE_PREFIX, "eth")
    return dataclasses.replace(request, ifname=sandbox.free_ifname(prefix))
