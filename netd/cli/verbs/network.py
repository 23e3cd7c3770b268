"""`netd network`: create, ls, connect, disconnect, rm, prune."""

from __future__ import annotations

import sys
from typing import Any

from netd.cli.command import Cli, Failure, command
from netd.cli.words import flags
from netd.cli.words.flags import Options
from netd.cli.words.values import link, validate_label
from netd.client.api import ApiError, version_key

_FORMAT = "Format output using a custom template:\n"
FORMAT_HELP = (
    _FORMAT + "'table':            Print output in table format with column headers (default)\n"
    "'table TEMPLATE':   Print output in table format using the given Go template\n"
    "'json':             Print in JSON format\n"
    "'TEMPLATE':         Print output using the given Go template.\n"
    "Refer to https://docs.docker.com/go/formatting/ for more information about formatting output with templates"
)

_PRUNE_WARNING = "This will remove all custom networks not used by at least one container."


@command(
    "[OPTIONS] NETWORK",
    (1, 1),
    flags.boolean("attachable", "", "Enable manual container attachment"),
    flags.mapping("aux-address", "", "Auxiliary IPv4 or IPv6 addresses used by Network driver"),
    flags.string("config-from", "", "The network from which to copy the configuration"),
    flags.boolean("config-only", "", "Create a configuration only network"),
    flags.string("driver", "d", "Driver to manage the Network", default="bridge"),
    flags.strings("gateway", "", "IPv4 or IPv6 Gateway for the master subnet"),
    flags.boolean("ingress", "", "Create swarm routing-mesh network"),
    flags.boolean("internal", "", "Restrict external access to the network"),
    flags.strings("ip-range", "", "Allocate container ip from a sub-range"),
    flags.string("ipam-driver", "", "IP Address Management Driver", default="default"),
    flags.mapping("ipam-opt", "", "Set IPAM driver specific options"),
    flags.boolean("ipv4", "", "Enable or disable IPv4 address assignment", default=True),
    flags.boolean("ipv6", "", "Enable or disable IPv6 address assignment"),
    flags.listing("label", "", "Set metadata on a network", validate_label),
    flags.mapping("opt", "o", "Set driver specific options"),
    flags.string("scope", "", "Control the network's scope"),
    flags.strings("subnet", "", "Subnet in CIDR format that represents a network segment"),
)
def create(cli: Cli, options: Options, arguments: list[str]) -> int:
    pools = ipam_pools(options.subnet, options.ip_range, options.gateway, options.aux_address)
    body: dict[str, Any] = {
        "Name": arguments[0],
        "Driver": options.driver,
        "Scope": options.scope,
        "IPAM": {"Driver": options.ipam_driver, "Options": options.ipam_opt, "Config": pools},
        "Internal": options.internal,
        "Attachable": options.attachable,
        "Ingress": options.ingress,
        "ConfigOnly": options.config_only,
        "ConfigFrom": {"Network": options.config_from} if options.config_from else None,
        "Options": options.opt,
        "Labels": dict(label.partition("=")[::2] for label in options.label),
    }
    for family in ("ipv4", "ipv6"):
        if options.changed(family):
            body[f"EnableIP{family[2:]}"] = getattr(options, family)
    if version_key(cli.client.version) < (1, 44):
        body["CheckDuplicate"] = True  # later daemons always do
    answer = cli.client.post("/networks/create", body=body)
    if answer.get("Warning"):
        cli.warn(f"WARNING: {answer['Warning']}")
    cli.print(answer["Id"])
    return 0


def ipam_pools(subnets: list[str], ranges: list[str], gateways: list[str], aux: dict[str, str]) -> list[dict[str, Any]]:
    """One pool for each subnet, with the range, gateway and auxiliary addresses that lie in it."""
    if len(subnets) < max(len(ranges), len(gateways)):
        raise Failure("every ip-range or gateway must have a corresponding subnet")
    pools: dict[str, dict[str, Any]] = {}
    for subnet in subnets:
        if any(_inside(subnet, other) or _inside(other, subnet) for other in pools):
            raise Failure("multiple overlapping subnet configuration is not supported")
        pools[subnet] = {"Subnet": subnet}
    for given in ranges:
        _once(_pool_of(pools, given, "range"), "IPRange", given, "ranges")
    for given in gateways:
        _once(_pool_of(pools, given, "gateway"), "Gateway", given, "gateways")
    for name, given in aux.items():
        _pool_of(pools, given, "aux-address").setdefault("AuxiliaryAddresses", {})[name] = given
    return list(pools.values())


def _pool_of(pools: dict[str, dict[str, Any]], address: str, what: str) -> dict[str, Any]:
    for subnet, pool in pools.items():
        if _inside(subnet, address):
            return pool
    raise Failure(f"no matching subnet for {what} {address}")


def _once(pool: dict[str, Any], key: str, given: str, plural: str) -> None:
    if key in pool:
        raise Failure(
            f"cannot configure multiple {plural} ({given}, {pool[key]}) for the same subnet ({pool['Subnet']})"
        )
    pool[key] = given


def _inside(subnet: str, address: str) -> bool:
    """Whether an address, or the first address of a range, lies in the subnet; malformed ones lie nowhere."""
    from ipaddress import ip_address, ip_network

    try:
        network = ip_network(subnet, strict=False)
        first = ip_address(address.partition("/")[0])
    except ValueError:
        return False
    return first.version == network.version and first in network


@command(
    "[OPTIONS]",
    (0, 0),
    flags.filters(usage='Provide filter values (e.g. "driver=bridge")'),
    flags.string("format", "", FORMAT_HELP),
    flags.boolean("no-trunc", "", "Do not truncate the output"),
    flags.boolean("quiet", "q", "Only display network IDs"),
)
def ls(cli: Cli, options: Options, arguments: list[str]) -> int:
    from netd.cli.template import Row
    from netd.cli.words.table import write

    networks = cli.client.get("/networks", {"filters": options.filter})
    networks.sort(key=lambda network: _natural(network["Name"]))
    rows = [_row(Row, network, full=options.no_trunc) for network in networks]
    columns = "table {{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}"
    quiet = options.quiet and options.format in ("", "table")
    write(rows, _TITLES, "{{.ID}}" if quiet else options.format, default=columns)
    return 0


_TITLES = {
    "ID": "NETWORK ID",
    "Name": "NAME",
    "Driver": "DRIVER",
    "Scope": "SCOPE",
    "IPv4": "IPV4",
    "IPv6": "IPV6",
    "Internal": "INTERNAL",
    "Labels": "LABELS",
    "CreatedAt": "CREATED AT",
}


def _row(make: Any, network: dict[str, Any], *, full: bool) -> Any:
    labels = network.get("Labels") or {}
    return make(
        "*network.networkContext",
        ID=network["Id"] if full else network["Id"][:12],
        Name=network["Name"],
        Driver=network["Driver"],
        Scope=network["Scope"],
        IPv4=str(network.get("EnableIPv4", False)).lower(),
        IPv6=str(network.get("EnableIPv6", False)).lower(),
        Internal=str(network.get("Internal", False)).lower(),
        Labels=",".join(f"{key}={value}" for key, value in sorted(labels.items())),
        Label=lambda name: labels.get(name, ""),
        CreatedAt=network["Created"].replace("T", " ").replace("Z", " +0000 UTC"),
    )


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Numbers inside names count as numbers: n2 before n10."""
    import re

    return [(0, int(p), "") if p.isdigit() else (1, 0, p) for p in re.findall(r"\d+|\D", name)]


@command(
    "[OPTIONS] NETWORK CONTAINER",
    (2, 2),
    flags.strings("alias", "", "Add network-scoped alias for the container"),
    flags.strings("driver-opt", "", "driver options for the network"),
    flags.integer(
        "gw-priority",
        "",
        _GW_PRIORITY := ("Highest gw-priority provides the default gateway. Accepts positive and negative values."),
    ),
    flags.string("ip", "", 'IPv4 address (e.g., "172.30.100.104")'),
    flags.string("ip6", "", 'IPv6 address (e.g., "2001:db8::33")'),
    flags.listing("link", "", "Add link to another container", link),
    flags.strings("link-local-ip", "", "Add a link-local address for the container"),
)
def connect(cli: Cli, options: Options, arguments: list[str]) -> int:
    driver_opts = {}
    for given in options.driver_opt:
        key, equals, value = given.partition("=")
        if not equals:
            raise Failure("invalid key/value pair format in driver options")
        driver_opts[key.strip()] = value.strip()
    endpoint = {
        "IPAMConfig": {
            "IPv4Address": options.ip,
            "IPv6Address": options.ip6,
            "LinkLocalIPs": options.link_local_ip,
        },
        "Links": options.link,
        "Aliases": options.alias,
        "DriverOpts": driver_opts,
        "GwPriority": options.gw_priority,
    }
    network, container = arguments
    cli.client.post(f"/networks/{network}/connect", body={"Container": container, "EndpointConfig": endpoint})
    return 0


@command(
    "[OPTIONS] NETWORK CONTAINER",
    (2, 2),
    flags.boolean("force", "f", "Force the container to disconnect from a network"),
)
def disconnect(cli: Cli, options: Options, arguments: list[str]) -> int:
    network, container = arguments
    cli.client.post(f"/networks/{network}/disconnect", body={"Container": container, "Force": options.force})
    return 0


@command(
    "NETWORK [NETWORK...]",
    (1, None),
    flags.boolean("force", "f", "Do not error if the network does not exist"),
)
def rm(cli: Cli, options: Options, arguments: list[str]) -> int:
    status = 0
    for name in arguments:
        try:
            cli.client.delete(f"/networks/{name}")
        except ApiError as error:
            if options.force and error.status == 404:
                continue
            cli.warn(error)
            status = 1
        else:
            cli.print(name)
    if status:
        raise Failure("exit status 1", status)
    return 0


@command(
    "[OPTIONS]",
    (0, 0),
    flags.filters("", 'Provide filter values (e.g. "until=<timestamp>")'),
    flags.boolean("force", "f", "Do not prompt for confirmation"),
)
def prune(cli: Cli, options: Options, arguments: list[str]) -> int:
    if not (options.force or confirm(_PRUNE_WARNING)):
        return 0
    removed = cli.client.post("/networks/prune", {"filters": options.filter}).get("NetworksDeleted")
    if removed:
        cli.print("Deleted Networks:\n" + "".join(f"{name}\n" for name in removed))
    return 0


def confirm(warning: str) -> bool:
    """Asks before something that cannot be undone."""
    sys.stdout.write(f"WARNING! {warning}\nAre you sure you want to continue? [y/N] ")
    sys.stdout.flush()
    return sys.stdin.readline().strip().lower() == "y"
