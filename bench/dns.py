"""`python -m bench.dns`, or `make bench ARGS=dns`: netd's answers, from the kernel and from netd-dns, beside Docker's
embedded DNS, aardvark-dns, dnsmasq, and two programs that answer blindly: one in C, the ceiling of the socket path,
and one in BPF, the ceiling of the way through the kernel.

python -m bench.dns [--rounds N] [--seconds S] [--write]   --write puts the tables into bench/README.md

dnsperf asks all of them the same, round by round in turn; netd and Docker from inside a client container at
127.0.0.11:53.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import re
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

from bench import docker_engine, report
from bench.dns_servers import Server, aardvark, ceiling, dnsmasq, docker, kernel_ceiling, netd, questions
from bench.report import Goal
from dns.client import Record, Resolver
from tests.daemon.harness import NO_PROXY, OUTSIDE_IP, Daemon, eventually, run
from tests.dns.helpers import Client, World

MARK = "<!-- written by `make bench ARGS='dns --write'` -->"
KERNEL, NETD = "netd, from the kernel", "netd-dns"
DOCKER, AARDVARK, DNSMASQ = "Docker's embedded DNS", "aardvark-dns", "dnsmasq"
CEILING, BARE = "C ceiling, ports rewritten too", "C ceiling, no rewriting"
BLIND = "BPF ceiling"
LOAD = ("-c", "4", "-q", "50")
ALONE = ("-c", "1", "-q", "1")
SANDBOXES = 1000
JOINS = 200
FORWARDED = 1000  # questions a round
MICRO = 1e6
MIB = 1 << 20


def dnsperf(server: Server, data: Path, *options: str) -> str:
    command = ["nsenter", f"--net={server.netns}", "dnsperf", "-s", server.address, "-p", str(server.port)]
    # to a file: somebody who reads along would need processor time
    said = data.with_suffix(".said")
    with said.open("w") as output:
        run(*command, "-d", data, *options, stdout=output, stderr=subprocess.STDOUT, capture_output=False)
    return said.read_text()


def number(what: str, said: str) -> float:
    """The number behind a word in what dnsperf said."""
    found = re.search(rf"{what}[^:]*: +([\d.]+)", said)
    if found is None:
        raise SystemExit(f"bench: dnsperf failed:\n{said}")
    return float(found[1])


@dataclass
class Result:
    """What the rounds gave for one server: questions a second, and microseconds."""

    rate: list[float] = field(default_factory=list)
    twice: list[float] = field(default_factory=list)  # the rate with two threads that ask
    p99: list[float] = field(default_factory=list)
    alone: list[float] = field(default_factory=list)
    lost: int = 0

    def round(self, server: Server, data: Path, seconds: float) -> None:
        said = dnsperf(server, data, *LOAD, "-l", str(seconds))
        self.rate.append(number("Queries per second", said))
        self.lost += int(number("Queries lost", said))
        said = dnsperf(server, data, *LOAD, "-T", "2", "-l", str(seconds))
        self.twice.append(number("Queries per second", said))
        self.lost += int(number("Queries lost", said))
        # printing every question takes time of its own, so this is a round apart
        said = dnsperf(server, data, *LOAD, "-l", str(seconds / 3), "-v")
        self.p99.append(_p99([float(line.rsplit(" ", 1)[1]) for line in said.splitlines() if line[:2] == "> "]) * MICRO)
        self.lost += int(number("Queries lost", said))
        said = dnsperf(server, data, *ALONE, "-l", str(seconds / 3))
        self.alone.append(number("Average Latency", said) * MICRO)
        self.lost += int(number("Queries lost", said))

    def row(self, name: str) -> str:
        columns = (self.rate, self.twice, self.p99, self.alone)
        rate, twice, p99, alone = (statistics.median(column) for column in columns)
        return f"| {name} | {rate:,.0f} | {twice:,.0f} | {p99:,.0f} | {alone:.0f} | {self.lost} |"


def _p99(values: Iterable[float]) -> float:
    ordered = sorted(values)
    return ordered[int(len(ordered) * 0.99)]


def load_goals(results: dict[str, Result]) -> list[Goal]:
    """How netd-dns should compare with the others that are here."""
    ours = results[NETD]
    rate = statistics.median(ours.rate)
    goals = []
    for name, bound in ((DOCKER, 2.2), (AARDVARK, 1.8), (CEILING, 0.6)):
        if name in results:
            ratio = rate / statistics.median(results[name].rate)
            goals.append(Goal(f"questions/s, × {name}", ratio, bound, most=False))
    if DOCKER in results:
        bound = statistics.median(results[DOCKER].alone)
        goals.append(Goal("one at a time, as Docker", statistics.median(ours.alone), bound, " µs"))
    peers = [statistics.median(results[name].p99) for name in (DOCKER, AARDVARK, DNSMASQ) if name in results]
    goals.append(Goal("99th percentile under load, as the best peer", statistics.median(ours.p99), min(peers), " µs"))
    goals.append(Goal("questions lost", ours.lost, 0))
    return goals


def kernel_goals(results: dict[str, Result]) -> list[Goal]:
    """How the answers from the kernel should compare."""
    ours, bare = results[KERNEL], results[BARE]
    pairs = [(BARE, "one thread", ours.rate, bare.rate, 1.4), (BARE, "two threads", ours.twice, bare.twice, 2.0)]
    if DOCKER in results:
        pairs.insert(0, (DOCKER, "one thread", ours.rate, results[DOCKER].rate, 6.0))
    goals = [
        Goal(f"kernel: questions/s with {threads}, × {name}", _ratio(mine, theirs), bound, most=False)
        for name, threads, mine, theirs, bound in pairs
    ]
    if DOCKER in results:
        bound = statistics.median(results[DOCKER].alone) / 2
        goals.append(Goal("kernel: one at a time, half of Docker's", statistics.median(ours.alone), bound, " µs"))
    return [*goals, Goal("kernel: questions lost", ours.lost, 0)]


def _ratio(ours: list[float], theirs: list[float]) -> float:
    return statistics.median(ours) / statistics.median(theirs)


# ---- forwarding ---------------------------------------------------------------------------------------------


def forwarding(engine: Daemon, server: Server, work: Path, rounds: int) -> Goal:
    """What netd-dns adds to a question that only the upstream can answer: asked in pairs, with it and without."""
    flags = ("-k", "-C", "/dev/null", "--no-resolv", "--no-hosts", "--pid-file=", "--user=root", "--bind-interfaces")
    engine.host.spawn(
        engine.host.outside,
        *("dnsmasq", *flags, f"--listen-address={OUTSIDE_IP}", "--address=/bench.test/198.51.100.7"),
    )
    eventually(lambda: engine.host.listens(engine.host.outside, 53))
    ways = {"through": server, "direct": Server(server.netns, OUTSIDE_IP)}
    added = []
    for turn in range(rounds):
        taken = {}
        for way, target in ways.items():
            data = work / "unique"
            data.write_text("".join(f"{way}-{turn}-{i}.bench.test A\n" for i in range(FORWARDED)))
            said = dnsperf(target, data, *ALONE, "-n", "1")
            taken[way] = number("Average Latency", said) * 1000
        added.append(taken["through"] - taken["direct"])
    return Goal("added to a forwarded, uncached question", statistics.median(added), 0.3, " ms")


# ---- a thousand sandboxes -----------------------------------------------------------------------------------


async def crowd(path: Path, kernel: str) -> list[Goal]:
    """A network of 1,000 sandboxes: from a join to the answer in every one of them."""
    world = World(await Resolver.connect(path, kernel=kernel))
    resolver = world.resolver
    addresses = [ip_address(f"10.9.{i // 250}.{i % 250 + 1}") for i in range(SANDBOXES)]
    members = [Record(f"e{i}", (f"c{i}",), (address,)) for i, address in enumerate(addresses)]
    await resolver.put_network("n", "shop", members)
    clients = [await world.sandbox(f"s{i}", "n") for i in range(SANDBOXES)]
    joins = []
    for turn in range(JOINS):
        start = time.perf_counter()
        await resolver.join("n", Record(f"x{turn}", (f"x{turn}",), (ip_address("10.9.9.9"),)))
        joins.append((time.perf_counter() - start) * 1000)
        # who asks after that gets the new name, in each sandbox at the first try; in turn, five a join
        for client in clients[turn * 5 : turn * 5 + 5]:
            _must_know(client, f"x{turn}")
    for name in (f"x{JOINS - 1}", "c0", f"c{SANDBOXES - 1}"):
        for client in clients:
            _must_know(client, name)
    pid = (await resolver.state()).pid
    memory = _memory(pid)
    await resolver.close()
    os.kill(pid, 15)
    for inside in world.namespaces:
        inside.close()
    what = f"{'kernel: ' if world.in_kernel else ''}join visible in {SANDBOXES:,} sandboxes"
    more = ", maps included" if world.in_kernel else ""
    return [
        Goal(f"{what}, 99th percentile of {JOINS}", _p99(joins), 10, " ms"),
        Goal(f"{what}, slowest of {JOINS}", max(joins), 10, " ms"),
        Goal(f"memory of the resolver with {SANDBOXES:,} sandboxes{more}", memory, 150, " MiB"),
    ]


def _memory(pid: int) -> float:
    """MiB: what is resident of a process, and its BPF maps."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    maps: dict[str, int] = {}
    for path in Path(f"/proc/{pid}/fdinfo").iterdir():
        fields = dict(line.split(":", 1) for line in path.read_text().splitlines() if ":" in line)
        if "map_id" in fields:
            maps[fields["map_id"]] = int(fields["memlock"])
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024 + sum(maps.values()) / MIB


def _must_know(client: Client, name: str) -> None:
    question = b"\x12\x34\1\0\0\1\0\0\0\0\0\0" + bytes((len(name),)) + name.encode() + b"\0\0\1\0\1"
    with client.connected() as sock:
        sock.settimeout(5)
        sock.send(question)
        reply = sock.recv(512)
    if reply[3] & 15 or reply[7] != 1:
        raise SystemExit(f"bench: a sandbox does not know {name}: {reply!r}")


# ---- all of it ----------------------------------------------------------------------------------------------


def measure(rounds: int, seconds: float) -> tuple[dict[str, Result], list[Goal]]:
    """All servers in alternating rounds, then what concerns netd-dns alone."""
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        data = work / "questions"
        data.write_text(questions())
        image = docker_engine.image_file(work)
        servers = {KERNEL: stack.enter_context(netd(image, kernel=True))[1]}
        engine, ours = stack.enter_context(netd(image, kernel=False))
        servers[NETD] = ours
        if docker_engine.version():
            servers[DOCKER] = stack.enter_context(docker(image))[1]
        servers[AARDVARK] = stack.enter_context(aardvark(work))
        servers[DNSMASQ] = stack.enter_context(dnsmasq(work))
        servers[CEILING] = stack.enter_context(ceiling(work, rewritten=True))
        servers[BARE] = stack.enter_context(ceiling(work, rewritten=False))
        servers[BLIND] = stack.enter_context(kernel_ceiling(work))
        results = {name: Result() for name in servers}
        for server in servers.values():
            dnsperf(server, data, *LOAD, "-l", "0.5")  # warms up, and fails early
        for _ in range(rounds):
            for name, server in servers.items():
                results[name].round(server, data, seconds)
        goals = [*kernel_goals(results), *load_goals(results)]
        goals.append(forwarding(engine, ours, work, rounds))
        for kernel in ("on", "off"):
            goals += asyncio.run(crowd(work / f"dns-{kernel}.sock", kernel))
        return results, goals


def versions() -> str:
    """The machine and the programs that were compared."""
    found = [f"Linux {platform.release()}", f"{os.cpu_count()} cores", f"Python {platform.python_version()}"]
    for command in (["dockerd", "--version"], ["/usr/lib/podman/aardvark-dns", "--version"], ["dnsmasq", "--version"]):
        try:
            said = subprocess.run(command, capture_output=True, text=True, check=True, env=NO_PROXY).stdout
        except (OSError, subprocess.CalledProcessError):
            said = f"no {command[0]}"
        found.append(" ".join(said.splitlines()[0].split()[:3]).rstrip(","))
    return ", ".join(found)


def table(results: dict[str, Result], goals: list[Goal], rounds: int, seconds: float) -> str:
    what = f"`python -m bench.dns --rounds {rounds} --seconds {seconds:g}`: medians of {rounds} rounds in turn, all in "
    what += f"one run; 4 clients, 50 questions outstanding; A, AAAA and PTR over 100 names. {versions()}."
    head = "| | questions/s | with two threads | 99th percentile under load, µs | one at a time, µs | lost |\n"
    head += "|---|---:|---:|---:|---:|---:|"
    rows = [result.row(name) for name, result in results.items()]
    return "\n".join([what, "", head, *rows, "", report.compared(goals)])


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line of this process; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.dns", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=3, help="of each measurement under load")
    parser.add_argument("--write", action="store_true", help="put the tables into bench/README.md")
    args = parser.parse_args(arguments)
    report.begin()
    results, goals = measure(args.rounds, args.seconds)
    text = table(results, goals, args.rounds, args.seconds)
    return report.finish(text, [goal.what for goal in goals if not goal.reached], MARK, write=args.write)


if __name__ == "__main__":
    raise SystemExit(main())
