"""`hosts`: the machines of the cluster."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import quote

from netd.cli.command import Cli, command
from netd.cli.verbs.inspect import FORMAT, inspect_all
from netd.cli.verbs.network import FORMAT_HELP
from netd.cli.words import flags
from netd.cli.words.flags import Options

_COLUMNS = {
    "Name": "HOST",
    "Address": "ADDRESS",
    "Version": "VERSION",
    "Up": "UP",
    "Endpoints": "ENDPOINTS",
    "Seen": "SEEN",
    "State": "STATE",
}
_TABLE = "table {{.Name}}\t{{.Address}}\t{{.Version}}\t{{.Up}}\t{{.Endpoints}}\t{{.Seen}}\t{{.State}}"


@command("[OPTIONS]", (0, 0), flags.string("format", "", FORMAT_HELP))
def hosts(cli: Cli, options: Options, arguments: list[str]) -> int:
    from netd.cli.template import Row
    from netd.cli.words.table import write

    rows = [Row("hostContext", **_row(found)) for found in cli.client.get("/netd/hosts")]
    write(rows, _COLUMNS, options.format, default=_TABLE)
    return 0


@command("[OPTIONS] HOST [HOST...]", (1, None), FORMAT)
def inspect(cli: Cli, options: Options, arguments: list[str]) -> int:
    return inspect_all(options.format, arguments, lambda name: cli.client.get(f"/netd/hosts/{quote(name, safe='')}"))


def _row(host: dict[str, Any]) -> dict[str, str]:
    return {
        "Name": host["Name"] + (" *" if host["Self"] else ""),
        "Address": host["Address"],
        "Version": host["Version"],
        "Up": _since(host["Started"]),
        "Endpoints": str(host["Endpoints"]),
        "Seen": "now" if host["Self"] else f"{_since(host['LastSeen'])} ago" if host["LastSeen"] else "never",
        "State": host["Problem"] or "ok",
    }


def _since(moment: str) -> str:
    from datetime import datetime

    from netd.cli.words.units import human_duration

    return human_duration(time.time() - datetime.fromisoformat(moment).timestamp())
