"""`-p` and `--expose`: port specifications to the API's port sets and bindings, as docker/go-connections does."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

_PROTOCOLS = ("tcp", "udp", "sctp")


class Ports(NamedTuple):
    """`exposed` maps `80/tcp` to {}; `bindings` maps it to its host addresses."""

    exposed: dict[str, dict[str, str]]
    bindings: dict[str, list[dict[str, str]]]


def parse_publish(specs: Iterable[str]) -> Ports:
    """`[hostIP:][hostPort[-end]]:containerPort[-end][/proto]`; raises ValueError in Docker's words."""
    ports = Ports({}, {})
    for spec in specs:
        for port, address, host_port in _one(_short_form(spec)):
            ports.exposed[port] = {}
            ports.bindings.setdefault(port, []).append({"HostIp": address, "HostPort": host_port})
    return ports


def parse_expose(specs: Iterable[str]) -> list[str]:
    """`80`, `80-90/udp` -> every port as `80/udp`; raises ValueError."""
    found: list[str] = []
    for spec in specs:
        if ":" in spec:
            raise ValueError(f"invalid port format for --expose: {spec}")
        proto, port = _protocol(spec)
        try:
            low, high = parse_range(port)
        except ValueError as error:
            raise ValueError(f"invalid range format for --expose: {spec}, error: {error}") from error
        found += [f"{number}/{proto}" for number in range(low, high + 1)]
    return found


def parse_range(text: str) -> tuple[int, int]:
    """`80` or `80-90`; raises ValueError."""
    if not text:
        raise ValueError("empty string specified for ports")
    first, dash, last = text.partition("-")
    low = _port(first)
    high = _port(last) if dash else low
    if high < low:
        raise ValueError(f"invalid range specified for port: {text}")
    return low, high


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f'strconv.ParseUint: parsing "{text}": invalid syntax')
    if int(text) > 65535:
        raise ValueError(f'strconv.ParseUint: parsing "{text}": value out of range')
    return int(text)


def _protocol(spec: str) -> tuple[str, str]:
    port, slash, proto = spec.partition("/")
    if slash and "/" in proto:
        proto = proto.partition("/")[0]
    return (proto or "tcp") if port else "", port


def _short_form(spec: str) -> str:
    """`published=8080,target=80,protocol=tcp` as `8080:80/tcp`."""
    if "=" not in spec:
        return spec
    fields: dict[str, str] = {}
    for part in spec.split(","):
        key, equals, value = part.partition("=")
        if not equals or not value:
            raise ValueError(f"invalid field: {part}")
        fields[key] = value
    return f"{fields.get('published', '')}:{fields.get('target', '')}/{fields.get('protocol', 'tcp')}"


def _split(spec: str) -> tuple[str, str, str]:
    """Host address, host port and container port of a specification."""
    parts = spec.split(":")
    if len(parts) <= 2:
        return "", "".join(parts[:-1]), parts[-1]
    return ":".join(parts[:-2]), parts[-2], parts[-1]


def _host_address(text: str) -> str:
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1]
    if text:
        from ipaddress import ip_address

        try:
            ip_address(text.partition("%")[0])
        except ValueError:
            raise ValueError(f"invalid IP address: {text}") from None
    return text


def _one(spec: str) -> list[tuple[str, str, str]]:
    address, host_port, rest = _split(spec)
    proto, port = _protocol(rest)
    address = _host_address(address)
    if not port:
        raise ValueError(f"no port specified: {spec}<empty>")
    low, high = _checked_range("containerPort", port)
    host = _checked_range("hostPort", host_port) if host_port else None
    if host is not None and high - low != host[1] - host[0] and high != low:
        raise ValueError(f"invalid ranges specified for container and host Ports: {port} and {host_port}")
    if proto.lower() not in _PROTOCOLS:
        raise ValueError(f"invalid proto: {proto}")
    bindings = []
    for offset in range(high - low + 1):
        if host is None:
            shown = ""
        elif low == high and host[0] != host[1]:
            shown = f"{host[0]}-{host[1]}"  # the daemon picks one of them
        else:
            shown = str(host[0] + offset)
        bindings.append((f"{low + offset}/{proto.lower()}", address, shown))
    return bindings


def _checked_range(what: str, text: str) -> tuple[int, int]:
    try:
        return parse_range(text)
    except ValueError:
        raise ValueError(f"invalid {what}: {text}") from None
