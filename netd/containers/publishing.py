"""Which of a container's ports are published where: its settings on one side, the host's free ports on the other."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_address

from netd.containers.ports import parse_bindings, parse_port
from netd.core.errors import NetdError
from netd.ipam.ports import Binding, BoundPort, PortAllocator
from netd.model.containers import Container, PortBinding
from netd.model.sandboxes import Endpoint, Published, Sandbox

_ANY4, _ANY6 = IPv4Address(0), IPv6Address(0)


class Publisher:
    """The host ports of all sandboxes."""

    def __init__(self) -> None:
        self._ports = PortAllocator()

    def allocate(self, record: Container, sandbox: Sandbox, default_address: str) -> tuple[Published, ...]:
        """Take host ports for a container; `default_address` is its network's host_binding_ipv4, if any."""
        gateway4, gateway6 = sandbox.gateway4, sandbox.gateway6
        carrier = gateway4 or gateway6
        if carrier is None:
            return ()
        families = {version for version, gateway in ((4, gateway4), (6, gateway6)) if gateway}
        bindings = [b for b in _bindings(record) if b.host_ip is None or b.host_ip.version in families]
        chosen = ip_address(default_address) if default_address else _ANY4
        default = [a for a in ((_ANY4, _ANY6) if chosen == _ANY4 else (chosen,)) if a.version in families]
        try:
            bound = self._ports.allocate(sandbox.id, bindings, default)
        except NetdError as error:
            raise type(error)(_told(record, carrier, error)) from error
        return tuple(Published(b.proto, b.container_port, str(b.host_ip), b.host_port, b.count) for b in bound)

    def claim(self, sandbox: Sandbox) -> None:
        """Note the ports that a sandbox has held since before this daemon started."""
        self._ports.claim(sandbox.id, [_bound(p) for p in sandbox.published])

    def release(self, sandbox_id: str) -> None:
        self._ports.release(sandbox_id)


def ports_view(record: Container, sandbox: Sandbox | None) -> dict[str, list[PortBinding] | None]:
    """What `docker port` shows: published ports with their bindings, exposed ones with null (fact 3.18)."""
    if sandbox is None or not (sandbox.gateway4 or sandbox.gateway6):
        return {}
    view: dict[str, list[PortBinding] | None] = dict.fromkeys(record.config.exposed_ports or ())
    for port in sandbox.published:
        for offset in range(port.count):
            key = f"{port.container_port + offset}/{port.proto}"
            binding = PortBinding(host_ip=port.host_ip, host_port=str(port.host_port + offset))
            view[key] = [*(view.get(key) or ()), binding]
    return view


def _bindings(record: Container) -> list[Binding]:
    """What the user bound, and with publish-all every other exposed port on an ephemeral one."""
    bindings = parse_bindings(record.host_config.port_bindings or {})
    if not record.host_config.publish_all_ports:
        return bindings
    bound = {(b.port.proto, n) for b in bindings for n in range(b.port.first, b.port.first + b.port.count)}
    for text in record.config.exposed_ports or ():
        port = parse_port(text)
        bindings += [
            Binding(replace(port, first=n, count=1))
            for n in range(port.first, port.first + port.count)
            if (port.proto, n) not in bound
        ]
    return bindings


def _bound(port: Published) -> BoundPort:
    return BoundPort(port.proto, ip_address(port.host_ip), port.host_port, port.container_port, port.count)  # type: ignore[arg-type]


def _told(record: Container, carrier: Endpoint, error: NetdError) -> str:
    return (
        "failed to set up container networking: driver failed programming external connectivity on endpoint "
        f"{record.name} ({carrier.id}): {error}"
    )
