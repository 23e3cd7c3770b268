"""Desired networks and sandboxes, projected into the kernel by blocking calls of one worker thread.

It remembers what is desired, to repair it; what is in the kernel it asks the kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Set
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from drivers import netlink, netns, nsid, ruleset, sandbox_net
from drivers.bridge_driver import BridgeDriver
from drivers.conntrack import Conntrack, Stale
from drivers.driver import Driver, NoDriver
from drivers.events import Change
from drivers.firewall import Firewall
from drivers.names import Tag, parse_tag, veth_name
from drivers.netlink import Netlink
from drivers.overlay_driver import OverlayDriver
from drivers.reaper import Reaper
from drivers.sandbox_net import Attachment
from drivers.spec import DriverError, Endpoint, Network, Peer, PortForward, Sandbox

T = TypeVar("T")

# among the ids of networks and sandboxes
FIREWALL = "firewall"  # stands for our nftables table
LEFTOVERS = "leftovers"  # stands for what is ours and not wanted, but could not be removed


@dataclass(frozen=True, slots=True)
class Repairs:
    """What a pass found wrong and put right, and what it could not, a sentence each."""

    repaired: tuple[str, ...] = ()
    made: tuple[str, ...] = ()  # put right too, but it had been wrong ever since `reconcile` could not do it
    again: Mapping[str, str] = field(default_factory=dict)  # the id of each object that has to be tried again: why

    @property
    def failed(self) -> tuple[str, ...]:
        return tuple(self.again.values())


class Projection:
    """See the module. Belongs to the network namespace of the thread that makes it."""

    def __init__(self, owner: str, overlays: str) -> None:
        self._owner = owner
        self.host = Netlink()
        self._firewall = Firewall()
        self._conntrack = Conntrack()
        self._forgetting = ThreadPoolExecutor(1, thread_name_prefix="conntrack")
        self._stale: dict[netlink.IPAddress, Future[int]] = {}  # addresses whose connections are being forgotten
        self._reaper = Reaper(owner)
        self._overlay = OverlayDriver(self.host, owner, overlays)
        self._drivers: Mapping[str, Driver] = {
            "bridge": BridgeDriver(self.host, self._reaper, owner),
            "overlay": self._overlay,
        }
        self._other = NoDriver()
        self._networks: dict[str, Network] = {}
        self._sandboxes: dict[str, Sandbox] = {}
        self._holders: dict[str, str] = {}  # device name -> network or sandbox id
        self._unmade: set[str] = set()  # what `reconcile` could not put right and nothing has since
        self._namespaces: dict[int, str] = {}  # the kernel's number of a namespace (it reuses them) -> whose it is

    def close(self) -> None:
        self._overlay.close()
        self._reaper.close()
        self._forgetting.shutdown()
        self.host.close()
        self._firewall.close()
        self._conntrack.close()

    def driver(self, network: Network) -> Driver:
        return self._drivers.get(network.driver, self._other)

    # ---- networks ---------------------------------------------------------------------------------------

    def ensure_network(self, network: Network) -> list[str]:
        """Make a network as it should be; returns what had to be put right."""
        driver = self.driver(network)
        wrong = driver.ensure_network(network)
        self._firewall.put(network.id, driver.elements(network))
        self._networks[network.id] = network
        self._holders[driver.device(network)] = network.id
        self._namespaces[driver.namespace(network)] = network.id
        return wrong

    def remove_network(self, network_id: str) -> None:
        network = self._networks.pop(network_id, None)
        errors = _Errors()
        errors.collect(partial(self._firewall.put, network_id, {}))
        if network is not None:
            driver = self.driver(network)
            self._holders.pop(driver.device(network), None)
            errors.collect(partial(driver.remove_network, network))
        else:
            errors.collect(partial(self._delete_links, lambda tag: (tag.kind, tag.id) == ("network", network_id)))
            errors.collect(partial(self._overlay.remove, network_id))
        errors.check()

    # ---- peers ------------------------------------------------------------------------------------------

    def ensure_peers(self, network_id: str, peers: list[Peer]) -> None:
        self._overlay.ensure_peers(self._network(network_id), peers)

    def put_peer(self, network_id: str, peer: Peer) -> None:
        self._overlay.put_peer(self._network(network_id), peer)

    def remove_peer(self, network_id: str, peer_id: str) -> None:
        if network_id in self._networks:
            self._overlay.remove_peer(self._networks[network_id], peer_id)

    def _network(self, network_id: str) -> Network:
        network = self._networks.get(network_id)
        if network is None:
            raise DriverError(f"network {network_id} does not exist on this host")
        return network

    # ---- sandboxes --------------------------------------------------------------------------------------

    def ensure_sandbox(self, sandbox: Sandbox) -> list[str]:
        """Make a sandbox as it should be; returns what had to be put right.

        One that is the host's own namespace needs nothing.
        """
        if netns.is_own(sandbox.netns):
            return []
        attachments = [found for endpoint in sandbox.endpoints if (found := self._attachment(sandbox, endpoint))]
        for attachment in attachments:
            self.driver(attachment.network).plugged(attachment.network, attachment.endpoint)
        previous = self._sandboxes.get(sandbox.id)
        if previous != sandbox:
            self._await_forgetting(sandbox)
        with netns.entered(sandbox.netns):
            wrong = sandbox_net.ensure(self._owner, sandbox, attachments)
        self._firewall.put(sandbox.id, ruleset.port_elements(sandbox))
        if previous != sandbox:
            self._forget_connections(previous, sandbox)
            self._forget_holder(previous)
            kept = {endpoint.id for endpoint in sandbox.endpoints}
            self._let_go(endpoint for endpoint in (previous.endpoints if previous else ()) if endpoint.id not in kept)
            self._sandboxes[sandbox.id] = sandbox
        self._holders |= {attachment.outer_name: sandbox.id for attachment in attachments}
        self._namespaces[nsid.number(self.host, sandbox.netns)] = sandbox.id
        return [f"sandbox {sandbox.id[:12]}: {sentence}" for sentence in wrong]

    def remove_sandbox(self, sandbox_id: str) -> None:
        sandbox = self._sandboxes.pop(sandbox_id, None)
        self._forget_holder(sandbox)
        errors = _Errors()
        errors.collect(partial(self._firewall.put, sandbox_id, {}))
        if sandbox is None:
            errors.collect(partial(self._delete_links, lambda tag: tag.sandbox == sandbox_id))
        else:
            for endpoint in sandbox.endpoints:
                errors.collect(partial(self._unplug, sandbox, endpoint))
            errors.collect(partial(self._let_go, sandbox.endpoints))
            self._forget_connections(sandbox, None)
        errors.check()

    def _attachment(self, sandbox: Sandbox, endpoint: Endpoint) -> Attachment | None:
        """How an endpoint is plugged in; None on a network that has no endpoints of its own (host, none)."""
        network = self._network(endpoint.network_id)
        segment = self.driver(network).segment(network, endpoint)
        if segment is None:
            return None
        return Attachment(endpoint, network, segment, str(Tag(self._owner, "endpoint", endpoint.id, sandbox.id)))

    def _unplug(self, sandbox: Sandbox, endpoint: Endpoint) -> None:
        """Delete an endpoint's devices, also when its network has gone before it."""
        known = endpoint.network_id in self._networks
        attachment = self._attachment(sandbox, endpoint) if known else None
        reaper = attachment.segment.reaper if attachment else self._reaper
        reaper.delete([veth_name(endpoint.id)])

    def _let_go(self, endpoints: Iterable[Endpoint]) -> None:
        for endpoint in endpoints:
            network = self._networks.get(endpoint.network_id)
            if network is not None:
                self.driver(network).unplugged(network, endpoint)

    def _forget_holder(self, sandbox: Sandbox | None) -> None:
        for endpoint in sandbox.endpoints if sandbox is not None else ():
            self._holders.pop(veth_name(endpoint.id), None)

    def _forget_connections(self, before: Sandbox | None, after: Sandbox | None) -> None:
        """Begin to drop tracked connections of addresses that are gone, and to UDP ports that now lead elsewhere."""
        moved = _udp_forwards(before) ^ _udp_forwards(after)
        ports = frozenset(forward.host_port + offset for forward in moved for offset in range(forward.count))
        stale = Stale(_addresses(before) - _addresses(after), ports)
        if stale:
            forgetting = self._forgetting.submit(self._conntrack.forget, stale)
            self._stale |= dict.fromkeys(stale.addresses, forgetting)
            if moved & _udp_forwards(after):
                wait([forgetting])  # or the first datagrams to a new port would still go elsewhere

    def _await_forgetting(self, sandbox: Sandbox) -> None:
        """An address that is used again must not lose its new connections to the end of the old ones."""
        for address in _addresses(sandbox) & self._stale.keys():
            wait([self._stale[address]])
        self._stale = {address: forgetting for address, forgetting in self._stale.items() if not forgetting.done()}

    def _delete_links(self, unwanted: Callable[[Tag], bool]) -> None:
        self._reaper.delete(name for name, _ in self._links(unwanted))

    def _links(self, unwanted: Callable[[Tag], bool]) -> list[tuple[str, Tag]]:
        """The host's devices of this daemon whose tag is wanted gone."""
        tags = ((link.name, parse_tag(link.alias)) for link in self.host.links())
        return [(name, tag) for name, tag in tags if tag and tag.owner == self._owner and unwanted(tag)]

    # ---- all --------------------------------------------------------------------------------------------

    def reconcile(self, networks: list[Network], sandboxes: list[Sandbox]) -> Repairs:
        """Make the kernel hold exactly these objects. What of it fails is for `repair` to try again."""
        self._networks = {network.id: network for network in networks}
        self._sandboxes = {sandbox.id: sandbox for sandbox in sandboxes}
        self._holders, self._namespaces, self._unmade = {}, {}, set()
        report = _Report(self._unmade)
        report.attempt(LEFTOVERS, partial(self._remove_leftovers, report))
        self._ensure_firewall(report)
        repairs = self._ensure_all(report, networks, sandboxes)
        self._unmade = set(repairs.again)
        return repairs

    def closed_by(self) -> list[str]:
        """The chains of other firewalls that let nothing through that they do not know."""
        return self._firewall.closed_by()

    def repair(self, suspects: set[str]) -> Repairs:
        """Put right what is wrong with these objects: ids of networks and sandboxes, FIREWALL, LEFTOVERS.

        "" means all but LEFTOVERS. What is no longer wanted is left out.
        """
        report = _Report(self._unmade)
        everything = "" in suspects
        if LEFTOVERS in suspects:
            report.attempt(LEFTOVERS, partial(self._remove_leftovers, report))
        if everything or FIREWALL in suspects:
            self._ensure_firewall(report)
        networks = [network for network in self._networks.values() if everything or network.id in suspects]
        sandboxes = [sandbox for sandbox in self._sandboxes.values() if everything or sandbox.id in suspects]
        repairs = self._ensure_all(report, networks, sandboxes)
        self._unmade -= suspects - repairs.again.keys()
        return repairs

    def touched_by(self, change: Change) -> Iterable[str]:
        """The ids of what a kernel event may have damaged; "" is everything."""
        if change.table:
            return (FIREWALL,)
        if change == Change():
            return ("",)
        if change.mtu:
            return self._outgrown(change.device, change.mtu)
        inside = self._namespaces.get(change.nsid, "") if change.nsid >= 0 else ""
        if inside in self._sandboxes:
            found = "" if change.row else inside
        elif change.device.startswith("veth") or change.nsid < 0:
            found = self._holders.get(change.device, "")
        else:
            found = "" if change.device.startswith("gone") else inside
        return (found,) if found else ()

    def _outgrown(self, device: str, mtu: int) -> list[str]:
        """The overlays that were made for another MTU of the device they go over, and the sandboxes on them."""
        networks = self._overlay.outgrown(device, mtu)
        on_them = (s.id for s in self._sandboxes.values() if any(e.network_id in networks for e in s.endpoints))
        return [*networks, *on_them] if networks else []

    def _remove_leftovers(self, report: _Report) -> list[str]:
        """Remove what is ours and of nothing that is wanted now, be it since yesterday or since a moment ago."""
        wanted = {Tag(self._owner, "network", network_id) for network_id in self._networks}
        wanted |= {Tag(self._owner, "endpoint", e.id, s.id) for s in self._sandboxes.values() for e in s.endpoints}
        for name, tag in self._links(lambda tag: tag not in wanted):
            report.attempt(LEFTOVERS, partial(self._delete_leftover, name, tag))
        overlays = (network for network in self._networks.values() if network.driver == "overlay")
        for path in self._overlay.strays(overlays):
            report.attempt(LEFTOVERS, partial(self._overlay.end_stray, path))
        return []

    def _delete_leftover(self, name: str, tag: Tag) -> list[str]:
        self._reaper.delete([name])
        return [f"device {name} belonged to {'something' if tag.kind == 'gone' else f'a {tag.kind}'} that is gone"]

    def _ensure_firewall(self, report: _Report) -> None:
        objects = {sandbox.id: ruleset.port_elements(sandbox) for sandbox in self._sandboxes.values()}
        for network in self._networks.values():
            report.attempt(network.id, partial(self._put_elements, objects, network))
        sentence = "the nftables table was not as it should be"
        report.attempt(FIREWALL, lambda: [sentence] if self._firewall.ensure(objects) else [])

    def _put_elements(self, objects: dict[str, ruleset.Elements], network: Network) -> list[str]:
        objects[network.id] = self.driver(network).elements(network)
        return []

    def _ensure_all(self, report: _Report, networks: list[Network], sandboxes: list[Sandbox]) -> Repairs:
        for network in networks:
            report.attempt(network.id, partial(self.ensure_network, network))
        for sandbox in sandboxes:
            report.attempt(sandbox.id, partial(self.ensure_sandbox, sandbox))
        return report.repairs()


def _udp_forwards(sandbox: Sandbox | None) -> frozenset[PortForward]:
    endpoints = sandbox.endpoints if sandbox is not None else ()
    return frozenset(forward for endpoint in endpoints for forward in endpoint.ports if forward.proto == "udp")


def _addresses(sandbox: Sandbox | None) -> frozenset[netlink.IPAddress]:
    endpoints = sandbox.endpoints if sandbox is not None else ()
    return frozenset(
        interface.ip for endpoint in endpoints for interface in (endpoint.ipv4, endpoint.ipv6) if interface is not None
    )


class _Errors:
    """Lets a teardown go on to its end, and then says all that went wrong."""

    def __init__(self) -> None:
        self._errors: list[DriverError] = []

    def collect(self, work: Callable[[], object]) -> None:
        try:
            work()
        except DriverError as error:
            self._errors.append(error)

    def check(self) -> None:
        if self._errors:
            raise DriverError("; ".join(str(error) for error in self._errors))


class _Report:
    """Collects what a pass over many objects did, of which nobody has broken the `unmade`."""

    def __init__(self, unmade: Set[str]) -> None:
        self._unmade = unmade
        self._repaired: list[str] = []
        self._made: list[str] = []
        self._again: dict[str, list[str]] = {}

    def attempt(self, subject: str, work: Callable[[], list[str]]) -> None:
        """Do something for an object; it is to be tried again if any of this fails."""
        try:
            done = work()
        except (DriverError, OSError) as error:
            self._again.setdefault(subject, []).append(str(error))
        else:
            (self._made if subject in self._unmade else self._repaired).extend(done)

    def repairs(self) -> Repairs:
        again = {subject: "; ".join(dict.fromkeys(reasons)) for subject, reasons in self._again.items()}
        return Repairs(tuple(self._repaired), tuple(self._made), again)
