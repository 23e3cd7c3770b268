"""`make bench`: what netd and a real Docker engine take for the same requests, in alternating rounds.

python -m bench [--rounds N] [--write]   --write puts the table into bench/README.md
python -m bench dns ...                  names: see bench/dns.py
python -m bench overlay ...              containers of two hosts: see bench/overlay.py
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import dns, docker_engine, overlay, report
from tests.daemon.harness import NETD, Daemon, Host, run
from tests.unix_http import UnixConnection

MARK = "<!-- written by `make bench ARGS=--write` -->"
PORTS = {f"{8000 + n}/tcp": [{"HostPort": str(20000 + n)}] for n in range(50)}


class Client:
    """Requests over one kept connection, as a program that drives an engine would send them."""

    def __init__(self, engine: Daemon) -> None:
        self.engine = engine
        self.connection = UnixConnection(engine.socket)

    def send(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body)
        self.connection.request(method, path, data, {"Content-Type": "application/json"})
        reply = self.connection.getresponse()
        content = reply.read()
        if reply.status >= 300:
            raise SystemExit(f"bench: {method} {path} gave {reply.status}: {content.decode()}")
        return json.loads(content) if content else None


Measure = Callable[[Client], float]


@contextmanager
def stopwatch() -> Iterator[list[float]]:
    """Puts the seconds its block took into the list it gives."""
    taken: list[float] = []
    start = time.perf_counter()
    yield taken
    taken.append(time.perf_counter() - start)


def network_create(client: Client) -> float:
    with stopwatch() as taken:
        identity = client.send("POST", "/networks/create", {"Name": "bench-new"})["Id"]
    client.send("DELETE", f"/networks/{identity}")
    return taken[0]


def network_remove(client: Client) -> float:
    identity = client.send("POST", "/networks/create", {"Name": "bench-new"})["Id"]
    with stopwatch() as taken:
        client.send("DELETE", f"/networks/{identity}")
    return taken[0]


def container(client: Client, command: list[str], **host: Any) -> str:
    exposed: dict[str, Any] = {port: {} for port in host.get("PortBindings", ())}
    body = {"Image": "busybox", "Cmd": command, "ExposedPorts": exposed, "HostConfig": {"NetworkMode": "bench", **host}}
    return str(client.send("POST", "/containers/create", body)["Id"])


def whole_life(client: Client) -> float:
    with stopwatch() as taken:
        identity = container(client, ["true"])
        client.send("POST", f"/containers/{identity}/start")
        client.send("POST", f"/containers/{identity}/wait")
        client.send("DELETE", f"/containers/{identity}")
    return taken[0]


def start_with_ports(client: Client) -> float:
    identity = container(client, ["sleep", "1000"], PortBindings=PORTS)
    with stopwatch() as taken:
        client.send("POST", f"/containers/{identity}/start")
    client.send("DELETE", f"/containers/{identity}?force=1")
    return taken[0]


def connect(client: Client) -> float:
    with stopwatch() as taken:
        client.send("POST", "/networks/bench-other/connect", {"Container": "bench-idle"})
    client.send("POST", "/networks/bench-other/disconnect", {"Container": "bench-idle"})
    return taken[0]


def docker_cli(client: Client) -> float:
    with stopwatch() as taken:
        client.engine.docker("network", "ls")
    return taken[0]


def own_cli(client: Client) -> float:
    """Each engine's own command: `netd network ls` for netd."""
    command = "docker" if isinstance(client.engine, docker_engine.DockerEngine) else NETD
    with stopwatch() as taken:
        run(command, "network", "ls", env=client.engine.environment)
    return taken[0]


MEASURES: dict[str, tuple[Measure, float | None]] = {
    "network create": (network_create, 1 / 4),
    "network remove": (network_remove, None),
    "create, start, wait, remove of `true` on a user network": (whole_life, 1 / 2),
    "start with 50 published ports": (start_with_ports, 1 / 10),
    "network connect of a running container": (connect, None),
    "`network ls`, each with its own CLI": (own_cli, None),
    "`docker network ls` against each": (docker_cli, None),
}


@dataclass
class Result:
    """Seconds a round, per engine."""

    name: str
    goal: float | None
    netd: list[float] = field(default_factory=list)
    docker: list[float] = field(default_factory=list)

    def row(self) -> str:
        ours = statistics.median(self.netd) * 1000
        if not self.docker:
            return f"| {self.name} | {ours:.1f} ms | - | - | - |"
        theirs = statistics.median(self.docker) * 1000
        goal = "" if self.goal is None else f"at most {self.goal:.2f}"
        return f"| {self.name} | {ours:.1f} ms | {theirs:.1f} ms | {ours / theirs:.2f} | {goal} |"

    @property
    def reached(self) -> bool:
        if self.goal is None or not self.docker:
            return True
        return statistics.median(self.netd) <= self.goal * statistics.median(self.docker)


def prepare(engine: Daemon, image: Path) -> Client:
    engine.start()
    engine.import_image(image)
    client = Client(engine)
    for name in ("bench", "bench-other"):
        client.send("POST", "/networks/create", {"Name": name})
    idle = {"Image": "busybox", "Cmd": ["sleep", "1000"], "HostConfig": {"NetworkMode": "bench"}}
    client.send("POST", "/containers/create?name=bench-idle", idle)
    client.send("POST", "/containers/bench-idle/start")
    return client


def measure(rounds: int) -> list[Result]:
    """All measures on both engines; the rounds alternate, so that what else the machine does meets both."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        image = docker_engine.image_file(folder)
        clients: dict[str, Client] = {}
        kinds = {"netd": Daemon, "docker": docker_engine.DockerEngine}
        if not docker_engine.version():
            print(
                "bench: no dockerd here, so netd is measured alone (`scripts/setup bench` installs one)",
                file=sys.stderr,
            )
            del kinds["docker"]
        for name, kind in kinds.items():
            host = Host(f"bench-{name}")
            stack.callback(host.remove)
            host.make()
            engine = kind(host)
            stack.callback(engine.remove)
            clients[name] = prepare(engine, image)
        results = []
        for title, (function, goal) in MEASURES.items():
            result = Result(title, goal)
            for number in range(rounds + 1):
                for name, client in clients.items():
                    taken = function(client)
                    if number:  # the first round only warms up
                        getattr(result, name).append(taken)
            print(result.row(), file=sys.stderr)
            results.append(result)
        return results


def table(results: list[Result], rounds: int) -> str:
    what = f"Medians of {rounds} rounds, both engines in one run, over the API; Linux {platform.release()}, "
    what += f"{os.cpu_count()} cores; {docker_engine.version() or 'no Docker engine'}."
    head = "| | netd | Docker | ratio | goal |\n|---|---:|---:|---:|---:|"
    return "\n".join([what, "", head, *(result.row() for result in results)])


def main() -> int:
    if sys.argv[1:2] == ["dns"]:
        return dns.main(sys.argv[2:])
    if sys.argv[1:2] == ["overlay"]:
        return overlay.main(sys.argv[2:])
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--write", action="store_true", help="put the table into bench/README.md")
    arguments = parser.parse_args()
    report.begin()
    results = measure(arguments.rounds)
    text = table(results, arguments.rounds)
    missed = [result.name for result in results if not result.reached]
    return report.finish(text, missed, MARK, write=arguments.write)


if __name__ == "__main__":
    raise SystemExit(main())
