"""The daemon's options about the cluster, with Docker's names and complaints (facts 4.1 and 4.2)."""

from __future__ import annotations

import fcntl
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from netd.core.errors import InvalidParameter

CONTROL_PORT = 7946  # tcp and udp, of the hosts' control channel
KV_OPTIONS = ("kv.cacertfile", "kv.certfile", "kv.keyfile", "kv.user", "kv.passwordfile", "kv.path", "kv.ttl")
_DISCOVERY = ("discovery.heartbeat", "discovery.ttl")
_SCHEMES = ("consul", "etcd", "zk")
_SIOCGIFADDR = 0x8915  # linux/sockios.h


@dataclass(frozen=True, slots=True)
class Advertise:
    """What --cluster-advertise says: an address or an interface, and the port of the API there, if any."""

    where: str
    port: int = 0

    def address(self) -> str:
        """The address other hosts reach this one at: of an interface its first IPv4, else its first global IPv6.

        Raises `InvalidParameter` if the interface has none.
        """
        try:
            return str(ip_address(self.where))
        except ValueError:
            pass
        found = _ipv4_of(self.where) or _ipv6_of(self.where)
        if not found:
            raise InvalidParameter(
                f"invalid --cluster-advertise configuration: there is no interface {self.where} with an address "
                "that other hosts could reach"
            )
        return found


def parse_advertise(text: str) -> Advertise:
    """`IFACE|IP[:PORT]`, an IPv6 address with a port in brackets; raises `InvalidParameter`."""
    where, port = _split_port(text)
    if port and not (port.isdecimal() and 0 < int(port) < 65536):
        raise InvalidParameter(f"invalid --cluster-advertise configuration: {port} is not a port number")
    if not where or "/" in where:
        raise InvalidParameter(
            f"invalid --cluster-advertise configuration: {text!r} is neither an IP address nor an interface"
        )
    address = _address(where)
    if address is not None and (address.is_loopback or address.is_unspecified or address.is_multicast):
        raise InvalidParameter(
            f"invalid --cluster-advertise configuration: other hosts cannot reach this one at {where}"
        )
    return Advertise(where, int(port or 0))


def check(store: str, advertise: str, options: Mapping[str, str]) -> None:
    """Raise `InvalidParameter` for options that cannot be meant."""
    if advertise and not store:
        raise InvalidParameter(
            "invalid cluster configuration. --cluster-advertise must be accompanied by --cluster-store configuration"
        )
    if store and store.partition("://")[0] not in _SCHEMES:
        raise InvalidParameter(
            f"invalid --cluster-store {store!r}: it is a URL such as etcd://HOST:PORT,HOST:PORT/PATH; "
            f"the kinds of stores are {', '.join(_SCHEMES)}"
        )
    if advertise:
        parse_advertise(advertise)
    if unknown := sorted(options.keys() - {*KV_OPTIONS, *_DISCOVERY}):
        raise InvalidParameter(f"unknown --cluster-store-opt {unknown[0]}: use one of {', '.join(KV_OPTIONS)}")
    _check_discovery(options)


def lease_seconds(options: Mapping[str, str], default: float) -> float:
    """How long a host may be silent before it counts as gone: `discovery.ttl`, or three heartbeats."""
    if "discovery.ttl" in options:
        return float(options["discovery.ttl"])
    return 3 * float(options["discovery.heartbeat"]) if "discovery.heartbeat" in options else default


def _check_discovery(options: Mapping[str, str]) -> None:
    seconds: dict[str, int] = {}
    for key in _DISCOVERY:
        if key not in options:
            continue
        text = options[key]
        if not text.lstrip("-").isdecimal():
            raise InvalidParameter(f"invalid {key} {text!r}: it is a number of seconds")
        if int(text) <= 0:
            raise InvalidParameter(f"{key} must be positive")
        seconds[key] = int(text)
    if len(seconds) == 2 and seconds["discovery.ttl"] <= seconds["discovery.heartbeat"]:
        raise InvalidParameter("discovery.ttl timer must be greater than discovery.heartbeat")


def _split_port(text: str) -> tuple[str, str]:
    if text.startswith("["):
        where, _, rest = text[1:].partition("]")
        return where, rest.removeprefix(":")
    if text.count(":") > 1:
        return text, ""
    where, _, port = text.partition(":")
    return where, port


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None


def _ipv4_of(interface: str) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe:
        request = struct.pack("256s", interface.encode()[:15])
        try:
            answer = fcntl.ioctl(probe, _SIOCGIFADDR, request)
        except OSError:
            return ""
    address = IPv4Address(answer[20:24])
    return "" if address.is_loopback else str(address)


def _ipv6_of(interface: str) -> str:
    try:
        lines = Path("/proc/net/if_inet6").read_text().splitlines()
    except FileNotFoundError:
        return ""
    for digits, _, _, _, _, name in (line.split() for line in lines):
        address = IPv6Address(bytes.fromhex(digits))
        if name == interface and not (address.is_loopback or address.is_link_local):
            return str(address)
    return ""
