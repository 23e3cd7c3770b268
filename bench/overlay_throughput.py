"""How fast containers of two hosts talk through netd's overlay, beside VXLANs set up by hand with `ip`.

Hosts are namespaces of this machine, joined by a bridge. In alternating rounds iperf3 sends one TCP stream from one
to another:

- `netd`: between two containers, through the drivers as the daemon uses them;
- `by hand`: between the same two hosts, over a VXLAN device with an address and a remote, which is the shortest way
  there is; the goal is 0.95 of it;
- `by hand, no netd`: the same between two hosts without anything of netd, so without any firewall;
- `by hand, no netd, for containers`: between namespaces on such hosts, by a veth pair and a bridge as with netd.

All have the same MTU and, as it is the kernel's choice for these devices, the same offloads.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from bench.report import Goal
from drivers import netns
from tests.drivers.hosts import Host, Hosts
from tests.drivers.world import World

GOAL = 0.95
MTU = 1450
PORT = 5201


class Way:
    """Between which namespaces, and to which address, one kind of measurement goes."""

    def __init__(self, name: str, client: str, server: str, address: str) -> None:
        self.name = name
        self.client = client
        self.server = server
        self.address = address
        self.gbits: list[float] = []

    def measure(self, seconds: int) -> None:
        with netns.entered(self.server):
            serving = subprocess.Popen(["iperf3", "-s", "-1", "-p", str(PORT)], stdout=subprocess.DEVNULL)
        try:
            with netns.entered(self.client):
                time.sleep(0.3)  # until it listens
                ask = ["iperf3", "-c", self.address, "-p", str(PORT), "-t", str(seconds), "-O", "1", "-J"]
                answer = subprocess.run(ask, capture_output=True, check=True)
            self.gbits.append(json.loads(answer.stdout)["end"]["sum_received"]["bits_per_second"] / 1e9)
        finally:
            serving.terminate()
            serving.wait()

    @property
    def median(self) -> float:
        return statistics.median(self.gbits)


def through_netd(hosts: Hosts, one: Host, two: Host) -> Way:
    network = hosts.describe("bench", ("10.60.0.0/24", 300))
    client, server = hosts.join(one, network, "10.60.0.10"), hosts.join(two, network, "10.60.0.11")
    return Way("netd", client.sandbox.netns, server.sandbox.netns, server.ip)


def by_hand(name: str, one: Host, two: Host, vni: int) -> Way:
    for host, other, address in ((one, two, "10.70.0.1/24"), (two, one, "10.70.0.2/24")):
        host.run(_vxlan("hand0", vni, host, other))
        host.run(f"ip addr add {address} dev hand0; ip link set hand0 up")
    return Way(name, one.path, two.path, "10.70.0.2")


def by_hand_for_containers(name: str, one: Host, two: Host, vni: int, stack: ExitStack) -> Way:
    for number, (host, other) in enumerate(((one, two), (two, one)), 1):
        path = _container(host)
        netns.create(path)
        stack.callback(netns.remove, path)
        host.run(_vxlan("hand1", vni, host, other))
        host.run(f"ip link add handbr type bridge; ip link set handbr mtu {MTU} up; ip link set hand1 master handbr up")
        host.run(f"ip link add handv mtu {MTU} master handbr up type veth peer name handc mtu {MTU}")
        with netns.entered(host.path):
            World.move("handc", path)
        with netns.entered(path):
            subprocess.run(["ip", "addr", "add", f"10.71.0.{number}/24", "dev", "handc"], check=True)
            subprocess.run(["ip", "link", "set", "handc", "up"], check=True)
    return Way(name, _container(one), _container(two), "10.71.0.2")


def _container(host: Host) -> str:
    return str(host.directory / "hand")


def _vxlan(name: str, vni: int, host: Host, other: Host) -> str:
    ends = f"local {host.vtep} remote {other.vtep}"
    return f"ip link add {name} mtu {MTU} type vxlan id {vni} dstport 4789 {ends}"


def measure(rounds: int, seconds: int, directory: Path) -> list[Way]:
    """All ways, in alternating rounds."""
    with ExitStack() as stack:
        hosts = Hosts(directory, 4)
        stack.callback(hosts.close)
        one, two, three, four = hosts.hosts
        ways = [
            through_netd(hosts, one, two),
            by_hand("by hand", one, two, 400),
            by_hand("by hand, no netd", three, four, 401),
            by_hand_for_containers("by hand, no netd, for containers", three, four, 402, stack),
        ]
        for _ in range(rounds):
            for way in ways:
                way.measure(seconds)
        return ways


def goal(ways: Sequence[Way]) -> Goal:
    return Goal("throughput, × VXLAN by hand", ways[0].median / ways[1].median, GOAL, most=False)


def table(ways: Sequence[Way]) -> list[str]:
    rows = []
    for way in ways:
        rounds = " ".join(f"{gbits:.2f}" for gbits in way.gbits)
        rows.append(f"| {way.name} | {way.median:.2f} | {way.median / ways[1].median:.2f} | {rounds} |")
    return ["| | Gbit/s | ratio | rounds |", "|---|---:|---:|---|", *rows]
