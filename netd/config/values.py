"""The daemon's options as values: each is one key of daemon.json."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from netd.core.errors import InvalidParameter

DEFAULT_CONFIG_FILE = Path("/etc/netd/daemon.json")


@dataclass(frozen=True, slots=True)
class AddressPool:
    """Networks of `size` prefix length are cut from `base` when the user names no subnet."""

    base: str
    size: int


@dataclass(frozen=True, slots=True)
class Config:
    """What the daemon runs with. Every field is one key of daemon.json, with dashes."""

    hosts: tuple[str, ...] = ("unix:///run/netd/netd.sock",)
    tls: bool = False
    tlsverify: bool = False
    tlscacert: str = ""
    tlscert: str = ""
    tlskey: str = ""
    data_root: str = "/var/lib/netd"
    exec_root: str = "/run/netd"
    pidfile: str = ""
    bip: str = ""
    default_address_pools: tuple[AddressPool, ...] = ()
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_opts: tuple[str, ...] = ()
    dns_routes: tuple[str, ...] = ()
    dns_kernel: str = "auto"
    mtu: int = 0
    labels: tuple[str, ...] = ()
    log_level: str = "info"
    debug: bool = False
    log_format: str = "text"
    default_runtime: str = ""
    metrics_addr: str = ""
    cluster_store: str = ""
    cluster_advertise: str = ""
    cluster_store_opts: tuple[tuple[str, str], ...] = ()
    config_file: str = field(default=str(DEFAULT_CONFIG_FILE), metadata={"flag_only": True})

    @property
    def pid_path(self) -> Path:
        return Path(self.pidfile) if self.pidfile else Path(self.exec_root) / "netd.pid"


def metrics_address(text: str) -> tuple[str, int]:
    """Host and port of `--metrics-addr`; `InvalidParameter` if it is neither `HOST:PORT` nor `[IPV6]:PORT`."""
    host, _, port = text.rpartition(":")
    if not host or not (port.isascii() and port.isdecimal() and 0 < int(port) < 65536):
        raise InvalidParameter(f"invalid metrics-addr {text!r}: write HOST:PORT, as in 127.0.0.1:9323")
    return host.removeprefix("[").removesuffix("]"), int(port)
