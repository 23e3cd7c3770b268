"""What the resolver's tests have in common: a served sandbox on loopback and questions to it."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from pathlib import Path
from typing import Any, TypeVar

import pytest
from dnslib import EDNS0, QTYPE, RR, DNSRecord

from dns.client import Record, Resolver, Upstream, View
from dns.control import Port, Ports
from dns.netns import Namespace
from drivers import netns, resolver_filter
from drivers.netlink import Netlink
from drivers.spec import DnsPorts

T = TypeVar("T")


def record(endpoint: str, names: Iterable[str], *addresses: str, ports: tuple[Port, ...] = ()) -> Record:
    return Record(endpoint, tuple(names), tuple(ip_address(a) for a in addresses), ports)


def upstream(port: int, *, host: bool = True, address: str = "127.0.0.1") -> Upstream:
    return Upstream(ip_address(address), port, host)


def sandbox_sockets(inside: Namespace | None = None) -> tuple[socket.socket, socket.socket]:
    """What the daemon opens inside a sandbox."""
    opened = socket.socket if inside is None else inside.open_socket
    udp, tcp = opened(socket.AF_INET, socket.SOCK_DGRAM), opened(socket.AF_INET, socket.SOCK_STREAM)
    for sock in (udp, tcp):
        sock.bind(("127.0.0.1" if inside is None else "127.0.0.11", 0))
    tcp.listen(64)
    return udp, tcp


def namespace() -> Namespace:
    """A network namespace of its own, with loopback up."""

    def make() -> Namespace:
        if ctypes.CDLL(None, use_errno=True).unshare(netns.CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "a network namespace cannot be made")
        netns.bring_up("lo")
        return Namespace(os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC))

    return in_thread(make)


def in_thread(work: Callable[[], T]) -> T:
    """What `work` gives, done in a thread that ends with it, and with what it does to its namespaces."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()


def attach(inside: Namespace, ports: Ports) -> None:
    """Have the questions of a namespace answered in the kernel, as the daemon does."""

    def work() -> None:
        with netns.entered(f"/proc/self/fd/{inside.fileno()}"), Netlink() as netlink:
            resolver_filter.ensure(netlink, DnsPorts(ports.udp, ports.tcp, ports.program, ports.number))

    in_thread(work)


class Client:
    """Asks one sandbox's resolver as a stub in it would: at 127.0.0.11:53 of its namespace, if it has one."""

    def __init__(self, udp: int, tcp: int, inside: Namespace | None = None) -> None:
        self.udp = udp
        self.tcp = tcp
        self.inside = inside

    def connected(self, kind: int = socket.SOCK_DGRAM) -> socket.socket:
        """A blocking socket on which the resolver is asked."""
        if self.inside is not None:
            sock = self.inside.open_socket(socket.AF_INET, kind)
            sock.setblocking(True)
            target = ("127.0.0.11", 53)
        else:
            sock = socket.socket(socket.AF_INET, kind)
            target = ("127.0.0.1", self.udp if kind == socket.SOCK_DGRAM else self.tcp)
        try:
            sock.connect(target)
        except OSError:
            sock.close()
            raise
        return sock

    def dnsperf(self, *options: str | Path) -> list[str]:
        """The command line of a dnsperf that asks it, from sockets enough for what it cannot read at once."""
        if self.inside is None:
            command = ["dnsperf", "-s", "127.0.0.1", "-p", str(self.udp)]
        else:
            enter = f"--net=/proc/{os.getpid()}/fd/{self.inside.fileno()}"
            command = ["nsenter", enter, "dnsperf", "-s", "127.0.0.11"]
        return [*command, "-c", "10", *map(str, options)]

    async def exchange(self, message: bytes, *, timeout: float = 6.0) -> bytes:
        """One datagram there, one back; `TimeoutError` when none comes."""
        loop = asyncio.get_running_loop()
        with self.connected() as sock:
            sock.setblocking(False)
            sock.send(message)
            await asyncio.sleep(0)  # the kernel's answer is there already: nothing else would make us wait
            async with asyncio.timeout(timeout):
                return await loop.sock_recv(sock, 65535)

    async def exchange_tcp(self, *messages: bytes) -> list[bytes]:
        """All questions on one connection at once, then as many replies."""
        reader, writer = await asyncio.open_connection(sock=self.connected(socket.SOCK_STREAM))
        try:
            writer.write(b"".join(len(m).to_bytes(2) + m for m in messages))
            async with asyncio.timeout(6):
                return [await reader.readexactly(int.from_bytes(await reader.readexactly(2))) for _ in messages]
        finally:
            writer.close()
            await writer.wait_closed()

    async def ask(self, name: str, kind: str = "A", **flags: Any) -> DNSRecord:
        """Ask by UDP; flags: `edns=1232`, `rd=0`, `tcp=True`."""
        query = question(name, kind, **{k: v for k, v in flags.items() if k != "tcp"})
        packed = bytes(query.pack())
        reply = (await self.exchange_tcp(packed))[0] if flags.get("tcp") else await self.exchange(packed)
        parsed = DNSRecord.parse(reply)
        assert parsed.header.id == query.header.id
        return parsed

    async def addresses(self, name: str, kind: str = "A", **flags: Any) -> list[str]:
        reply = await self.ask(name, kind, **flags)
        return [str(rr.rdata) for rr in reply.rr if rr.rtype == getattr(QTYPE, kind)]


def question(name: str, kind: str = "A", *, edns: int = 0, rd: int = 1, do: bool = False) -> DNSRecord:
    query = DNSRecord.question(name, kind)
    query.header.rd = rd
    if edns:
        query.add_ar(EDNS0(udp_len=edns, flags="do" if do else ""))
    return query


class World:
    """A resolver process of the test's own."""

    def __init__(self, resolver: Resolver) -> None:
        self.resolver = resolver
        self.namespaces: list[Namespace] = []

    @property
    def in_kernel(self) -> bool:
        """Whether questions are answered in the kernel if they can be."""
        return self.resolver.kernel.program != 0

    async def sandbox(self, name: str = "s1", *networks: str, **view: Any) -> Client:
        inside = None
        if self.in_kernel:
            self.namespaces.append(inside := namespace())
        udp, tcp = sandbox_sockets(inside=inside)
        with udp, tcp:
            ports = await self.resolver.put_sandbox(View(name, name, networks or ("n1",), **view), (udp, tcp))
        if inside is not None:
            attach(inside, ports)
        return Client(ports.udp, ports.tcp, inside)


@contextlib.asynccontextmanager
async def world(socket_path: Path) -> AsyncIterator[World]:
    """The resolver process at a socket, started if need be, emptied afterwards."""
    mode = "on" if socket_path.parent.name == "kernel" else "off"
    made = World(await Resolver.connect(socket_path, kernel=mode))
    if mode == "on" and not made.in_kernel:
        pytest.skip(made.resolver.kernel.reason)
    try:
        yield made
    finally:
        resolver = made.resolver
        state = await resolver.state()
        for sandbox in state.sandboxes:
            await resolver.delete_sandbox(sandbox)
        for network in state.networks:
            await resolver.delete_network(network)
        await resolver.close()
        for inside in made.namespaces:
            inside.close()


def end(socket_path: Path) -> None:
    """End the process that serves a socket."""

    async def find() -> int:
        resolver = await Resolver.connect(socket_path, start=False)
        pid = (await resolver.state()).pid
        await resolver.close()
        return pid

    pid = asyncio.run(find())
    os.kill(pid, signal.SIGTERM)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)


Behaviour = Callable[[DNSRecord], "list[tuple[float, bytes]]"]


class FakeUpstream(asyncio.DatagramProtocol):
    """A server that does as it is told: `behave` gives the replies to a question and their delays in seconds."""

    def __init__(self, behave: Behaviour) -> None:
        self.behave = behave
        self.asked: list[DNSRecord] = []
        self.sources: set[tuple[str, int]] = set()
        self.port = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.port = transport.get_extra_info("sockname")[1]

    def datagram_received(self, data: bytes, addr: Any) -> None:
        query = DNSRecord.parse(data)
        self.asked.append(query)
        self.sources.add(addr)
        for delay, reply in self.behave(query):
            asyncio.get_running_loop().call_later(delay, self._send, reply, addr)

    def _send(self, reply: bytes, addr: Any) -> None:
        if not self.transport.is_closing():
            self.transport.sendto(reply, addr)  # type: ignore[attr-defined]

    @property
    def names(self) -> list[str]:
        return [str(query.q.qname) for query in self.asked]


@contextlib.asynccontextmanager
async def fake_upstream(behave: Behaviour, *, address: str = "127.0.0.1") -> AsyncIterator[FakeUpstream]:
    """Run a fake upstream, by UDP and, with the same behaviour, by TCP."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                query = DNSRecord.parse(await reader.readexactly(int.from_bytes(await reader.readexactly(2))))
                query.tcp = True
                server.asked.append(query)
                for delay, reply in behave(query):
                    await asyncio.sleep(delay)
                    writer.write(len(reply).to_bytes(2) + reply)
        writer.close()

    loop = asyncio.get_running_loop()
    while True:
        transport, server = await loop.create_datagram_endpoint(lambda: FakeUpstream(behave), local_addr=(address, 0))
        try:
            tcp = await asyncio.start_server(serve, address, server.port)
            break
        except OSError:  # somebody has that port for TCP: another one
            transport.close()
    try:
        yield server
    finally:
        transport.close()
        tcp.close()


def answer(query: DNSRecord, zone: str = "", *, rcode: int = 0, authority: str = "") -> bytes:
    """A reply with the records of zone file lines."""
    reply = query.reply(ra=1, aa=0)
    reply.header.rcode = rcode
    if zone:
        reply.add_answer(*RR.fromZone(zone))
    if authority:
        reply.add_auth(*RR.fromZone(authority))
    if query.ar:
        reply.add_ar(EDNS0(udp_len=1232))
    return bytes(reply.pack())


def address(ip: str = "192.0.2.1", *, delay: float = 0, ttl: int = 60, **flags: Any) -> Behaviour:
    """Answers every question with one A record."""
    return lambda query: [(delay, answer(query, f"{query.q.qname} {ttl} IN A {ip}", **flags))]


def failing(rcode: int) -> Behaviour:
    return lambda query: [(0, answer(query, rcode=rcode))]


def silent(query: DNSRecord) -> list[tuple[float, bytes]]:
    return []
