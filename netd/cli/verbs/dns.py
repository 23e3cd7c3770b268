"""`netd dns`: what containers can resolve, why, and what they ask."""

from __future__ import annotations

import json
import sys
from typing import Any

from netd.cli.command import Cli, Failure, command
from netd.cli.verbs.network import FORMAT_HELP
from netd.cli.words import flags
from netd.cli.words.flags import Options
from netd.cli.words.table import align
from netd.client.api import json_lines

_FORMAT = flags.string("format", "", 'Format of the output ("text", "json")', default="text")


@command(
    "[OPTIONS] NETWORK NAME TYPE DATA...",
    (4, None),
    flags.integer("ttl", "", "Time to live in seconds (default: the network's)", default=-1)._replace(shown_default=""),
)
def add(cli: Cli, options: Options, arguments: list[str]) -> int:
    network, name, kind, *data = arguments
    ttl = options.ttl if options.changed("ttl") else None
    body = {"Name": name, "Type": kind, "Data": " ".join(data), "TTL": ttl}
    cli.client.post(f"/netd/dns/records/{network}", body=body)
    return 0


@command("[OPTIONS] NETWORK", (1, 1), flags.string("format", "", FORMAT_HELP))
def ls(cli: Cli, options: Options, arguments: list[str]) -> int:
    from netd.cli.template import Row
    from netd.cli.words.table import write

    rows = [
        Row(
            "recordContext",
            Name=found["Name"],
            TTL="" if found["TTL"] is None else found["TTL"],
            Type=found["Type"],
            Data=found["Data"],
        )
        for found in cli.client.get(f"/netd/dns/records/{arguments[0]}")
    ]
    titles = {"Name": "NAME", "TTL": "TTL", "Type": "TYPE", "Data": "DATA"}
    write(rows, titles, options.format, default="table {{.Name}}\t{{.TTL}}\t{{.Type}}\t{{.Data}}")
    return 0


@command("NETWORK NAME [TYPE]", (2, 3))
def rm(cli: Cli, options: Options, arguments: list[str]) -> int:
    network, name, *kind = arguments
    cli.client.delete(f"/netd/dns/records/{network}", {"name": name, "type": "".join(kind)})
    return 0


@command(
    "[OPTIONS] NAME",
    (1, 1),
    _FORMAT,
    flags.string("from", "", "The container or attached namespace that asks"),
    flags.string("type", "t", "Record type", default="A"),
)
def explain(cli: Cli, options: Options, arguments: list[str]) -> int:
    asker = getattr(options, "from")
    if not asker:
        raise Failure("what a name means depends on who asks: add --from CONTAINER")
    query = {"name": arguments[0], "type": options.type, "from": asker}
    found = cli.client.get("/netd/dns/explain", query)
    cli.print(json.dumps(found) if _is_json(options) else _explained(found, asker))
    return 0


def _explained(found: dict[str, Any], asker: str) -> str:
    steps = [
        f"{'->' if step['Answers'] else ''}\t{number}\t{step['Rule']}\t{step['Outcome']}"
        for number, step in enumerate(found["Steps"], 1)
    ]
    sources = {"local": "netd itself", "upstream": "a server upstream", "none": "nobody"}
    lines = [
        f"{found['Name']} {found['Type']}, asked by {asker}, is answered by {sources[found['Source']]}:",
        *found["Records"],
        "",
        align([" \tSTEP\tRULE\tOUTCOME", *steps]).rstrip("\n"),
    ]
    return "\n".join(lines)


@command(
    "[OPTIONS] [CONTAINER]",
    (0, 1),
    flags.boolean("follow", "f", "Go on until interrupted, instead of for one second"),
    _FORMAT,
)
def log(cli: Cli, options: Options, arguments: list[str]) -> int:
    as_json = _is_json(options)
    query = {"follow": options.follow, "container": "".join(arguments)}
    for line in json_lines(cli.client.stream("GET", "/netd/dns/log", query)):
        sys.stdout.write(f"{json.dumps(line) if as_json else _logged(line)}\n")
        sys.stdout.flush()
    return 0


def _logged(entry: dict[str, Any]) -> str:
    return (
        f"{entry['Time']} {entry['Container']} {entry['Client']} {entry['Transport']} {entry['Name']} {entry['Type']} "
        f"{entry['Rcode']} {entry['Records']} {entry['Source']} {entry['Latency'] * 1000:.3f}ms"
    )


def _is_json(options: Options) -> bool:
    if options.format not in ("text", "json"):
        raise Failure(f"unknown format {options.format}: use text or json")
    return bool(options.format == "json")
