"""The VXLANs of networks of driver `overlay`: each network's in a namespace of its own, with its bridges.

A VXLAN device is made from the host's namespace into the network's: there its socket on the underlay stays, here
it is a port of the bridge that endpoints are plugged into. It neither learns nor floods: where a MAC is and which
MAC an address has say static rows, made from the peers; ARP and neighbour discovery are answered locally.
"""

from __future__ import annotations

import errno
import logging
import os
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

from drivers import neighbours, netlink, netns, overlay, overlay_namespace, routes
from drivers.driver import Segment
from drivers.names import Tag, parse_tag
from drivers.neighbours import Neighbour, Row
from drivers.netlink import KernelRefused, Link, Netlink, Request
from drivers.overlay import Vxlan
from drivers.overlay_namespace import Place
from drivers.peers import Changes, Peers
from drivers.ruleset import Elements
from drivers.spec import DriverError, Endpoint, Network, Peer

log = logging.getLogger(__name__)

_DEFAULT_MTU = 1500  # of the underlay, where nothing can be known
_ATTEMPTS, _PAUSE = 20, 0.05  # how often, after how many seconds, to ask for a VNI whose device may be on its way out


class OverlayDriver:
    """A driver (see `driver.Driver`). `directory` is where the networks' namespaces are pinned."""

    def __init__(self, host: Netlink, owner: str, directory: str) -> None:
        self._host = host
        self._owner = owner
        self._directory = Path(directory) if directory else None
        self._places: dict[str, Place] = {}
        self._peers: dict[str, Peers] = {}  # also of networks that could not be made yet
        self._teardown = ThreadPoolExecutor(1, thread_name_prefix="overlay")
        self._refused: set[str] = set()  # networks whose VXLAN id another namespace had when it was last asked for
        self._leaving: dict[str, Future[None]] = {}  # network id -> the end of its namespace

    def close(self) -> None:
        self._teardown.shutdown()
        for place in self._places.values():
            place.close()

    # ---- the driver's part ------------------------------------------------------------------------------

    def validate(self, network: Network, existing: Iterable[Network]) -> None:
        overlay.validate(network)

    def elements(self, network: Network) -> Elements:
        return {}

    def device(self, network: Network) -> str:
        return ""

    def segment(self, network: Network, endpoint: Endpoint) -> Segment:
        addresses = [interface.ip for interface in (endpoint.ipv4, endpoint.ipv6) if interface is not None]
        vxlan = overlay.vxlan_of(network, addresses)
        if vxlan is None:
            raise DriverError(f"endpoint {endpoint.id[:12]} has no address of overlay network {network.name}")
        place = self._place(network)
        return Segment(
            place.netlink,
            place.reaper,
            vxlan.bridge,
            place.mtu,
            hairpin=False,
            leads_out=False,
            routes=overlay.routes(network, endpoint),
        )

    def plugged(self, network: Network, endpoint: Endpoint) -> None:
        place = self._place(network)
        addresses = [interface.ip for interface in (endpoint.ipv4, endpoint.ipv6) if interface is not None]
        vxlan = overlay.vxlan_of(network, addresses)
        if vxlan is not None:
            self._write(place, self._peers_of(network).claim(vxlan.vni, endpoint.id, (endpoint.mac, *addresses)))

    def unplugged(self, network: Network, endpoint: Endpoint) -> None:
        place = self._places.get(network.id)
        if place is not None:
            self._write(place, self._peers_of(network).release(endpoint.id))

    def namespace(self, network: Network) -> int:
        """The host's number for the network's namespace; -1 if it has none."""
        place = self._places.get(network.id)
        return place.number if place is not None else -1

    def ensure_network(self, network: Network) -> list[str]:
        overlay.validate(network)
        if network.vtep is None:
            raise DriverError(
                f"overlay network {network.name} needs an address of this host on the underlay: "
                "start the daemon with --cluster-advertise"
            )
        overlay.vxlans(network)
        underlay = self._underlay(network)
        overlay_namespace.raise_neighbour_limits()
        new = network.id not in self._places
        place, wrong = self._ensure_place(network)
        place.underlay = underlay.name, underlay.mtu
        place.mtu = overlay.mtu(network, underlay.mtu if underlay.name != "lo" else _DEFAULT_MTU)
        try:
            wrong += self._ensure_devices(place, network)
        except DriverError:
            if new:
                self._end(network.id)
            raise
        return [f"overlay {network.name}: {sentence}" for sentence in wrong]

    def remove_network(self, network: Network) -> None:
        self.remove(network.id)

    def remove(self, network_id: str) -> None:
        """Remove a network that may be unknown; the kernel's part is done in the background."""
        self._peers.pop(network_id, None)
        self._refused.discard(network_id)
        self._end(network_id)

    def _end(self, network_id: str) -> None:
        if self._directory is None:
            return
        place, path = self._places.pop(network_id, None), self._path(network_id)
        if place is not None:
            self._leaving[network_id] = self._teardown.submit(overlay_namespace.end, place)
        elif netns.exists(path):
            self._leaving[network_id] = self._teardown.submit(_end_unknown, path)

    def strays(self, networks: Iterable[Network]) -> list[str]:
        """The namespaces in our directory that belong to none of these networks, but for those on their way out."""
        if self._directory is None or not self._directory.is_dir():
            return []
        known = {self._path(network.id) for network in networks}
        known |= {self._path(network_id) for network_id, end in self._leaving.items() if not end.done()}
        found = {str(path) for path in self._directory.iterdir()} | {place.path for place in self._places.values()}
        return sorted(found - known)

    def end_stray(self, path: str) -> list[str]:
        """Remove a stray namespace; returns a sentence."""
        for network_id, place in list(self._places.items()):
            if place.path == path:
                self._places.pop(network_id).close()
                self._peers.pop(network_id, None)
        overlay_namespace.end_unknown(path)
        return [f"namespace {path} belonged to an overlay network that is gone"]

    # ---- peers ------------------------------------------------------------------------------------------

    def ensure_peers(self, network: Network, peers: Iterable[Peer]) -> None:
        """Make these the network's remote endpoints; one that could not be made yet has them as soon as it is.

        Here and in `put_peer`, those of this host are left out, and one that cannot be reached is told in the log:
        it is no reason to do without the others.
        """
        place, before = self._places.get(network.id), self._peers_of(network)
        first = not before.complete
        wanted = self._peers[network.id] = before.renewed()
        for peer in peers:
            vni = _vni(network, peer)
            if vni:
                wanted.put(vni, peer)
        if place is not None:
            for vni in place.indexes:
                written = self._ensure_rows(place, wanted, vni)
                if not first:
                    self._announce(place, vni, written)

    def put_peer(self, network: Network, peer: Peer) -> None:
        """Add a remote endpoint, or give a known one other addresses or another host."""
        place, peers, vni = self._places.get(network.id), self._peers_of(network), _vni(network, peer)
        changes = peers.put(vni, peer) if vni else peers.remove(peer.id)
        if place is not None:
            self._write(place, changes)
            self._announce(place, vni, [row for _, row in changes.put])

    def remove_peer(self, network: Network, peer_id: str) -> None:
        """Forget a remote endpoint, if it is known."""
        place, changes = self._places.get(network.id), self._peers_of(network).remove(peer_id)
        if place is not None:
            self._write(place, changes)

    def _peers_of(self, network: Network) -> Peers:
        return self._peers.setdefault(network.id, Peers())

    def _place(self, network: Network) -> Place:
        place = self._places.get(network.id)
        if place is None:
            raise DriverError(f"overlay network {network.name} does not exist on this host")
        return place

    def _write(self, place: Place, changes: Changes) -> None:
        index = place.indexes
        gone = (request for vni, row in changes.gone for request in neighbours.delete(index[vni], row))
        neighbours.write(place.netlink, gone)
        neighbours.write(place.netlink, (neighbours.put(index[vni], row) for vni, row in changes.put))

    @staticmethod
    def _ensure_rows(place: Place, peers: Peers, vni: int) -> set[Row]:
        """Returns the rows that had to be written."""
        index = place.indexes[vni]
        wanted, present = peers.rows(vni), neighbours.rows(place.netlink, index)
        keys = {neighbours.key(row) for row in wanted}
        surplus = {row for row in present if neighbours.key(row) not in keys} if peers.complete else set[Row]()
        neighbours.write(place.netlink, (request for row in surplus for request in neighbours.delete(index, row)))
        neighbours.write(place.netlink, (neighbours.put(index, row) for row in wanted - present))
        return wanted - present

    @staticmethod
    def _announce(place: Place, vni: int, rows: Iterable[Row]) -> None:
        moved = [row for row in rows if isinstance(row, Neighbour)]
        if moved:
            place.announcer.announce(overlay.bridge_name(vni), moved)

    # ---- the namespace ----------------------------------------------------------------------------------

    def _path(self, network_id: str) -> str:
        if self._directory is None:
            raise DriverError("this daemon has no directory for the namespaces of overlay networks")
        return str(self._directory / network_id[:12])

    def _ensure_place(self, network: Network) -> tuple[Place, list[str]]:
        leaving = self._leaving.pop(network.id, None)
        if leaving is not None:
            wait([leaving])
        path = self._path(network.id)
        wrong = [] if netns.exists(path) else ["its namespace was missing"]
        netns.create(path)
        inode = os.stat(path).st_ino
        place = self._places.get(network.id)
        if place is not None and place.inode == inode:
            return place, wrong
        if place is not None:
            place.close()
        place = overlay_namespace.enter(path, self._host, self._owner)
        self._places[network.id] = place
        return place, wrong

    # ---- devices ----------------------------------------------------------------------------------------

    def _ensure_devices(self, place: Place, network: Network) -> list[str]:
        wrong = []
        for vxlan in overlay.vxlans(network):
            wrong += self._ensure_bridge(place, network, vxlan)
            wrong += self._ensure_vxlan(place, network, vxlan)
            wrong += [f"{row} was missing" for row in self._ensure_rows(place, self._peers_of(network), vxlan.vni)]
        return wrong

    def outgrown(self, device: str, mtu: int) -> list[str]:
        """The ids of the networks that were made for another MTU of this device of the host."""
        return [
            network_id
            for network_id, place in self._places.items()
            if place.underlay[0] == device and place.underlay[1] != mtu
        ]

    def _underlay(self, network: Network) -> Link:
        """The device that has our address on the underlay."""
        indexes = {a.device for a in self._host.addresses() if a.address.ip == network.vtep}
        found = next((link for link in self._host.links() if link.index in indexes), None)
        if found is None:
            raise DriverError(
                f"overlay network {network.name} cannot reach other hosts: none of this host's devices has the "
                f"address {network.vtep}, which --cluster-advertise names"
            )
        return found

    def _ensure_bridge(self, place: Place, network: Network, vxlan: Vxlan) -> list[str]:
        wrong, mtu, tag = [], place.mtu, str(Tag(self._owner, "network", network.id))
        link = place.netlink.link(vxlan.bridge)
        if link is None:
            # without querier or router, snooping would only delay what has to reach every port anyway
            data = {"attrs": [("IFLA_BR_MCAST_SNOOPING", 0)]}
            info = {"attrs": [("IFLA_INFO_KIND", "bridge"), ("IFLA_INFO_DATA", data)]}
            mac = overlay.bridge_mac(network, vxlan)
            attrs = {"IFLA_IFNAME": vxlan.bridge, "IFLA_ADDRESS": mac, "IFLA_MTU": mtu, "IFLA_LINKINFO": info}
            place.netlink.run([netlink.new_link(f"create bridge {vxlan.bridge}", attrs)])
            with netns.entered(place.path):
                overlay_namespace.write_bridge_sysctls(vxlan.bridge)
            place.netlink.run([netlink.set_link(vxlan.bridge, {"IFLA_IFALIAS": tag}, up=True)])
            wrong.append(f"bridge {vxlan.bridge} was missing")
        elif not link.up or link.mtu != mtu:
            place.netlink.run([netlink.set_link(vxlan.bridge, {"IFLA_MTU": mtu}, up=True)])
            wrong.append(f"bridge {vxlan.bridge} was down or had MTU {link.mtu}")
        return wrong + self._ensure_gateways(place, vxlan)

    def _ensure_gateways(self, place: Place, vxlan: Vxlan) -> list[str]:
        bridge = place.netlink.link(vxlan.bridge)
        assert bridge is not None
        present = vxlan.gateways & {a.address for a in place.netlink.addresses(bridge.index)}
        wrong = routes.renew(place.netlink, bridge, present)
        missing = vxlan.gateways - present
        place.netlink.run(netlink.add_address(bridge.index, address) for address in missing)
        return wrong + [f"bridge {vxlan.bridge} lacked address {address}" for address in missing]

    def _ensure_vxlan(self, place: Place, network: Network, vxlan: Vxlan) -> list[str]:
        wrong, mtu = [], place.mtu
        assert network.vtep is not None
        tag = str(Tag(self._owner, "network", network.id, f"{vxlan.vni}-{network.vtep.packed.hex()}"))
        bridge, link = place.netlink.link(vxlan.bridge), place.netlink.link(vxlan.device)
        assert bridge is not None
        if link is not None and link.alias != tag:
            place.netlink.run([netlink.delete_link(vxlan.device)])
            wrong.append(f"device {vxlan.device} was another one")
            link = None
        if link is None:
            wrong = wrong or [f"device {vxlan.device} was missing"]
            self._create_vxlan(place, network, vxlan)
        elif link.master != bridge.index or not link.up or link.mtu != mtu:
            wrong.append(f"device {vxlan.device} was down, off its bridge or had MTU {link.mtu}")
        if wrong:
            place.netlink.run(_vxlan_settings(vxlan, bridge, tag, mtu))
            link = place.netlink.link(vxlan.device)
            place.netlink.link(vxlan.bridge)  # being asked, the kernel sees its carrier at once
        assert link is not None
        place.indexes[vxlan.vni] = link.index
        return wrong

    def _create_vxlan(self, place: Place, network: Network, vxlan: Vxlan) -> None:
        with open(place.path) as namespace:
            request = _vxlan(network, vxlan, place.mtu, namespace.fileno())
            # a network that is tried again and again keeps nobody else waiting
            for _ in range(1 if network.id in self._refused else _ATTEMPTS):
                try:
                    self._host.run([request])
                    self._refused.discard(network.id)
                    return
                except KernelRefused as refusal:
                    if refusal.code != errno.EEXIST:
                        raise
                    self._make_room(vxlan.vni)
        self._refused.add(network.id)
        raise DriverError(
            f"VXLAN id {vxlan.vni} is in use in another network namespace of this host, perhaps by another daemon: "
            "end that, or create the network with another id (vxlanid_list)"
        )

    def _make_room(self, vni: int) -> None:
        """Another device has our VNI: delete it if it is a stray one of ours, or else give it time to go."""
        holder = next((link for link in self._host.links() if link.vni == vni), None)
        tag = parse_tag(holder.alias) if holder is not None else None
        if holder is not None and (tag is None or tag.owner != self._owner):
            raise DriverError(
                f"VXLAN id {vni} is in use by device {holder.name} of this host, which is not ours: delete that, "
                "or create the network with another id (vxlanid_list)"
            )
        if holder is not None:
            self._host.run([netlink.delete_link(holder.name)])
        time.sleep(_PAUSE)


def _end_unknown(path: str) -> None:
    try:
        overlay_namespace.end_unknown(path)
    except (DriverError, OSError) as error:
        log.error("%s", error)


def _vni(network: Network, peer: Peer) -> int:
    """The VXLAN of a remote endpoint; 0 if there is none that leads to it."""
    vxlan = overlay.vxlan_of(network, peer.addresses)
    if vxlan is None:
        log.error("endpoint %s has no address of overlay network %s", peer.id[:12], network.name)
    elif network.vtep is None or peer.vtep.version != network.vtep.version:
        log.error(
            "endpoint %s of overlay network %s is out of reach: its host is %s, this one %s; give all hosts "
            "--cluster-advertise addresses of one family",
            *(peer.id[:12], network.name, peer.vtep, network.vtep),
        )
    elif peer.vtep != network.vtep:
        return vxlan.vni
    return 0


def _vxlan(network: Network, vxlan: Vxlan, mtu: int, namespace: int) -> Request:
    assert network.vtep is not None
    local = "IFLA_VXLAN_LOCAL" if network.vtep.version == 4 else "IFLA_VXLAN_LOCAL6"
    data = {
        "IFLA_VXLAN_ID": vxlan.vni,
        local: str(network.vtep),
        "IFLA_VXLAN_PORT": overlay.PORT,
        "IFLA_VXLAN_LEARNING": 0,
        "IFLA_VXLAN_PROXY": 1,
    }
    info = {"attrs": [("IFLA_INFO_KIND", "vxlan"), ("IFLA_INFO_DATA", {"attrs": list(data.items())})]}
    attrs = {"IFLA_IFNAME": vxlan.device, "IFLA_MTU": mtu, "IFLA_NET_NS_FD": namespace, "IFLA_LINKINFO": info}
    return netlink.new_link(f"create VXLAN {vxlan.vni} of network {network.name}", attrs)


def _vxlan_settings(vxlan: Vxlan, bridge: Link, tag: str, mtu: int) -> Iterator[Request]:
    quiet = {"attrs": [("AF_INET6", {"attrs": [("IFLA_INET6_ADDR_GEN_MODE", 1)]})]}
    settings = {"IFLA_IFALIAS": tag, "IFLA_MTU": mtu, "IFLA_AF_SPEC": quiet, "IFLA_MASTER": bridge.index}
    yield netlink.set_link(vxlan.device, settings, up=True)
    # the static rows say what is behind it
    yield netlink.set_bridge_port(vxlan.device, learning=False)
