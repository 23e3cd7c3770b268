"""The kernel as what it was last told: networks with their devices, sandboxes with their links and ports."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network

from drivers.projection import Repairs
from drivers.spec import DriverError, Network, OptionConflict, Peer, Sandbox
from tests.fakes.calls import Calls, stepped
from tests.fakes.namespaces import FakeNamespaces

_BRIDGE = "com.docker.network.bridge.name"


class FakeKernel:
    """`networks` and `sandboxes` are what is there. A sandbox needs its namespace and its networks."""

    def __init__(self, calls: Calls, namespaces: FakeNamespaces) -> None:
        self.calls = calls
        self.networks: dict[str, Network] = {}
        self.sandboxes: dict[str, Sandbox] = {}
        self.peers: dict[str, set[str]] = {}  # of overlays: the other hosts' endpoints
        self.repairs = 0
        self._namespaces = namespaces

    def validate_network(self, network: Network, existing: Iterable[Network]) -> None:
        device = network.options.get(_BRIDGE)
        if device and any(other.options.get(_BRIDGE) == device for other in existing):
            raise OptionConflict(f"bridge name {device} is taken")

    @stepped(DriverError)
    def ensure_network(self, network: Network) -> None:
        self.networks[network.id] = network

    @stepped(DriverError)
    def remove_network(self, network_id: str) -> None:
        self.networks.pop(network_id, None)
        self.peers.pop(network_id, None)

    @stepped(DriverError)
    def ensure_peers(self, network_id: str, peers: Iterable[Peer]) -> None:
        self.peers[network_id] = {peer.id for peer in peers}

    @stepped(DriverError)
    def put_peer(self, network_id: str, peer: Peer) -> None:
        self.peers.setdefault(network_id, set()).add(peer.id)

    @stepped(DriverError)
    def remove_peer(self, network_id: str, peer_id: str) -> None:
        self.peers.get(network_id, set()).discard(peer_id)

    @stepped(DriverError)
    def ensure_sandbox(self, sandbox: Sandbox) -> None:
        self._check(sandbox)
        self.sandboxes[sandbox.id] = sandbox

    @stepped(DriverError)
    def remove_sandbox(self, sandbox_id: str) -> None:
        self.sandboxes.pop(sandbox_id, None)

    @stepped(DriverError)
    def reconcile(self, networks: Iterable[Network], sandboxes: Iterable[Sandbox]) -> Repairs:
        """One that cannot be put right does not keep the others from it."""
        self.networks = {network.id: network for network in networks}
        failed: dict[str, str] = {}
        self.sandboxes = {}
        for sandbox in sandboxes:
            try:
                self._check(sandbox)
            except DriverError as error:
                failed[sandbox.id] = str(error)
            else:
                self.sandboxes[sandbox.id] = sandbox
        return Repairs(again=failed)

    @stepped(DriverError)
    def host_routes(self) -> list[IPv4Network | IPv6Network]:
        return []

    async def watch(self) -> None:
        """Nobody disturbs what is not there."""

    def _check(self, sandbox: Sandbox) -> None:
        if sandbox.netns not in self._namespaces.present:
            raise DriverError(f"network namespace {sandbox.netns} does not exist")
        for endpoint in sandbox.endpoints:
            if endpoint.network_id not in self.networks:
                raise DriverError(f"network {endpoint.network_id[:12]} does not exist on this host")
