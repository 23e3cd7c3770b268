"""A host, its neighbours and its containers, made of namespaces; and questions about who reaches whom."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path
from typing import Any, Literal, TypeVar

from drivers import netns
from drivers.kernel import Kernel
from drivers.spec import DnsPorts, Endpoint, Network, PortForward, Sandbox, Subnet

T = TypeVar("T")
# seconds until an unanswered packet counts as dropped; over IPv6 a busy kernel may join a multicast group
# late, and lose the first neighbour solicitation, which is repeated after one second
PATIENCE = {socket.AF_INET: 0.4, socket.AF_INET6: 1.5}

HOST_IP, HOST_IP6 = "203.0.113.1", "2001:db8:113::1"  # the host's address towards the outside
OUTSIDE_IP, OUTSIDE_IP6 = "203.0.113.2", "2001:db8:113::2"


def sh(command: str) -> str:
    return subprocess.run(command, shell=True, check=True, capture_output=True, text=True).stdout


@dataclass
class Container:
    """A namespace with the sandbox that is desired for it."""

    sandbox: Sandbox

    @property
    def path(self) -> str:
        return self.sandbox.netns

    @property
    def ip(self) -> str:
        return str(self.sandbox.endpoints[0].ipv4.ip)  # type: ignore[union-attr]

    @property
    def ip6(self) -> str:
        return str(self.sandbox.endpoints[0].ipv6.ip)  # type: ignore[union-attr]


@dataclass
class World:
    """A host in a namespace of its own, with a neighbour `outside` on the network 203.0.113.0/24."""

    directory: Path
    owner: str = "world"
    networks: dict[str, Network] = field(default_factory=dict)
    containers: list[Container] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.runner = asyncio.Runner()
        self.outside = str(self.directory / "outside")
        netns.create(self.outside)
        sh("ip link set lo up; ip link add up0 type veth peer name eth0; sysctl -q net.ipv6.conf.up0.accept_dad=0")
        sh(f"ip addr add {HOST_IP}/24 dev up0; ip addr add {HOST_IP6}/64 dev up0 nodad; ip link set up0 up")
        self.move("eth0", self.outside)
        self.inside(self.outside, f"ip addr add {OUTSIDE_IP}/24 dev eth0; ip addr add {OUTSIDE_IP6}/64 dev eth0 nodad")
        self.inside(
            self.outside,
            "sysctl -q net.ipv6.conf.eth0.accept_dad=0; ip link set eth0 up; ip route add default via " + HOST_IP,
        )
        self.inside(self.outside, "ip -6 route add default via " + HOST_IP6)
        sh("ip link show up0")  # settles its carrier now, not within a second
        self.inside(self.outside, "ip link show eth0")
        self.kernel = self.run(Kernel.open(self.owner))

    def close(self) -> None:
        self.run(self.kernel.close())
        self.runner.close()
        for container in self.containers:
            netns.remove(container.path)
        netns.remove(self.outside)

    def restart(self) -> None:
        """A new daemon on the same host: it remembers nothing."""
        self.run(self.kernel.close())
        self.kernel = self.run(Kernel.open(self.owner))

    # ---- making things ----------------------------------------------------------------------------------

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    def describe(
        self, name: str, *pools: str, options: dict[str, str] | None = None, internal: bool = False
    ) -> Network:
        """A network with these pools, each with its first address as gateway; not made yet."""
        pools = pools or (f"10.{50 + len(self.networks)}.0.0/24",)
        subnets = tuple(Subnet(ip_network(pool), ip_network(pool)[1]) for pool in pools)
        return Network(uuid.uuid4().hex * 2, name, "bridge", subnets, internal, options or {})

    def network(self, name: str, *pools: str, options: dict[str, str] | None = None, internal: bool = False) -> Network:
        network = self.describe(name, *pools, options=options, internal=internal)
        self.run(self.kernel.ensure_network(network))
        self.networks[network.id] = network
        return network

    def container(
        self, *networks: Network, ports: tuple[PortForward, ...] = (), dns: DnsPorts | None = None
    ) -> Container:
        """A container on these networks; its ports are published on the first, which has its default route."""
        container = self.describe_container(*networks, ports=ports, dns=dns)
        netns.create(container.path)
        self.containers.append(container)
        self.ensure(container)
        return container

    def describe_container(
        self, *networks: Network, ports: tuple[PortForward, ...] = (), dns: DnsPorts | None = None
    ) -> Container:
        sandbox_id = uuid.uuid4().hex * 2
        endpoints = tuple(
            self.endpoint(network, f"eth{number}", ports if number == 0 else ())
            for number, network in enumerate(networks)
        )
        gateway = endpoints[0].id if endpoints else None
        path = str(self.directory / sandbox_id[:12])
        return Container(Sandbox(sandbox_id, path, endpoints, gateway, gateway, dns))

    def endpoint(self, network: Network, ifname: str, ports: tuple[PortForward, ...] = ()) -> Endpoint:
        host = 10 + sum(len(c.sandbox.endpoints) for c in self.containers) + int(ifname[3:])
        addresses = {s.pool.version: ip_interface((s.pool[host], s.pool.prefixlen)) for s in reversed(network.subnets)}
        return Endpoint(
            id=uuid.uuid4().hex * 2,
            network_id=network.id,
            ifname=ifname,
            mac="02:42:00:" + ":".join(uuid.uuid4().hex[i : i + 2] for i in (0, 2, 4)),
            ipv4=addresses.get(4),  # type: ignore[arg-type]
            ipv6=addresses.get(6),  # type: ignore[arg-type]
            ports=ports,
        )

    def ensure(self, container: Container) -> None:
        self.run(self.kernel.ensure_sandbox(container.sandbox))

    def connect(self, container: Container, network: Network) -> None:
        taken = {endpoint.ifname for endpoint in container.sandbox.endpoints}
        free = next(name for number in range(99) if (name := f"eth{number}") not in taken)
        endpoint = self.endpoint(network, free)
        container.sandbox = replace(container.sandbox, endpoints=(*container.sandbox.endpoints, endpoint))
        self.ensure(container)

    def disconnect(self, container: Container, network: Network) -> None:
        kept = tuple(e for e in container.sandbox.endpoints if e.network_id != network.id)
        gateway = kept[0].id if kept else None
        container.sandbox = replace(container.sandbox, endpoints=kept, gateway4=gateway, gateway6=gateway)
        self.ensure(container)

    def remove(self, container: Container) -> None:
        self.run(self.kernel.remove_sandbox(container.sandbox.id))

    def reconcile(self) -> Any:
        return self.run(self.kernel.reconcile(self.networks.values(), [c.sandbox for c in self.containers]))

    # ---- looking ----------------------------------------------------------------------------------------

    def inside(self, path: str, command: str) -> str:
        """Run a shell command in a namespace."""
        with netns.entered(path):
            return sh(command)

    @staticmethod
    def move(device: str, path: str) -> None:
        with open(path) as namespace:
            into = f"/proc/self/fd/{namespace.fileno()}"
            subprocess.run(["ip", "link", "set", device, "netns", into], check=True, pass_fds=[namespace.fileno()])

    def eventually(self, holds: Callable[[], bool], within: float = 10) -> float:
        """Let the daemon's loop run until it holds; returns the seconds it took. Fails after `within`."""
        start = time.monotonic()
        while not holds():
            assert time.monotonic() - start < within, f"not so within {within} s"
            self.run(asyncio.sleep(0.02))
        return time.monotonic() - start

    # ---- talking ----------------------------------------------------------------------------------------

    def tcp(self, client: str | None, server: str | None, address: str, port: int, at: int | None = None) -> str | None:
        """Connect from one namespace (None: the host) to a listener on port `at` in another.

        Returns the client's address as the server saw it, or None if there was no answer.
        """
        return exchange(client, server, address, port, port if at is None else at, socket.SOCK_STREAM)

    def udp(self, client: str | None, server: str | None, address: str, port: int, at: int | None = None) -> str | None:
        """The same with one datagram each way; the answer must come from where the question went."""
        return exchange(client, server, address, port, port if at is None else at, socket.SOCK_DGRAM)


@contextlib.contextmanager
def opened(path: str | None, family: socket.AddressFamily, kind: socket.SocketKind) -> Iterator[socket.socket]:
    """A socket in the namespace at `path`, or in the host's."""
    with netns.entered(path) if path else contextlib.nullcontext():
        made = socket.socket(family, kind)
    made.settimeout(PATIENCE[family])
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    with made:
        yield made


def exchange(
    client: str | None, server: str | None, address: str, port: int, at: int, kind: Literal[1, 2] | socket.SocketKind
) -> str | None:
    """What `World.tcp` and `World.udp` do."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    kind = socket.SocketKind(kind)
    with opened(server, family, kind) as listener, opened(client, family, kind) as asker:
        listener.bind(("", at))
        try:
            if kind == socket.SOCK_DGRAM:
                asker.sendto(b"ping", (address, port))
                _, peer = listener.recvfrom(16)
                listener.sendto(b"pong", peer)
                answer, answerer = asker.recvfrom(16)
                assert answerer[0] == address, f"answer from {answerer[0]}, asked {address}"
            else:
                listener.listen()
                asker.connect((address, port))
                accepted, peer = listener.accept()
                with accepted:
                    accepted.settimeout(PATIENCE[family])
                    asker.sendall(b"ping")
                    assert accepted.recv(16) == b"ping"
                    accepted.sendall(b"pong")
                    answer = asker.recv(16)
        except OSError:
            return None
    assert answer == b"pong"
    return str(ip_address(peer[0]))


def publish(
    host_port: int,
    container_port: int,
    proto: Literal["tcp", "udp", "sctp"] = "tcp",
    host_ip: str = "0.0.0.0",
    count: int = 1,
) -> PortForward:
    return PortForward(proto, ip_address(host_ip), host_port, container_port, count)
