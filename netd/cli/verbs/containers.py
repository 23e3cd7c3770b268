"""Verbs on existing containers: stop, restart, kill, rm, wait, pause, unpause, rename, port, top, prune."""

from __future__ import annotations

from typing import Any

from netd.cli.command import Cli, Failure, command
from netd.cli.words import flags
from netd.cli.words.flags import Options
from netd.cli.words.ports import parse_range
from netd.client.api import ApiError, Unreachable

_MANY = "CONTAINER [CONTAINER...]"
_SIGNAL = flags.string("signal", "s", "Signal to send to the container")
_TIMEOUT = flags.integer("timeout", "t", "Seconds to wait before killing the container")
_PRUNE_WARNING = "This will remove all stopped containers."


@command(f"[OPTIONS] {_MANY}", (1, None), _SIGNAL, _TIMEOUT, _TIMEOUT.alias("time"))
def stop(cli: Cli, options: Options, arguments: list[str]) -> int:
    return _end(cli, options, arguments, "stop")


@command(f"[OPTIONS] {_MANY}", (1, None), _SIGNAL, _TIMEOUT, _TIMEOUT.alias("time"))
def restart(cli: Cli, options: Options, arguments: list[str]) -> int:
    return _end(cli, options, arguments, "restart")


def _end(cli: Cli, options: Options, names: list[str], verb: str) -> int:
    query = {"signal": options.signal, "t": options.timeout if options.changed("timeout") else None}
    return cli.each(names, lambda name: cli.client.post(f"/containers/{name}/{verb}", query))


@command(f"[OPTIONS] {_MANY}", (1, None), _SIGNAL)
def kill(cli: Cli, options: Options, arguments: list[str]) -> int:
    query = {"signal": options.signal}
    return cli.each(arguments, lambda name: cli.client.post(f"/containers/{name}/kill", query))


@command(_MANY, (1, None))
def pause(cli: Cli, options: Options, arguments: list[str]) -> int:
    return cli.each(arguments, lambda name: cli.client.post(f"/containers/{name}/pause"))


@command(_MANY, (1, None))
def unpause(cli: Cli, options: Options, arguments: list[str]) -> int:
    return cli.each(arguments, lambda name: cli.client.post(f"/containers/{name}/unpause"))


@command(
    f"[OPTIONS] {_MANY}",
    (1, None),
    flags.boolean("force", "f", "Force the removal of a running container (uses SIGKILL)"),
    flags.boolean("link", "l", "Remove the specified link"),
    flags.boolean("volumes", "v", "Remove anonymous volumes associated with the container"),
)
def rm(cli: Cli, options: Options, arguments: list[str]) -> int:
    query = {
        "force": options.force or None,
        "link": options.link or None,
        "v": options.volumes or None,
    }
    status = 0
    for given in arguments:
        name = given.strip("/")
        try:
            cli.client.delete(f"/containers/{name}", query)
            cli.print(given)
        except (ApiError, Unreachable) as error:
            cli.warn(error)
            gone = isinstance(error, ApiError) and error.status == 404
            status |= not (options.force and gone)
    return status


@command(_MANY, (1, None))
def wait(cli: Cli, options: Options, arguments: list[str]) -> int:
    def one(name: str) -> None:
        cli.print(cli.client.post(f"/containers/{name}/wait")["StatusCode"])

    return cli.each(arguments, one, quiet=True)


@command("CONTAINER NEW_NAME", (2, 2))
def rename(cli: Cli, options: Options, arguments: list[str]) -> int:
    name, wanted = (argument.strip() for argument in arguments)
    if not name or not wanted:
        raise Failure("Error: Neither old nor new names may be empty")
    try:
        cli.client.post(f"/containers/{name}/rename", {"name": wanted})
    except (ApiError, Unreachable) as error:
        cli.warn(error)
        raise Failure(f"Error: failed to rename container named {name}") from error
    return 0


@command("CONTAINER [PRIVATE_PORT[/PROTO]]", (1, 2))
def port(cli: Cli, options: Options, arguments: list[str]) -> int:
    name = arguments[0]
    ports = cli.client.get(f"/containers/{name}/json")["NetworkSettings"]["Ports"] or {}
    if len(arguments) == 1:
        for published in sorted(ports, key=_port_order):
            for binding in ports[published] or ():
                cli.print(f"{published} -> {_address(binding)}")
        return 0
    wanted = arguments[1]
    number, _, proto = wanted.partition("/")
    try:
        parse_range(number)
    except ValueError as error:
        raise Failure(f"Error: invalid port ({number}): {error}") from error
    bindings = ports.get(f"{number}/{proto or 'tcp'}")
    if not bindings:
        raise Failure(f"Error: No public port '{wanted}' published for {name}")
    for binding in bindings:
        cli.print(_address(binding))
    return 0


def _address(binding: dict[str, str]) -> str:
    host = binding["HostIp"]
    return f"[{host}]:{binding['HostPort']}" if ":" in host else f"{host}:{binding['HostPort']}"


def _port_order(text: str) -> tuple[int, str]:
    number, _, proto = text.partition("/")
    return int(number), proto


@command("CONTAINER [ps OPTIONS]", (1, None), interspersed=False)
def top(cli: Cli, options: Options, arguments: list[str]) -> int:
    name, *ps_arguments = arguments
    found = cli.client.get(f"/containers/{name}/top", {"ps_args": " ".join(ps_arguments)})
    for row in [found["Titles"], *(found["Processes"] or ())]:
        cli.print("".join(_padded(cell) for cell in row[:-1]) + row[-1])
    return 0


def _padded(cell: str) -> str:
    return cell.ljust(max(len(cell) + 3, 20))


@command(
    "[OPTIONS]",
    (0, 0),
    flags.filters("", 'Provide filter values (e.g. "until=<timestamp>")'),
    flags.boolean("force", "f", "Do not prompt for confirmation"),
)
def prune(cli: Cli, options: Options, arguments: list[str]) -> int:
    from netd.cli.verbs.network import confirm
    from netd.cli.words.units import human_size

    if not (options.force or confirm(_PRUNE_WARNING)):
        return 0
    answer: dict[str, Any] = cli.client.post("/containers/prune", {"filters": options.filter})
    if answer.get("ContainersDeleted"):
        cli.print("Deleted Containers:\n" + "".join(f"{name}\n" for name in answer["ContainersDeleted"]))
    cli.print(f"Total reclaimed space: {human_size(answer.get('SpaceReclaimed', 0), 4)}")
    return 0
