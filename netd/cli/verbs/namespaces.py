"""`attach` and `detach` of network namespaces that netd did not start."""

from __future__ import annotations

import os
from typing import Any

from netd.cli.command import Arity, Cli, Failure, arity_error, command
from netd.cli.verbs import session
from netd.cli.verbs.network import FORMAT_HELP
from netd.cli.words import flags, values
from netd.cli.words.flags import Options

_NETNS_DIRECTORY = "/run/netns"  # where ip-netns(8) keeps its namespaces
_DNS_OPTION = flags.listing("dns-option", "", "Set DNS options")


@command(
    "[OPTIONS] CONTAINER | --netns PATH --name NAME [OPTIONS] | --pid PID --name NAME [OPTIONS] | --list",
    (0, 1),
    *session.attach.flags,
    flags.listing("alias", "", "Add network-scoped alias for the namespace"),
    flags.listing("dns", "", "Set custom DNS servers"),
    _DNS_OPTION,
    _DNS_OPTION.alias("dns-opt"),
    flags.listing("dns-route", "", "Ask a server for the names of a domain (domain=server)"),
    flags.listing("dns-search", "", "Set custom DNS search domains", values.dns_search),
    flags.string("format", "", FORMAT_HELP),
    flags.boolean("list", "l", "List the attached namespaces"),
    flags.string("name", "", "Name of the attached namespace"),
    flags.string("netns", "", "Attach the network namespace at this path, or of this name under `ip netns`"),
    flags.listing("network", "", "Attach the namespace to a network"),
    flags.integer("pid", "", "Attach the network namespace of this process"),
)
def attach(cli: Cli, options: Options, arguments: list[str]) -> int:
    """A container's streams, as Docker's verb; with --netns or --pid a namespace."""
    if options.list:
        return _list(cli, options)
    if not (options.netns or options.pid):
        wrong = arity_error(cli.path, session.attach._replace(arity=Arity(1, 1)), len(arguments))
        if wrong is not None:
            raise Failure(wrong)
        return session.attach.run(cli, options, arguments)
    if arguments:
        raise Failure(f"a namespace is attached, not a container: leave out {arguments[0]}")
    if not options.name:
        raise Failure("an attached namespace needs a name: add --name NAME")
    _tell(cli, options, cli.client.post("/netd/sandboxes", body=_body(options)))
    return 0


def _body(options: Options) -> dict[str, Any]:
    return {
        "Name": options.name,
        "Netns": _path(options.netns),
        "Pid": options.pid,
        "Networks": options.network,
        "Aliases": options.alias,
        "Dns": options.dns,
        "DnsSearch": options.dns_search,
        "DnsOptions": options.dns_option,
        "DnsRoutes": options.dns_route,
    }


def _path(netns: str) -> str:
    return os.path.join(_NETNS_DIRECTORY, netns) if netns and "/" not in netns else netns and os.path.abspath(netns)


def _tell(cli: Cli, options: Options, found: dict[str, Any]) -> None:
    for network, addresses in found["Networks"].items():
        cli.print(f"{found['Name']} is on network {network} as {', '.join(addresses)}")
    if not found["Nameserver"]:
        return
    line = f"nameserver {found['Nameserver']}"
    directory, name = os.path.split(found["Netns"])
    if directory in (_NETNS_DIRECTORY, "/var/run/netns"):
        cli.print(
            f"It resolves names at `{line}`; for `ip netns exec {name}`:\n"
            f"  mkdir -p /etc/netns/{name} && echo '{line}' >/etc/netns/{name}/resolv.conf"
        )
    else:
        cli.print(f"It resolves names at `{line}`: that line belongs in its /etc/resolv.conf")


def _list(cli: Cli, options: Options) -> int:
    from netd.cli.template import Row
    from netd.cli.words.table import write

    rows = [
        Row(
            "namespaceContext",
            ID=found["Id"][:12],
            Name=found["Name"],
            Netns=found["Netns"],
            Networks=", ".join(f"{name}={'/'.join(addresses)}" for name, addresses in found["Networks"].items()),
        )
        for found in cli.client.get("/netd/sandboxes")
    ]
    titles = {"ID": "ID", "Name": "NAME", "Netns": "NETNS", "Networks": "NETWORKS"}
    write(rows, titles, options.format, default="table {{.ID}}\t{{.Name}}\t{{.Netns}}\t{{.Networks}}")
    return 0


@command("NAME [NAME...]", (1, None))
def detach(cli: Cli, options: Options, arguments: list[str]) -> int:
    return cli.each(arguments, lambda name: cli.client.delete(f"/netd/sandboxes/{name}"))
