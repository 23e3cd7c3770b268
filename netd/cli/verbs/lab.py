"""`lab`: several hosts on one machine, with a real store, to try global networks on."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from netd.cli.command import Cli, Failure, command
from netd.cli.words import flags, table
from netd.cli.words.flags import Options

if TYPE_CHECKING:
    from netd.lab.lab import Plan
    from netd.lab.topology import Machine


def _limited(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        number = flags.parse_int(text)
        if not low <= number <= high:
            raise ValueError(f"it must be {low} to {high}")
        return number

    return parse


def _nodes(text: str) -> int:
    if text not in ("1", "3"):
        raise ValueError("a store has 1 or 3 nodes")
    return int(text)


def _store(text: str) -> str:
    if text not in ("etcd", "consul", "zookeeper"):
        raise ValueError("it must be etcd, consul or zookeeper")
    return text


@command(
    "[OPTIONS]",
    (0, 0),
    flags.value("hosts", "", "Number of hosts (default 3); a lab that is up can grow", "int", _limited(1, 99), 3),
    flags.value("store", "", "Kind of store: etcd, consul or zookeeper (default etcd)", "string", _store, "etcd"),
    flags.value("nodes", "", "Members of the store: 1 or 3 (default 1)", "int", _nodes, 1),
    flags.value("mtu", "", "MTU between the hosts (default 1500)", "int", _limited(1280, 65535), 1500),
)
def up(cli: Cli, options: Options, arguments: list[str]) -> int:
    with _told():
        from netd.lab import lab

        lab.up(_plan(options))
    return _show(cli)


@command("", (0, 0))
def status(cli: Cli, options: Options, arguments: list[str]) -> int:
    return _show(cli)


@command("N", (1, 1))
def env(cli: Cli, options: Options, arguments: list[str]) -> int:
    with _told():
        from netd.lab import lab, topology

        machine = lab.find(arguments[0])
        if not machine.runs_netd:
            raise topology.LabError(f"{machine.name} runs no netd: name a host")
        for name, value in _variables(machine).items():
            cli.print(f"export {name}={value}")
    return 0


@command("N -- COMMAND [ARG...]", (2, None), interspersed=False)
def exec_(cli: Cli, options: Options, arguments: list[str]) -> int:
    number, *words = arguments
    if words[0] == "--":
        words = words[1:]
    if not words:
        raise Failure("say what to run: netd lab exec N -- COMMAND [ARG...]")
    with _told():
        from netd.lab import lab, topology

        machine = lab.find(number)
        topology.must_be_there(machine)
        inside = machine.inside(*words)
        # this netd is found even where it is not on the PATH
        path = f"{os.environ.get('PATH', os.defpath)}:{Path(sys.executable).parent}"
        variables = _variables(machine) if machine.runs_netd else {}
        os.execvpe(inside[0], inside, {**os.environ, "PATH": path, **variables})


@command("N|store1|leader", (1, 1))
def cut(cli: Cli, options: Options, arguments: list[str]) -> int:
    with _told():
        from netd.lab import lab, topology

        topology.set_cable(lab.find(arguments[0]), plugged=False)
    return 0


@command("N|store1", (1, 1))
def heal(cli: Cli, options: Options, arguments: list[str]) -> int:
    with _told():
        from netd.lab import lab

        lab.heal(lab.find(arguments[0]))
    return 0


@command("N|store1|leader", (1, 1))
def kill(cli: Cli, options: Options, arguments: list[str]) -> int:
    with _told():
        from netd.lab import lab

        lab.kill(lab.find(arguments[0]))
    return 0


@command("", (0, 0))
def down(cli: Cli, options: Options, arguments: list[str]) -> int:
    with _told():
        from netd.lab import lab

        lab.down()
    return 0


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Errors of the lab as errors of the verb; nothing of it works without root."""
    from netd.lab.topology import LabError

    if os.geteuid() != 0:
        raise Failure("the lab makes namespaces and runs containers: run this as root")
    try:
        yield
    except (LabError, OSError) as error:
        raise Failure(str(error)) from error


def _plan(options: Options) -> Plan:
    """What the flags say; what they leave open stays as it is in a lab that is up."""
    from netd.lab import lab, topology

    names = ("hosts", "store", "nodes", "mtu")
    try:
        now = lab.read()
    except topology.LabError:
        now = lab.Plan()
    given = {name: getattr(options, name) if options.changed(name) else getattr(now, name) for name in names}
    return lab.Plan(**given)


def _show(cli: Cli) -> int:
    with _told():
        from netd.lab import lab

        lines = ["\t".join(row) for row in (("NAME", "ADDRESS", "STATE", "RUNS"), *lab.status())]
    cli.print(table.align(lines).rstrip("\n"))
    return 0


def _variables(host: Machine) -> dict[str, str]:
    from netd.lab import lab

    return {"DOCKER_HOST": lab.url(host), "NETD_HOST": lab.url(host)}
