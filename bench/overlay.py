"""`python -m bench.overlay`, or `make bench ARGS=overlay`: containers of two hosts, on netd's overlay and Docker's.

python -m bench.overlay [--starts N] [--rounds N] [--seconds S] [--write]   --write puts the tables into bench/README.md

On one host a container is started; in another one's network on the other host a prober asks that container's
resolver for the new name every 2 ms, from before the start call, and once it has an address pings that every 5 ms.
netd does so on each of the stores; beside it on etcd, in the same run and in turns, Docker 20.10, the last engine
with `--cluster-store`. Then the throughput: bench/overlay_throughput.py.
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
import platform
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from bench import docker_engine, overlay_throughput, report
from bench.report import Goal
from tests.daemon.cluster import STORE_PORT, Hub, Member, overlay
from tests.daemon.harness import Daemon, eventually
from tests.daemon.prober import Prober, Seen
from tests.kvstore.servers import Consul, Etcd, Server, ZooKeeper
from tests.unix_http import Reply

MARK = "<!-- written by `make bench ARGS='overlay --write'` -->"
SUBNET = "10.99.0"
# Docker speaks the older interface, and asks for the address to use
_FOR_DOCKER = ("--enable-v2=true", f"--advertise-client-urls=http://{SUBNET}.254:{STORE_PORT}")
STORES: dict[str, Callable[[Path], Server]] = {
    "etcd": partial(Etcd, arguments=_FOR_DOCKER),
    "consul": Consul,
    "zookeeper": ZooKeeper,
}
BOUNDS = {"etcd": 10.0, "consul": 10.0, "zookeeper": 100.0}  # ms after the start call's return
DOCKER_EVERY = 4  # starts of netd to one of Docker
NETWORKS = "fresh", "shared"
WARM_UP = 4  # starts that do not count
TRIES = 5
MILLI = 1000


class DockerMember(Member, docker_engine.DockerEngine):
    """A real Docker engine on a host of its own, with a host name of its own: two of one name cannot see each other."""

    def __init__(self, hub: Hub, number: int, *options: str) -> None:
        super().__init__(hub, number, *options)
        store, here = f"{hub.kind}://{hub.address}:{STORE_PORT}", f"{self.machine_address}:2376"
        self.options = [f"--cluster-store={store}", f"--cluster-advertise={here}", *options]

    def api(self, *arguments: Any, **options: Any) -> Reply:
        """Asked again when it fails: at times it dials its store from within the namespace of an overlay."""
        ask = super().api
        answers = (ask(*arguments, **options) for _ in range(TRIES))
        return next((reply for reply in answers if reply.status < 500), None) or ask(*arguments, **options)


@dataclass
class Starts:
    """What the starts of one engine gave: milliseconds from the beginning of the call, infinite for never."""

    name: str
    took: list[float] = field(default_factory=list)
    resolved: list[float] = field(default_factory=list)
    answered: list[float] = field(default_factory=list)
    failed: int = 0  # calls that ended with an error: not among the others

    def add(self, begun: float, returned: float, seen: Seen) -> None:
        """All in seconds of the monotonic clock."""
        moments = returned, seen.resolved, seen.answered
        for column, moment in zip((self.took, self.resolved, self.answered), moments, strict=True):
            column.append((moment - begun) * MILLI)

    @property
    def after_return(self) -> list[float]:
        return [answered - took for answered, took in zip(self.answered, self.took, strict=True)]

    @property
    def never(self) -> int:
        return self.answered.count(math.inf)

    def row(self) -> str:
        after = self.after_return
        medians = (statistics.median(column) for column in (self.took, self.resolved, self.answered))
        numbers = (*medians, p99(self.answered), statistics.median(after), p99(after), max(after))
        told = " | ".join(f"{number:.1f}" for number in numbers)
        return f"| {self.name} | {len(self.took)} | {told} | {self.never} | {self.failed} |"


class Pair:
    """Two hosts of one engine, and a container on the second that asks for those on the first.

    On one network those find company on their host, on the other they are alone and make it new in its kernel.
    """

    def __init__(self, hub: Hub, numbers: tuple[int, int], image: Path, name: str, kind: type[Member] = Member) -> None:
        self.starts = Starts(name)
        self.one, self.two = (hub.member(number, image, f"--dns={hub.address}", kind=kind) for number in numbers)
        self._numbers = itertools.count(100 * numbers[0])
        self._networks = [f"{network}{numbers[0]}" for network in NETWORKS]
        for network in self._networks:
            overlay(self.one, network)
            eventually(partial(self._is_known, network))
        self.one.run_container("company", network=self._networks[1])
        self.two.run_container("asker", network=self._networks[0])
        reply = self.two.api("POST", f"/networks/{self._networks[1]}/connect", {"Container": "asker"})
        assert reply.status == 200, reply
        self.prober = Prober(self.two.inspect("asker")["State"]["Pid"])
        for turn in range(WARM_UP):
            self.round(turn)
        self.starts = Starts(name)

    def _is_known(self, network: str) -> bool:
        return network in {found["Name"] for found in self.two.get("/networks")}

    def round(self, turn: int) -> None:
        """Create a container, start it and see when it is known on the other host, remove it."""
        name, moments = f"c{next(self._numbers)}", list[float]()
        self.one.create(name, network=self._networks[turn % 2])

        def start() -> Reply:
            moments.append(time.monotonic())
            reply = Daemon.api(self.one, "POST", f"/containers/{name}/start")
            moments.append(time.monotonic())
            return reply

        reply, seen = self.prober.watch(name, start)
        if reply.status == 204:
            self.starts.add(moments[0], moments[1], seen)
        else:
            self.starts.failed += 1
        self.one.remove_container(name)


def measure(store: str, starts: int, image: Path, work: Path) -> list[Starts]:
    """netd's starts on a store; with etcd, and if there is one, those of Docker between them."""
    with ExitStack() as stack:
        server = STORES[store](work / store)
        stack.callback(server.stop)
        server.start()
        hub = Hub(store, server.port, SUBNET)
        stack.callback(hub.remove)
        hub.make()
        stack.callback(_names_of_nothing(hub.address).kill)
        pairs = [Pair(hub, (1, 2), image, f"netd, {store}")]
        stack.callback(pairs[0].prober.close)
        if store == "etcd" and docker_engine.version():
            pairs.append(Pair(hub, (3, 4), image, f"Docker, {store}", DockerMember))
            stack.callback(pairs[1].prober.close)
        for turn in range(starts):
            pairs[0].round(turn)
            if turn % DOCKER_EVERY == 0:
                for other in pairs[1:]:
                    other.round(turn // DOCKER_EVERY)
        return [pair.starts for pair in pairs]


def _names_of_nothing(address: str) -> subprocess.Popen[bytes]:
    """The hosts' DNS server: it says of every name that there is none."""
    flags = ("--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--pid-file=", "--user=root")
    where = "--bind-interfaces", f"--listen-address={address}"
    return subprocess.Popen(["dnsmasq", *flags, *where, "--local=/#/"], stderr=subprocess.DEVNULL)


def p99(values: Iterable[float]) -> float:
    """The 99th percentile by nearest rank: of 100 values the last but one."""
    ordered = sorted(values)
    return ordered[math.ceil(len(ordered) * 0.99) - 1]


def goals(found: Sequence[Starts]) -> list[Goal]:
    by_name = {starts.name: starts for starts in found}
    told: list[Goal] = []
    for store, bound in BOUNDS.items():
        ours = by_name.get(f"netd, {store}")
        if ours is not None:
            what = f"{store}: resolves and answers after the return, 99th percentile"
            told.append(Goal(what, p99(ours.after_return), bound, " ms"))
            told.append(Goal(f"{store}: never", ours.never + ours.failed, 0))
    docker = by_name.get("Docker, etcd")
    if docker is not None:
        ratio = statistics.median(by_name["netd, etcd"].answered) / statistics.median(docker.answered)
        told.append(Goal("answers after the beginning, × Docker, medians", ratio, 0.5))
    return told


def table(found: Sequence[Starts], ways: Sequence[overlay_throughput.Way], reached: Sequence[Goal]) -> str:
    versions = f"Linux {platform.release()}, {os.cpu_count()} cores; {docker_engine.version() or 'no Docker engine'}"
    columns = "| | starts | start call | resolves | answers | 99th | answers, after the return | 99th | slowest |"
    head = [f"Milliseconds; {versions}.", "", f"{columns} never | failed |", "|---|" + "---:|" * 10]
    rows = [starts.row() for starts in found]
    return "\n".join([*head, *rows, "", *overlay_throughput.table(ways), "", report.compared(reached)])


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line of this process; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.overlay", description=__doc__)
    parser.add_argument("--stores", nargs="*", default=list(STORES), choices=STORES)
    parser.add_argument("--starts", type=int, default=100, help="on each store")
    parser.add_argument("--rounds", type=int, default=5, help="of the throughput")
    parser.add_argument("--seconds", type=int, default=2, help="of each of those, after a second of warming up")
    parser.add_argument("--write", action="store_true", help="put the tables into bench/README.md")
    args = parser.parse_args(arguments)
    report.begin()
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)
        image = docker_engine.image_file(work)
        found = [starts for store in args.stores for starts in measure(store, args.starts, image, work)]
        ways = overlay_throughput.measure(args.rounds, args.seconds, work)
    reached = [*goals(found), overlay_throughput.goal(ways)]
    missed = [goal.what for goal in reached if not goal.reached]
    return report.finish(table(found, ways, reached), missed, MARK, write=args.write)


if __name__ == "__main__":
    raise SystemExit(main())
