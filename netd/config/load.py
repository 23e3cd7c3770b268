"""Options of `netd daemon`: flags with dockerd's names, and the same keys in daemon.json."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from ipaddress import IPv4Interface, ip_address, ip_network
from pathlib import Path
from typing import Any

from netd import __version__
from netd.config import cluster
from netd.config.servers import split_route
from netd.config.values import DEFAULT_CONFIG_FILE, AddressPool, Config, metrics_address
from netd.core.errors import InvalidParameter

RELOADABLE = frozenset({"debug", "log-level", "labels", "dns", "dns-search", "dns-opts", "dns-routes"})


@dataclass(frozen=True, slots=True)
class _Flag:
    """How one key is written on the command line."""

    names: tuple[str, ...]
    key: str
    help: str
    kind: str = "str"  # str | int | bool | list | map | pools


_FLAGS = (
    _Flag(("-H", "--host"), "hosts", "address to listen on: unix://PATH or tcp://HOST:PORT (repeatable)", "list"),
    _Flag(("--tls",), "tls", "use TLS; implied by --tlsverify", "bool"),
    _Flag(("--tlsverify",), "tlsverify", "use TLS and verify the client's certificate", "bool"),
    _Flag(("--tlscacert",), "tlscacert", "trust certificates signed only by this CA"),
    _Flag(("--tlscert",), "tlscert", "path of the TLS certificate"),
    _Flag(("--tlskey",), "tlskey", "path of the TLS key"),
    _Flag(("--data-root",), "data-root", "root of the persistent state (default /var/lib/netd)"),
    _Flag(("--exec-root",), "exec-root", "root of the run-time state (default /run/netd)"),
    _Flag(("-p", "--pidfile"), "pidfile", "path of the PID file (default EXEC-ROOT/netd.pid)"),
    _Flag(("--bip",), "bip", "address of the default bridge in CIDR notation"),
    _Flag(("--default-address-pool",), "default-address-pools", "base=CIDR,size=N (repeatable)", "pools"),
    _Flag(("--dns",), "dns", "DNS server for containers (repeatable)", "list"),
    _Flag(("--dns-search",), "dns-search", "DNS search domain for containers (repeatable)", "list"),
    _Flag(("--dns-opt",), "dns-opts", "DNS option for containers (repeatable)", "list"),
    _Flag(("--dns-route",), "dns-routes", "DOMAIN=SERVER: ask SERVER for names below DOMAIN (repeatable)", "list"),
    _Flag(("--dns-kernel",), "dns-kernel", "answer names in the kernel: auto (if it can be done), on or off"),
    _Flag(("--mtu",), "mtu", "MTU of the default bridge", "int"),
    _Flag(("--label",), "labels", "key=value label of the daemon (repeatable)", "list"),
    _Flag(("-l", "--log-level"), "log-level", "debug, info, warn or error (default info)"),
    _Flag(("-D", "--debug"), "debug", "same as --log-level=debug", "bool"),
    _Flag(("--log-format",), "log-format", "text or json (default text)"),
    _Flag(("--default-runtime",), "default-runtime", "OCI runtime: crun or runc (default: the first found)"),
    _Flag(("--metrics-addr",), "metrics-addr", "HOST:PORT at which Prometheus finds /metrics (default: nowhere)"),
    _Flag(("--cluster-store",), "cluster-store", "store of global networks: etcd://, consul:// or zk://HOST:PORT,.."),
    _Flag(("--cluster-advertise",), "cluster-advertise", "IFACE|IP[:PORT] at which other hosts reach this one"),
    _Flag(("--cluster-store-opt",), "cluster-store-opts", "KEY=VALUE, as in kv.cacertfile=FILE (repeatable)", "map"),
)
_KINDS = {flag.key: flag.kind for flag in _FLAGS}


def load(argv: Sequence[str]) -> Config:
    """The configuration of this command line and its file; `InvalidParameter` names what is wrong."""
    parser = _parser()
    options = vars(parser.parse_args(argv))
    path = options.pop("config-file")
    given = {key: value for key, value in options.items() if value is not None}
    from_file = read_file(Path(path or DEFAULT_CONFIG_FILE), required=path is not None)
    twice = sorted(given.keys() & from_file.keys())
    if twice:
        told = ", ".join(f"{key}: (from flag: {given[key]}, from file: {from_file[key]})" for key in twice)
        raise InvalidParameter(
            f"unable to configure the daemon with file {path or DEFAULT_CONFIG_FILE}: the following directives "
            f"are specified both as a flag and in the configuration file: {told}"
        )
    return _checked({**from_file, **given}, str(path or DEFAULT_CONFIG_FILE))


def reload(current: Config) -> tuple[Config, list[str]]:
    """The configuration after SIGHUP, and the keys that changed but only take effect at the next start."""
    from_file = read_file(Path(current.config_file), required=False)
    # where the store is given on the command line, what belongs to it may be in the file
    fresh = _checked({"cluster-store": current.cluster_store, **from_file}, current.config_file)
    changes = {
        item.name: getattr(fresh, item.name)
        for item in fields(Config)
        if _key(item.name) in from_file and getattr(fresh, item.name) != getattr(current, item.name)
    }
    late = sorted(_key(name) for name in changes if _key(name) not in RELOADABLE)
    return replace(current, **{k: v for k, v in changes.items() if _key(k) in RELOADABLE}), late


def read_file(path: Path, *, required: bool) -> dict[str, Any]:
    """The keys of a daemon.json; types are checked, unknown keys refused."""
    try:
        text = path.read_text()
    except FileNotFoundError:
        if required:
            raise InvalidParameter(f"cannot read the configuration file {path}: no such file") from None
        return {}
    except OSError as error:
        raise InvalidParameter(f"cannot read the configuration file {path}: {error.strerror}") from error
    try:
        content = json.loads(text) if text.strip() else {}
    except ValueError as error:
        raise InvalidParameter(f"the configuration file {path} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise InvalidParameter(f"the configuration file {path} must hold one JSON object")
    unknown = sorted(content.keys() - _KINDS.keys())
    if unknown:
        raise InvalidParameter(
            f"unable to configure the daemon with file {path}: the following directives don't match any "
            f"configuration option: {', '.join(unknown)}"
        )
    for key, value in content.items():
        if not _has_kind(value, _KINDS[key]):
            raise InvalidParameter(f"the configuration file {path} has a wrong type for {key}: {json.dumps(value)}")
    return content


def _has_kind(value: Any, kind: str) -> bool:
    match kind:
        case "bool":
            return isinstance(value, bool)
        case "int":
            return isinstance(value, int) and not isinstance(value, bool)
        case "list":
            return isinstance(value, list) and all(isinstance(item, str) for item in value)
        case "map":
            return isinstance(value, dict) and all(isinstance(item, str) for item in value.values())
        case "pools":
            return isinstance(value, list) and all(
                isinstance(item, dict)
                and item.keys() == {"base", "size"}
                and isinstance(item["base"], str)
                and isinstance(item["size"], int)
                for item in value
            )
    return isinstance(value, str)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="netd daemon", description="Run the network daemon.", allow_abbrev=False, argument_default=None
    )
    parser.add_argument("-v", "--version", action="version", version=f"netd version {__version__}")
    parser.add_argument("--config-file", dest="config-file", help=f"default {DEFAULT_CONFIG_FILE}")
    for flag in _FLAGS:
        if flag.kind == "bool":
            parser.add_argument(*flag.names, dest=flag.key, action=argparse.BooleanOptionalAction, help=flag.help)
        elif flag.kind in ("list", "map", "pools"):
            parser.add_argument(*flag.names, dest=flag.key, action="append", type=_ITEMS[flag.kind], help=flag.help)
        else:
            parser.add_argument(*flag.names, dest=flag.key, type=int if flag.kind == "int" else str, help=flag.help)
    return parser


def _pool_flag(text: str) -> dict[str, Any]:
    """`base=10.0.0.0/8,size=24` as daemon.json writes it."""
    parts = dict(part.partition("=")[::2] for part in text.split(","))
    if parts.keys() != {"base", "size"} or not parts["size"].isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form base=CIDR,size=N")
    return {"base": parts["base"], "size": int(parts["size"])}


def _pair_flag(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form KEY=VALUE")
    return key, value


_ITEMS: dict[str, Callable[[str], Any]] = {"list": str, "map": _pair_flag, "pools": _pool_flag}


def _key(field_name: str) -> str:
    return field_name.replace("_", "-")


def _checked(options: dict[str, Any], config_file: str) -> Config:
    values: dict[str, Any] = {
        key.replace("-", "_"): tuple(value) if isinstance(value, list) else value for key, value in options.items()
    }
    values["default_address_pools"] = tuple(_pool(p) for p in options.get("default-address-pools", ()))
    values["cluster_store_opts"] = tuple(sorted(dict(options.get("cluster-store-opts", ())).items()))
    config = Config(**values, config_file=config_file)
    if config.log_format not in ("text", "json"):
        raise InvalidParameter(f"invalid log format {config.log_format!r}: use text or json")
    if config.log_level not in ("debug", "info", "warn", "error"):
        raise InvalidParameter(f"invalid log level {config.log_level!r}: use debug, info, warn or error")
    if config.dns_kernel not in ("auto", "on", "off"):
        raise InvalidParameter(f"invalid dns-kernel {config.dns_kernel!r}: use auto, on or off")
    for server in config.dns:
        _require(server, ip_address, f"invalid DNS server {server!r}: it is not an IP address")
    for route in config.dns_routes:
        split_route(route)
    if config.bip:
        _require(config.bip, IPv4Interface, f"invalid bip {config.bip!r}: give an address with its prefix length")
        if "/" not in config.bip:
            raise InvalidParameter(f"invalid bip {config.bip!r}: give the prefix length, as in {config.bip}/16")
    if config.mtu < 0 or config.mtu > 65535:
        raise InvalidParameter(f"invalid MTU number: {config.mtu}")
    if config.metrics_addr:
        metrics_address(config.metrics_addr)
    cluster.check(config.cluster_store, config.cluster_advertise, dict(config.cluster_store_opts))
    for label in config.labels:
        if "=" not in label:
            raise InvalidParameter(f"bad attribute format: {label}: labels are written key=value")
    return config


def _pool(given: dict[str, Any]) -> AddressPool:
    base, size = given["base"], given["size"]
    network = _require(base, ip_network, f"invalid default address pool {base!r}: it is not a subnet")
    if not network.prefixlen <= size <= network.max_prefixlen:
        raise InvalidParameter(f"invalid default address pool {base}: size {size} does not fit into it")
    return AddressPool(base, size)


def _require(text: str, parse: Any, message: str) -> Any:
    try:
        return parse(text)
    except ValueError as error:
        raise InvalidParameter(message) from error
