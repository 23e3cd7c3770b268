"""The resolver alone: `python -m dns --zone FILE --listen ADDR:PORT`, no daemon.

Each line of the file is a resource record; an A or AAAA record also makes its reverse name known.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
from ipaddress import ip_address
from pathlib import Path

import uvloop
from dnslib import RR

from dns import control, wire, zone
from dns.process import prepare_process
from dns.service import Service
from dns.tables import Network, Options

log = logging.getLogger(__name__)


def serve_zone(path: Path, listen: str, upstreams: list[str]) -> int:
    """Serve until SIGTERM; a usage error is told and returned as 2."""
    try:
        network = load(path)
        address, port = split_port(listen, 5353)
        servers = tuple(control.Server(*split_port(server, 53), True) for server in upstreams)
        sockets = open_sockets(address, port)
    except (OSError, ValueError) as error:
        print(f"netd-dns: {error}", file=sys.stderr)
        return 2
    prepare_process()
    uvloop.run(_serve(network, sockets, servers))
    return 0


def load(path: Path) -> Network:
    """The table of a zone file (RFC 1035 section 5; dnslib reads it). Raises `ZoneError`, `OSError`."""
    network = Network("zone", "zone", Options(ttl=0))
    for line in _records(path.read_text()):
        name, kind, ttl, data = zone.parse_record(line)
        network.add_static(name, kind, ttl, data)
        if kind in (wire.A, wire.AAAA):
            network.add_static(wire.reverse_name(data), wire.PTR, ttl, name)
    return network


def _records(text: str) -> list[str]:
    """Whole records, one a line: directives, comments and continued lines are resolved by dnslib."""
    try:
        return [rr.toZone() for rr in RR.fromZone(text, ttl=10)]
    except Exception as error:
        raise zone.ZoneError(f"the zone file cannot be read: {error}") from error


def split_port(text: str, default: int) -> tuple[str, int]:
    """`1.2.3.4`, `1.2.3.4:5353`, `::1` or `[::1]:5353`; raises `ValueError`."""
    host, _, port = text.rpartition(":")
    try:
        return str(ip_address(text)), default
    except ValueError:
        return str(ip_address(host.strip("[]"))), int(port)


def open_sockets(address: str, port: int) -> tuple[socket.socket, socket.socket]:
    """A UDP and a listening TCP socket."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    udp = socket.socket(family, socket.SOCK_DGRAM)
    tcp = socket.socket(family, socket.SOCK_STREAM)
    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    udp.bind((address, port))
    tcp.bind((address, port or udp.getsockname()[1]))
    tcp.listen(128)
    return udp, tcp


async def _serve(
    network: Network, sockets: tuple[socket.socket, socket.socket], servers: tuple[control.Server, ...]
) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    service = Service(loop)
    service.tables.put(network)
    view = control.SandboxView("zone", "zone", (network.id,), servers=servers)
    ports = service.put_sandbox(view, sockets)
    log.info("netd-dns serves %d names on port %d", len(network.static), ports.udp)
    await stop.wait()
    service.close()
