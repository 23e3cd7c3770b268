"""The gateway network: a local bridge by which sandboxes get out of global networks, which lead nowhere (fact 4.29)."""

from __future__ import annotations

import asyncio
import contextlib
import logging

from netd.core.errors import Conflict, NotFound
from netd.model.networks import EndpointSettings, NetworkCreate
from netd.model.sandboxes import Endpoint, Sandbox
from netd.networks.endpoints import EndpointRequest
from netd.networks.live import LiveNetwork
from netd.networks.manager import NetworkManager

log = logging.getLogger(__name__)

NETWORK = "docker_gwbridge"
_DEVICE = "netd_gwbridge"
_BRIDGE = "com.docker.network.bridge"


class Gateway:
    """Says which sandboxes need an endpoint on that network, and makes it."""

    def __init__(self, networks: NetworkManager) -> None:
        self._networks = networks
        self._making = asyncio.Lock()

    async def added(self, sandbox: Sandbox) -> Sandbox:
        """The sandbox with a gateway endpoint, if it needs one and has none."""
        if sandbox.gateway4 or not _needed(sandbox):
            return sandbox
        request = EndpointRequest(EndpointSettings(), sandbox.free_ifname("netd" if sandbox.attached else "eth"))
        # between the two nothing is awaited: the network is there
        return sandbox.with_endpoint(await self._networks.join(await self._network(), sandbox, request))

    @staticmethod
    def made(endpoint: Endpoint) -> bool:
        """Whether it is one of ours: an endpoint that a user asked for has names."""
        return endpoint.network == NETWORK and not endpoint.names

    @staticmethod
    def needless(sandbox: Sandbox) -> Endpoint | None:
        """The endpoint made by `added`, once the sandbox has another gateway or is on no network that needs one."""
        endpoint = next(filter(Gateway.made, sandbox.endpoints), None)
        if endpoint is None:
            return None
        rest = sandbox.without_endpoint(endpoint.id)
        return endpoint if rest.gateway4 or not _needed(rest) else None

    async def _network(self) -> LiveNetwork:
        """Made when it is needed first; a user may be making it just now."""
        async with self._making:
            while True:
                await self._networks.decided(NETWORK)
                with contextlib.suppress(NotFound):
                    return self._networks.by_name(NETWORK)
                log.info("making %s, the gateway network of containers on global networks", NETWORK)
                options = {f"{_BRIDGE}.name": _DEVICE, f"{_BRIDGE}.enable_icc": "false"}
                with contextlib.suppress(Conflict):
                    await self._networks.create(NetworkCreate(name=NETWORK, driver="bridge", options=options))


def _needed(sandbox: Sandbox) -> bool:
    """Whether it is on a network that leads nowhere although it might."""
    return any(e.ifname and not (e.internal or e.gateway4 or e.gateway6) for e in sandbox.endpoints)
