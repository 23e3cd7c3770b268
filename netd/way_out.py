"""The way out of sandboxes on global networks, which lead nowhere else: an endpoint on a local bridge (fact 4.29)."""

from __future__ import annotations

import logging

from netd.endpoints import make_endpoint
from netd.errors import Conflict, NotFound
from netd.model import EndpointSettings, NetworkCreate
from netd.networks import LiveNetwork, Member, NetworkManager
from netd.sandbox import Endpoint, Sandbox

log = logging.getLogger(__name__)

NETWORK = "docker_gwbridge"
_DEVICE = "netd_gwbridge"
_BRIDGE = "com.docker.network.bridge"


class WayOut:
    """Says which sandboxes need that endpoint, and makes it."""

    def __init__(self, networks: NetworkManager) -> None:
        self._networks = networks

    async def added(self, sandbox: Sandbox) -> Sandbox:
        """The sandbox with a way out, if it is on a global network and has none."""
        if sandbox.gateway4 or not _is_global(sandbox):
            return sandbox
        live = await self._network()
        ifname = sandbox.free_ifname("netd" if sandbox.foreign else "eth")
        endpoint = make_endpoint(live, EndpointSettings(), ifname=ifname, names=(), owner=sandbox.id)
        self._networks.join(Member(sandbox.container_id, sandbox.name, endpoint))
        return sandbox.with_endpoint(endpoint)

    @staticmethod
    def needless(sandbox: Sandbox) -> Endpoint | None:
        """The endpoint made by `added`, once the sandbox has another way out or is on no global network."""
        # an endpoint that a user asked for has names
        endpoint = next((e for e in sandbox.endpoints if e.network == NETWORK and not e.names), None)
        if endpoint is None:
            return None
        rest = sandbox.without_endpoint(endpoint.id)
        return endpoint if rest.gateway4 or not _is_global(rest) else None

    async def _network(self) -> LiveNetwork:
        try:
            return self._networks.by_name(NETWORK)
        except NotFound:
            log.info("making %s, the way out of containers on global networks", NETWORK)
        options = {f"{_BRIDGE}.name": _DEVICE, f"{_BRIDGE}.enable_icc": "false"}
        try:
            await self._networks.create(NetworkCreate(name=NETWORK, driver="bridge", options=options))
        except Conflict:
            log.debug("another container made %s first", NETWORK)
        return self._networks.by_name(NETWORK)


def _is_global(sandbox: Sandbox) -> bool:
    return any(e.scope == "global" and not e.internal for e in sandbox.endpoints)
