"""The namespace of an overlay network: where it is pinned, what is open in it, how it is made and ended."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, field
from pathlib import Path

from drivers import netlink, netns, nsid, overlay
from drivers.announce import Announcer
from drivers.netlink import Netlink
from drivers.reaper import Reaper
from drivers.spec import DriverError

log = logging.getLogger(__name__)

_SYSCTL = Path("/proc/sys/net")
_NEIGHBOURS = (8192, 49152, 65536)  # entries: Docker's limits


@dataclass(slots=True)
class Place:
    """A network's namespace while it is ours."""

    path: str
    inode: int
    number: int
    netlink: Netlink
    reaper: Reaper
    announcer: Announcer
    mtu: int = 0
    underlay: tuple[str, int] = ("", 0)  # the host's device that its packets leave by, and the MTU of that
    indexes: dict[int, int] = field(default_factory=dict)  # VNI -> its VXLAN device

    def close(self) -> None:
        self.reaper.close()
        self.announcer.close()
        self.netlink.close()


def enter(path: str, host: Netlink, owner: str) -> Place:
    """Open what we need in the namespace at `path`, and let its bridges route between the network's subnets."""
    number = nsid.number(host, path)
    with netns.entered(path):
        _write_namespace_sysctls()
        return Place(path, os.stat(path).st_ino, number, Netlink(), Reaper(owner), Announcer())


def end(place: Place) -> None:
    """Delete the devices, so that their VNIs are free, and then the namespace."""
    try:
        place.netlink.run(netlink.delete_link(overlay.device_name(vni)) for vni in place.indexes)
    except DriverError as error:
        log.error("%s", error)
    place.close()
    try:
        _unpin(place.path)
    except DriverError as error:
        log.error("%s", error)


def end_unknown(path: str) -> None:
    """The same for a namespace that a daemon before us made. Raises DriverError."""
    if netns.exists(path):
        with netns.entered(path), Netlink() as inner:
            inner.run(netlink.delete_link(link.name) for link in inner.links() if link.kind == "vxlan")
    _unpin(path)


def _unpin(path: str) -> None:
    try:
        netns.remove(path)
    except OSError as error:
        raise DriverError(f"cannot remove network namespace {path}: {error.strerror}") from None


def raise_neighbour_limits() -> None:
    """One table serves all namespaces of the machine, containers included; with the default it is soon full."""
    for family in ("ipv4", "ipv6"):
        for number, entries in enumerate(_NEIGHBOURS, 1):
            path = _SYSCTL / family / "neigh" / "default" / f"gc_thresh{number}"
            if path.exists() and int(path.read_text()) < entries:
                path.write_text(str(entries))


def _write_namespace_sysctls() -> None:
    for name in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
        _write(name, "1")
    for name in ("bridge-nf-call-iptables", "bridge-nf-call-ip6tables", "bridge-nf-call-arptables"):
        _write(f"bridge/{name}", "0")  # no rule is here, so frames need not be shown to any


def write_bridge_sysctls(bridge: str) -> None:
    _write(f"ipv6/conf/{bridge}/accept_dad", "0")


def _write(name: str, value: str) -> None:
    path = _SYSCTL / name
    if path.exists():
        path.write_text(value)
