"""`ps`: the list of containers."""

from __future__ import annotations

import json
import time
from typing import Any

from netd.cli.command import Cli, command
from netd.cli.template import Row
from netd.cli.verbs.network import FORMAT_HELP
from netd.cli.words import flags
from netd.cli.words.flags import Options
from netd.cli.words.table import write
from netd.cli.words.units import created_at, human_duration, human_size

_COLUMNS = "table {{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}"
_TITLES = {
    "ID": "CONTAINER ID",
    "Names": "NAMES",
    "Image": "IMAGE",
    "Command": "COMMAND",
    "CreatedAt": "CREATED AT",
    "RunningFor": "CREATED",
    "Ports": "PORTS",
    "State": "STATE",
    "Status": "STATUS",
    "Size": "SIZE",
    "Labels": "LABELS",
    "Mounts": "MOUNTS",
    "LocalVolumes": "LOCAL VOLUMES",
    "Networks": "NETWORKS",
    "Platform": "PLATFORM",
}


@command(
    "[OPTIONS]",
    (0, 0),
    flags.boolean("all", "a", "Show all containers (default shows just running)"),
    flags.filters(usage="Filter output based on conditions provided"),
    flags.string("format", "", FORMAT_HELP),
    flags.integer("last", "n", "Show n last created containers (includes all states)", default=-1),
    flags.boolean("latest", "l", "Show the latest created container (includes all states)"),
    flags.boolean("no-trunc", "", "Don't truncate output"),
    flags.boolean("quiet", "q", "Only display container IDs"),
    flags.boolean("size", "s", "Display total file sizes"),
)
def ps(cli: Cli, options: Options, arguments: list[str]) -> int:
    limit = 1 if options.latest and options.last == -1 else options.last
    sized = options.size or ".Size" in options.format
    query = {
        "all": options.all or None,
        "limit": limit if limit > 0 else None,
        "size": sized or None,
        "filters": options.filter,
    }
    now = time.time()
    containers = cli.client.get("/containers/json", query)
    rows = [_row(container, now, full=options.no_trunc, sized=sized) for container in containers]
    if options.quiet and options.format:
        cli.warn("WARNING: Ignoring custom format, because both --format and --quiet are set.")
    columns = _COLUMNS + ("\t{{.Size}}" if options.size else "")
    write(
        rows,
        _TITLES,
        "{{.ID}}" if options.quiet else options.format,
        default=columns,
        error="failed to execute template: " if options.format and not options.changed("size") else "",
    )
    return 0


def _row(container: dict[str, Any], now: float, *, full: bool, sized: bool) -> Row:
    labels = container.get("Labels") or {}
    names = [name.removeprefix("/") for name in container.get("Names") or ()]
    names = names if full else [name for name in names if "/" not in name]
    mounts = [mount.get("Name") or mount.get("Source", "") for mount in container.get("Mounts") or ()]
    volumes = sum(mount.get("Driver") == "local" for mount in container.get("Mounts") or ())
    networks = (container.get("NetworkSettings") or {}).get("Networks") or {}
    return Row(
        "*formatter.ContainerContext",
        ID=container["Id"] if full else container["Id"][:12],
        Names=",".join(names),
        Image=_image(container, full=full),
        Command=json.dumps(_ellipsis(container.get("Command", ""), 20, full=full), ensure_ascii=False),
        CreatedAt=created_at(container["Created"]),
        RunningFor=f"{human_duration(now - container['Created'])} ago",
        Ports=display_ports(container.get("Ports") or []),
        State=container.get("State", ""),
        Status=container.get("Status", ""),
        Size=_size(container) if sized else _size({}),
        Labels=",".join(f"{key}={value}" for key, value in sorted(labels.items())),
        Label=lambda name: labels.get(name, ""),
        Mounts=",".join(_ellipsis(mount, 15, full=full) for mount in mounts),
        LocalVolumes=str(volumes),
        Networks=",".join(sorted(networks)),
        Platform=None,
    )


def _image(container: dict[str, Any], *, full: bool) -> str:
    image = str(container.get("Image") or "<no image>")
    if full or not container.get("ImageID", "").removeprefix("sha256:").startswith(image.removeprefix("sha256:")):
        return image.partition("@")[0] if not full else image
    return image.removeprefix("sha256:")[:12]


def _ellipsis(text: str, width: int, *, full: bool) -> str:
    return text if full or len(text) <= width else text[: width - 1] + "…"


def _size(container: dict[str, Any]) -> str:
    written, total = container.get("SizeRw", 0), container.get("SizeRootFs", 0)
    return human_size(written) + (f" (virtual {human_size(total)})" if total else "")


def display_ports(ports: list[dict[str, Any]]) -> str:
    """`0.0.0.0:8080->80/tcp`, neighbouring ports of one address as ranges, unpublished ones first."""
    groups: dict[str, tuple[int, int]] = {}
    order: list[str] = []
    published: list[str] = []
    for port in sorted(ports, key=_order):
        number, proto, address = port["PrivatePort"], port["Type"], port.get("IP", "")
        key = proto
        if address:
            shown = f"[{address}]" if ":" in address else address
            if port.get("PublicPort", 0) != number:
                published.append(f"{shown}:{port['PublicPort']}->{number}/{proto}")
                continue
            key = f"{shown}/{proto}"
        if key not in groups:
            order.append(key)
            groups[key] = (number, number)
        elif number == groups[key][1] + 1:
            groups[key] = (groups[key][0], number)
        else:
            published.append(_group(key, *groups[key]))
            groups[key] = (number, number)
    return ", ".join(published + [_group(key, *groups[key]) for key in order])


def _order(port: dict[str, Any]) -> tuple[Any, ...]:
    return port["PrivatePort"], port.get("IP", ""), port.get("PublicPort", 0), port["Type"]


def _group(key: str, low: int, high: int) -> str:
    address, _, proto = key.rpartition("/")
    span = str(low) if low == high else f"{low}-{high}"
    return f"{address}:{span}->{span}/{proto}" if address else f"{span}/{proto}"
