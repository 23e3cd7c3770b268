"""Hosts as namespaces on one underlay bridge, each with a `Kernel` of its own, in one process.

A kernel's worker stays in the namespace its thread was started in, so a host's is opened while the test visits it.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import time
import uuid
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path
from typing import Any, TypeVar

from drivers import netns
from drivers.kernel import Kernel
from drivers.names import veth_name
from drivers.spec import Endpoint, Network, Peer, Sandbox, Subnet
from tests.drivers.world import World, sh

T = TypeVar("T")
_IP_MTU_DISCOVER, _DO_NOT_FRAGMENT = 10, 2  # linux/in.h


@dataclass
class Member:
    """A container on an overlay."""

    host: Host
    sandbox: Sandbox

    @property
    def endpoint(self) -> Endpoint:
        return self.sandbox.endpoints[0]

    @property
    def ip(self) -> str:
        assert self.endpoint.ipv4 is not None
        return str(self.endpoint.ipv4.ip)

    @property
    def ip6(self) -> str:
        assert self.endpoint.ipv6 is not None
        return str(self.endpoint.ipv6.ip)

    @property
    def device(self) -> str:
        return veth_name(self.endpoint.id)

    def run(self, command: str) -> str:
        with netns.entered(self.sandbox.netns):
            return sh(command)

    def pings(self, address: str, *, size: int = 56, wait: float = 1.5) -> bool:
        """Whether the first echo request, of `size` bytes after the ICMP header, not to be fragmented, is answered.

        Over IPv6 a second one counts too: on a busy machine the kernel may take a new address into use late.
        """
        with netns.entered(self.sandbox.netns):
            return any(_ping(address, size, wait) for _ in range(2 if ":" in address else 1))


def _ping(address: str, size: int, wait: float) -> bool:
    ipv6 = ":" in address
    family, proto = (socket.AF_INET6, socket.IPPROTO_ICMPV6) if ipv6 else (socket.AF_INET, socket.IPPROTO_ICMP)
    request, reply = (128, 129) if ipv6 else (8, 0)
    token = os.urandom(8) + bytes(size - 8)
    body = struct.pack("!BBHHH", request, 0, 0, 1, 1) + token
    words = sum(word for (word,) in struct.iter_unpack("!H", body))
    checksum = ~((words & 0xFFFF) + (words >> 16)) & 0xFFFF  # of ICMPv6 the kernel's business
    with socket.socket(family, socket.SOCK_RAW | socket.SOCK_CLOEXEC, proto) as raw:
        raw.settimeout(wait)
        if not ipv6:
            raw.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _DO_NOT_FRAGMENT)
        try:
            raw.sendto(body[:2] + struct.pack("!H", checksum) + body[4:], (address, 0))
            while True:
                answer = raw.recv(1 << 16)[0 if ipv6 else 20 :]
                if answer[0] == reply and answer[8:] == token:
                    return True
        except OSError:
            return False


@dataclass
class Host:
    """A machine: its namespace, its address on the underlay, and its part of the overlays."""

    name: str
    path: str
    vtep: str
    directory: Path
    kernel: Kernel
    networks: dict[str, Network] = field(default_factory=dict)
    members: list[Member] = field(default_factory=list)

    @property
    def overlays(self) -> Path:
        return self.directory / "overlay"

    def inside(self, network: Network) -> str:
        """The path of the network's namespace."""
        return str(self.overlays / network.id[:12])

    def run_in(self, network: Network, command: str) -> str:
        with netns.entered(self.inside(network)):
            return sh(command)

    def run(self, command: str) -> str:
        with netns.entered(self.path):
            return sh(command)


class Hosts:
    """The hosts, and what their daemons would tell each other."""

    def __init__(self, directory: Path, count: int, *, ipv6: bool = False, mtu: int = 1500) -> None:
        self.directory = directory
        self.runner = asyncio.Runner()
        self.hosts: list[Host] = []
        sh(f"ip link set lo up; ip link add lan type bridge mcast_snooping 0; ip link set lan mtu {mtu} up")
        for number in range(1, count + 1):
            self.hosts.append(self._host(number, ipv6, mtu))

    def _host(self, number: int, ipv6: bool, mtu: int) -> Host:
        directory = self.directory / f"host{number}"
        path, vtep = str(directory / "ns"), f"2001:db8::{number}" if ipv6 else f"192.0.2.{number}"
        netns.create(path)
        sh(f"ip link add lan{number} mtu {mtu} master lan type veth peer name eth0 mtu {mtu}")
        sh(f"ip link set lan{number} up")
        World.move("eth0", path)
        with netns.entered(path):
            sh(f"ip addr add {vtep}/{64 if ipv6 else 24} dev eth0 {'nodad' if ipv6 else ''}; ip link set eth0 up")
            sh("ip link show eth0")
            kernel = self.run(Kernel.open(f"host{number}", str(directory / "overlay")))
        return Host(f"host{number}", path, vtep, directory, kernel)

    def close(self) -> None:
        for host in self.hosts:
            self.run(host.kernel.reconcile([], []))
            self.run(host.kernel.close())
            for member in host.members:
                netns.remove(member.sandbox.netns)
            netns.remove(host.path)
        self.runner.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    def restart(self, host: Host) -> None:
        """A new daemon on a host."""
        self.run(host.kernel.close())
        with netns.entered(host.path):
            host.kernel = self.run(Kernel.open(host.name, str(host.overlays)))

    def reconcile(self, host: Host) -> Any:
        return self.run(host.kernel.reconcile(host.networks.values(), [member.sandbox for member in host.members]))

    # ---- what the store would hold ----------------------------------------------------------------------

    @staticmethod
    def describe(name: str, *pools: tuple[str, int], options: dict[str, str] | None = None) -> Network:
        """An overlay with these (pool, VNI); each pool's first address is its gateway."""
        subnets = tuple(Subnet(ip_network(pool), ip_network(pool)[1], vni) for pool, vni in pools)
        return Network(uuid.uuid4().hex * 2, name, "overlay", subnets, options=options or {})

    def join(self, host: Host, network: Network, *addresses: str, mac: str = "") -> Member:
        """A new container on a host, with these addresses; every other host hears of it."""
        if network.id not in host.networks:
            self.bring(host, network)
        endpoint = _endpoint(network, addresses, mac)
        path = str(host.directory / f"c-{endpoint.id[:12]}")
        netns.create(path)
        member = Member(host, Sandbox(uuid.uuid4().hex * 2, path, (endpoint,)))
        self.run(host.kernel.ensure_sandbox(member.sandbox))
        host.members.append(member)
        for other in self._others(host, network):
            self.run(other.kernel.put_peer(network.id, peer(member)))
        return member

    def bring(self, host: Host, network: Network) -> None:
        """The network's first container is about to join on this host."""
        local = _local(network, host)
        self.run(host.kernel.ensure_network(local))
        host.networks[network.id] = local
        self.run(host.kernel.ensure_peers(network.id, self.peers(host, network)))

    def peers(self, host: Host, network: Network) -> list[Peer]:
        return [
            peer(member)
            for other in self._others(host, network)
            for member in other.members
            if member.endpoint.network_id == network.id
        ]

    def leave(self, member: Member) -> None:
        """Its container is gone; every other host hears of it."""
        host, network_id = member.host, member.endpoint.network_id
        self.run(host.kernel.remove_sandbox(member.sandbox.id))
        host.members.remove(member)
        netns.remove(member.sandbox.netns)
        for other in self.hosts:
            if other is not host and network_id in other.networks:
                self.run(other.kernel.remove_peer(network_id, member.endpoint.id))
        if not any(other.endpoint.network_id == network_id for other in host.members):
            self.run(host.kernel.remove_network(network_id))
            del host.networks[network_id]

    def _others(self, host: Host, network: Network) -> list[Host]:
        return [other for other in self.hosts if other is not host and network.id in other.networks]

    def eventually(self, holds: Callable[[], bool], within: float = 10) -> float:
        """Let the daemons' loop run until it holds; returns the seconds it took. Fails after `within`."""
        start = time.monotonic()
        while not holds():
            assert time.monotonic() - start < within, f"not so within {within} s"
            self.run(asyncio.sleep(0.02))
        return time.monotonic() - start


def _local(network: Network, host: Host) -> Network:
    return Network(
        network.id,
        network.name,
        network.driver,
        network.subnets,
        network.internal,
        network.options,
        ip_address(host.vtep),
    )


def _endpoint(network: Network, addresses: tuple[str, ...], mac: str) -> Endpoint:
    held = {}
    for address in map(ip_address, addresses):
        pool = next(subnet.pool for subnet in network.subnets if address in subnet.pool)
        held[address.version] = ip_interface((address, pool.prefixlen))
    mac = mac or "02:42:" + ip_address(addresses[0]).packed[-4:].hex(":")
    return Endpoint(
        id=uuid.uuid4().hex * 2,
        network_id=network.id,
        ifname="eth0",
        mac=mac,
        ipv4=held.get(4),  # type: ignore[arg-type]
        ipv6=held.get(6),  # type: ignore[arg-type]
    )


def peer(member: Member) -> Peer:
    endpoint = member.endpoint
    held = [interface.ip for interface in (endpoint.ipv4, endpoint.ipv6) if interface is not None]
    return Peer(endpoint.id, endpoint.mac, tuple(held), ip_address(member.host.vtep))
