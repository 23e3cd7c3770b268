"""resolv.conf: what the host says, what the flags override, and what a container gets to read.

Rules: those of resolv.conf(5), and facts 1.54 to 1.71.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from netd.config.servers import is_address, split_port
from netd.core import textfiles

RESOLVER = "127.0.0.11"
MAX_UPSTREAMS = 3
_SYSTEMD_STUB = "127.0.0.53"
_SYSTEMD_FILE = Path("/run/systemd/resolve/resolv.conf")
_FALLBACK4 = ("8.8.8.8", "8.8.4.4")
_FALLBACK6 = ("2001:4860:4860::8888", "2001:4860:4860::8844")


@dataclass(frozen=True, slots=True)
class ResolvConf:
    """The three things a resolv.conf says."""

    nameservers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Settings:
    """A container's effective DNS settings; `own_servers` is False when they are the host's."""

    conf: ResolvConf
    own_servers: bool
    text: str = ""  # the host's file, for modes that copy it


def parse(text: str) -> ResolvConf:
    """Read a resolv.conf: of repeated `search` and `options` lines the last counts, `domain` is a search list."""
    servers: list[str] = []
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    for line in text.splitlines():
        words = line.split("#")[0].split(";")[0].split()
        match words:
            case ["nameserver", server, *_] if is_address(server):
                servers.append(server)
            case ["search" | "domain", *domains]:
                search = tuple(domains)
            case ["options", *given]:
                options = tuple(given)
    return ResolvConf(tuple(servers), search, options)


def settings(
    host: str,
    container: tuple[Sequence[str], Sequence[str], Sequence[str]],
    daemon: tuple[Sequence[str], Sequence[str], Sequence[str]],
) -> Settings:
    """Servers, search list and options, each from the container's flags, else the daemon's, else the host's file."""
    base = parse(host)
    servers = tuple(container[0] or daemon[0])
    search = tuple(container[1] or daemon[1]) or base.search
    options = tuple(container[2] or daemon[2]) or base.options
    conf = ResolvConf(servers or base.nameservers, () if search == (".",) else search, _valid(options))
    return Settings(conf, bool(servers), host)


def upstreams(effective: Settings) -> list[tuple[IPv4Address | IPv6Address, int]]:
    """The servers the embedded resolver forwards to, with their ports; at most three, never itself."""
    found = [split_port(server) for server in effective.conf.nameservers]
    return [f for f in found if not (effective.own_servers and str(f[0]) == RESOLVER)][:MAX_UPSTREAMS]


def for_user_network(effective: Settings) -> str:
    """The file of a container that has the embedded resolver."""
    options = effective.conf.options
    if not any(option.startswith("ndots:") for option in options):
        options = (*options, "ndots:0")
    return _render(ResolvConf((RESOLVER,), effective.conf.search, options))


def for_default_network(effective: Settings, *, ipv6: bool) -> str:
    """The file of a container on the default bridge: the host's servers less those it cannot reach."""
    conf = effective.conf
    if effective.own_servers:
        # resolv.conf(5) has no way to write a port
        return _render(ResolvConf(tuple(s for s in conf.nameservers if is_address(s)), conf.search, conf.options))
    servers = conf.nameservers
    if servers == (_SYSTEMD_STUB,):
        with contextlib.suppress(OSError):
            servers = parse(textfiles.read(_SYSTEMD_FILE)).nameservers
    reachable = tuple(s for s in servers if _reachable(s, ipv6))
    if not reachable:
        reachable = _FALLBACK4 + (_FALLBACK6 if ipv6 else ())
    return _render(ResolvConf(reachable, conf.search, conf.options))


def for_host_network(effective: Settings, *, overridden: bool) -> str:
    """The host's file as it is, unless a flag overrides part of it."""
    return _render(effective.conf) if overridden else effective.text


def _render(conf: ResolvConf) -> str:
    lines = [f"nameserver {server}" for server in conf.nameservers]
    if conf.search:
        lines.append(f"search {' '.join(conf.search)}")
    if conf.options:
        lines.append(f"options {' '.join(conf.options)}")
    return "\n".join([*lines, ""])


def _valid(options: tuple[str, ...]) -> tuple[str, ...]:
    """A malformed ndots is dropped, as a resolver library would ignore it."""
    return tuple(o for o in options if not o.startswith("ndots:") or o.removeprefix("ndots:").isdecimal())


def _reachable(server: str, ipv6: bool) -> bool:
    address = ip_address(server)
    return not address.is_loopback and (address.version == 4 or ipv6)
