"""Port specifications of a container as values: what is exposed, and what is to be bound where."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from ipaddress import ip_address

from netd.core.errors import InvalidParameter
from netd.ipam.ports import Binding, Port, Protocol, Span, is_fixed, span_of
from netd.model.containers import PortBinding


def parse_port(text: str) -> Port:
    """`80`, `80/udp` or `8000-8010/tcp`; raises `InvalidParameter`."""
    number, _, proto = text.partition("/")
    span = span_of(number)
    if span is None or span[0] == 0:
        raise InvalidParameter(f'invalid port specification: "{number}"')
    return Port(_protocol(proto), span[0], span[1] - span[0] + 1)


def parse_bindings(bindings: Mapping[str, Sequence[PortBinding] | None]) -> list[Binding]:
    """HostConfig.PortBindings as values, runs of consecutive ports joined to one; raises `InvalidParameter`.

    A port without bindings gets one ephemeral port (fact 3.27).
    """
    return _joined(
        _binding(parse_port(key), item) for key, items in bindings.items() for item in items or [PortBinding()]
    )


def _protocol(text: str) -> Protocol:
    match text.lower():
        case "" | "tcp":
            return "tcp"
        case "udp":
            return "udp"
        case "sctp":
            return "sctp"
    raise InvalidParameter(f"invalid proto: {text}")


def _binding(port: Port, item: PortBinding) -> Binding:
    host_ip = None
    if item.host_ip:
        try:
            host_ip = ip_address(item.host_ip)
        except ValueError:
            raise InvalidParameter(f"invalid host IP address: {item.host_ip}") from None
    if item.host_port in ("", "0"):
        return Binding(port, host_ip)
    host = span_of(item.host_port)
    if host is None or host[0] == 0:
        raise InvalidParameter(f"invalid hostPort: {item.host_port}")
    if port.count > 1 and host[1] - host[0] + 1 != port.count:
        raise InvalidParameter(
            "invalid ranges specified for container and host Ports: "
            f"{port.first}-{port.first + port.count - 1} and {item.host_port}"
        )
    return Binding(port, host_ip, host)


def _joined(bindings: Iterable[Binding]) -> list[Binding]:
    """Neighbours with fixed host ports become one range: what `-p 8000-8999:8000-8999` was before the CLI."""
    joined: list[Binding] = []
    for binding in sorted(bindings, key=_order):
        if joined and (longer := _extended(joined[-1], binding)):
            joined[-1] = longer
        else:
            joined.append(binding)
    return joined


def _order(binding: Binding) -> tuple[str, str, int, Span]:
    return binding.port.proto, str(binding.host_ip or ""), binding.port.first, binding.host or (0, 0)


def _extended(left: Binding, right: Binding) -> Binding | None:
    """Both as one, if `right` goes on where `left` ends."""
    if left.host is None or right.host is None or left.host_ip != right.host_ip:
        return None
    if not (is_fixed(left) and is_fixed(right) and left.port.proto == right.port.proto):
        return None
    if left.port.first + left.port.count != right.port.first or left.host[1] + 1 != right.host[0]:
        return None
    port = replace(left.port, count=left.port.count + right.port.count)
    return Binding(port, left.host_ip, (left.host[0], right.host[1]))
