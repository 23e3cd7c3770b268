"""What a kind of network has to offer: the seam between `kernel.py` and the drivers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from drivers.netlink import IPAddress, Netlink
from drivers.reaper import Reaper
from drivers.ruleset import Elements
from drivers.spec import Endpoint, Network


@dataclass(frozen=True, slots=True)
class Segment:
    """Where the outer ends of a network's veth pairs are plugged in.

    `netlink` and `reaper` belong to the namespace that holds the bridge `device`: the host's, or one of the
    network's own.
    """

    netlink: Netlink
    reaper: Reaper
    device: str
    mtu: int  # 0: the kernel's default
    isolated: bool = False  # ports must not exchange frames
    hairpin: bool = True  # frames may go back where they came from
    routes: tuple[tuple[str, IPAddress | None], ...] = ()  # further destinations, each with its gateway, if any
    leads_out: bool = True  # the gateway is a way to everywhere, and not only to the network's other subnets


class Driver(Protocol):
    """All methods but `validate` and `elements` run in the kernel's worker thread. All are idempotent."""

    def validate(self, network: Network, existing: Iterable[Network]) -> None:
        """Refuse a network with options that cannot be read, or one in the way of another."""

    def ensure_network(self, network: Network) -> list[str]:
        """Make the network's devices as they should be; returns what had to be put right."""

    def remove_network(self, network: Network) -> None:
        """Remove the network's devices, and leave what was there before us."""

    def elements(self, network: Network) -> Elements:
        """The network's part of our nftables table."""

    def device(self, network: Network) -> str:
        """The network's device in the host's namespace, whose loss is a reason to repair; "" if there is none."""

    def namespace(self, network: Network) -> int:
        """The host's number for the namespace of the network's own, where a loss is one too; -1 if there is none."""

    def segment(self, network: Network, endpoint: Endpoint) -> Segment | None:
        """Where an endpoint is plugged in; None if this kind of network has no endpoints of its own."""

    def plugged(self, network: Network, endpoint: Endpoint) -> None:
        """An endpoint of this host is about to be plugged in, or is already."""

    def unplugged(self, network: Network, endpoint: Endpoint) -> None:
        """An endpoint of this host is gone."""


class NoDriver:
    """Networks that need nothing from the kernel: `host`, `null`."""

    def validate(self, network: Network, existing: Iterable[Network]) -> None:
        pass

    def ensure_network(self, network: Network) -> list[str]:
        return []

    def remove_network(self, network: Network) -> None:
        pass

    def elements(self, network: Network) -> Elements:
        return {}

    def device(self, network: Network) -> str:
        return ""

    def namespace(self, network: Network) -> int:
        return -1

    def segment(self, network: Network, endpoint: Endpoint) -> Segment | None:
        return None

    def plugged(self, network: Network, endpoint: Endpoint) -> None:
        pass

    def unplugged(self, network: Network, endpoint: Endpoint) -> None:
        pass
