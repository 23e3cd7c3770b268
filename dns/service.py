"""What `netd-dns` serves: the networks' tables and the sandboxes, changed by the messages of the control protocol."""

from __future__ import annotations

import contextlib
import logging
import os
from asyncio import AbstractEventLoop
from collections.abc import Mapping
from ipaddress import ip_network
from socket import socket

from dnslib import QTYPE
from msgspec.structs import replace

from dns import bpf, control, wire, zone
from dns.answer import Ready, ReadyStore
from dns.control import KernelState, Ports, ResolverState, SandboxView, Step
from dns.explain import explain
from dns.forward import Forwarder
from dns.health import Health
from dns.kernel import Kernel
from dns.kernel_layout import Event
from dns.netns import Namespace
from dns.querylog import QueryLog
from dns.sandbox import Sandbox, Shared
from dns.server_tcp import TcpServer
from dns.server_udp import UdpServer
from dns.tables import DEFAULT_TTL, Network, Options, Scope, Tables

log = logging.getLogger(__name__)


class ServiceError(Exception):
    """A request that cannot be carried out; the message is one sentence."""


class _Served:
    """A sandbox and its open sockets."""

    def __init__(self, sandbox: Sandbox, udp: UdpServer, tcp: TcpServer) -> None:
        self.sandbox = sandbox
        self.udp = udp
        self.tcp = tcp
        self.number = 0  # in the kernel; 0: it has none there

    def close(self) -> None:
        self.udp.close()
        self.tcp.close()
        if self.sandbox.netns is not None:
            self.sandbox.netns.close()


class Service:
    """All state of the process. Every method is one step: no question sees half of a change."""

    def __init__(self, loop: AbstractEventLoop, mode: str = "off", owner: tuple[int, int] = (0, 0)) -> None:
        """`mode` says whether questions are answered in the kernel: off, or (auto, on) if that is possible."""
        self._loop = loop
        self.tables = Tables()
        self._kernel_state = KernelState(mode)
        self._kernel = self._open_kernel(owner)
        self.log = QueryLog(self._follow_kernel)
        self.shared = Shared(self.tables, Forwarder(loop), Health(), self.log)
        self._served: dict[str, _Served] = {}
        self._surrendered: list[_Served] = []
        self._ready = ReadyStore(self.tables)
        self._followed = -1

    # ---- the kernel -------------------------------------------------------------------------------------

    def _open_kernel(self, owner: tuple[int, int]) -> Kernel | None:
        mode = self._kernel_state.mode
        if mode == "off":
            return None
        try:
            kernel = Kernel.open(self.tables, owner)
        except bpf.Unavailable as reason:
            log.warning("questions are answered by this process, not in the kernel: %s", reason)
            self._kernel_state = KernelState(mode, reason=str(reason))
            return None
        log.info("questions are answered in the kernel")
        return kernel

    def _follow_kernel(self, active: bool) -> None:
        """Have the log of what is answered in the kernel too, while anybody follows it."""
        if self._kernel is None:
            return
        if self._followed >= 0:
            self._loop.remove_reader(self._followed)
        self._followed = self._kernel.follow(self._log_event if active else None)
        if self._followed >= 0:
            self._loop.add_reader(self._followed, self._kernel.drain)

    def _log_event(self, sandbox: str, event: Event) -> None:
        served = self._served.get(sandbox)
        if served is not None:
            self.log.add_event(served.sandbox.view, event)

    def retire(self) -> None:
        """Change nothing in the kernel any more: a successor does."""
        if self._kernel is not None:
            self._follow_kernel(False)
            self._kernel.let_go()
            self._kernel = None

    # ---- networks ---------------------------------------------------------------------------------------

    def put_network(self, message: control.PutNetwork) -> None:
        """Replace a network's table in one step, static records included."""
        network = Network(message.network, message.name, _options(message))
        for line in zone.lines(message.options.get("netd.dns.records", "")):
            network.add_static(*zone.parse_record(line))
        for line in message.records:
            try:
                network.add_static(*zone.parse_record(line))
            except (zone.ZoneError, wire.Malformed) as error:  # it was taken once: all other names are served
                log.warning("network %s is served without one of its static records: %s", message.network[:12], error)
        for member in message.members:
            network.join(member)
        if network.says_as_much_as(self.tables.networks.get(network.id)):
            return  # ready answers stay ready
        self.tables.put(network)
        if self._kernel is not None:
            self._kernel.put_network(network)

    def delete_network(self, message: control.DeleteNetwork) -> None:
        self.tables.delete(message.network)
        if self._kernel is not None:
            self._kernel.delete_network(message.network)

    def join(self, message: control.Join) -> None:
        network = self._network(message.network)
        self._changed(network, network.join(message.member))

    def leave(self, message: control.Leave) -> None:
        network = self.tables.networks.get(message.network)
        if network is not None:
            self._changed(network, network.leave(message.endpoint))

    def put_record(self, message: control.PutRecord) -> None:
        network = self._network(message.network)
        name, kind, ttl, data = zone.parse_record(message.line)
        network.add_static(name, kind, ttl, data)
        self._changed(network, {name})

    def delete_record(self, message: control.DeleteRecord) -> None:
        network = self._network(message.network)
        name = wire.encode_name(message.name).lower()
        network.remove_static(name, _type(message.type) if message.type else None)
        self._changed(network, {name})

    def _changed(self, network: Network, names: set[bytes]) -> None:
        self.tables.changed(network)
        if self._kernel is not None:
            self._kernel.change_names(network, names)

    def _network(self, network_id: str) -> Network:
        try:
            return self.tables.networks[network_id]
        except KeyError:
            raise ServiceError(f"network {network_id!a} is not known to the resolver: put it first") from None

    # ---- sandboxes --------------------------------------------------------------------------------------

    def put_sandbox(
        self, view: SandboxView, sockets: tuple[socket, socket] | None = None, netns: Namespace | None = None
    ) -> Ports:
        """Serve a sandbox, on new sockets if some are given; takes ownership of them and of `netns`."""
        with contextlib.ExitStack() as unused:
            for thing in (*(sockets or ()), netns):
                if thing is not None:
                    unused.callback(thing.close)
            served = self._change(view, netns) if sockets is None else self._open(view, sockets, netns)
            unused.pop_all()
        return self._ports(served)

    def _change(self, view: SandboxView, netns: Namespace | None) -> _Served:
        served = self._served.get(view.sandbox)
        if served is None:
            raise ServiceError(f"sandbox {view.sandbox!a} has no sockets yet: send them along")
        if netns is not None:
            served.sandbox.change_namespace(netns)
        served.sandbox.update(view, self._ready_for(view))
        self._show_kernel(served)
        return served

    def _open(self, view: SandboxView, sockets: tuple[socket, socket], netns: Namespace | None) -> _Served:
        old = self._served.get(view.sandbox)
        if netns is None and old is not None and old.sandbox.netns is not None:
            netns = old.sandbox.netns.duplicate()
        sandbox = Sandbox(self.shared, view, self._ready_for(view), netns)
        udp, tcp = sockets
        served = _Served(sandbox, UdpServer(self._loop, udp, sandbox), TcpServer(self._loop, tcp, sandbox))
        self._served[view.sandbox] = served
        self._show_kernel(served)
        if old is not None:
            old.close()
        return served

    def _show_kernel(self, served: _Served) -> None:
        """The sandbox's questions are answered in the kernel from now on."""
        if self._kernel is not None:
            sandbox, ports = served.sandbox, (served.udp.port, served.tcp.port)
            served.number = self._kernel.put_sandbox(sandbox.view, sandbox.ready.scope, ports)

    def _ports(self, served: _Served) -> Ports:
        program = self._kernel.program if self._kernel is not None and served.number else 0
        return Ports(served.udp.port, served.tcp.port, program, served.number if program else 0)

    def delete_sandbox(self, message: control.DeleteSandbox) -> None:
        if self._kernel is not None:
            self._kernel.delete_sandbox(message.sandbox)
        served = self._served.pop(message.sandbox, None)
        if served is not None:
            served.close()
            self._ready.release(message.sandbox)

    def surrender(self, message: control.Surrender) -> list[int]:
        """Serve a sandbox no more, but for what is in flight; the descriptors for its successor."""
        served = self._served.pop(message.sandbox, None)
        if served is None:
            raise ServiceError(f"sandbox {message.sandbox!a} is not served by the resolver")
        self._surrendered.append(served)
        netns = served.sandbox.netns
        return [served.udp.retire(), served.tcp.retire(), *([] if netns is None else [netns.fileno()])]

    def _ready_for(self, view: SandboxView) -> Ready:
        links = {network: _wire_links(links) for network, links in view.links.items() if links}
        return self._ready.acquire(view.sandbox, Scope(view.networks, links))

    @property
    def idle(self) -> bool:
        return not self._served

    # ---- questions about it -----------------------------------------------------------------------------

    def state(self) -> ResolverState:
        kernel = self._kernel_state if self._kernel is None else self._kernel.state(self._kernel_state.mode)
        return ResolverState(
            sandboxes={key: self._ports(served) for key, served in self._served.items()},
            networks=frozenset(self.tables.networks) | (self._kernel.networks if self._kernel is not None else set()),
            pid=os.getpid(),
            version=control.VERSION,
            queries=self.shared.queries + kernel.answered,
            kernel=kernel,
            adopted=self._kernel.adopted if self._kernel is not None else frozenset(),
        )

    def explain(self, message: control.Explain) -> control.Explanation:
        served = self._served.get(message.sandbox)
        if served is None:
            raise ServiceError(f"sandbox {message.sandbox!a} is not served by the resolver")
        name, kind = wire.encode_name(message.name), _type(message.type)
        explained = explain(served.sandbox, name, kind)
        if self._kernel is None or not served.number:
            return explained
        first = Step("kernel", self._kernel.explain(message.sandbox, name.lower(), kind))
        return replace(explained, steps=(first, *explained.steps))

    def close(self) -> None:
        self.retire()
        for served in (*self._served.values(), *self._surrendered):
            served.close()
        self._served.clear()


def _type(name: str) -> int:
    kind = QTYPE.reverse.get(name.upper())
    if kind is None:
        raise ServiceError(f"{name!a} is not a record type: use A, AAAA, CNAME, TXT, SRV, PTR, MX or the like")
    return int(kind)


def _wire_links(links: Mapping[str, str]) -> dict[bytes, bytes]:
    found = {}
    for alias, target in links.items():
        with contextlib.suppress(wire.Malformed):  # a name that DNS cannot carry is never asked for
            found[wire.encode_name(alias).lower()] = wire.encode_name(target).lower()
    return found


def _options(message: control.PutNetwork) -> Options:
    """A network's own `netd.dns.*` options; malformed ones raise `ServiceError`."""
    options = message.options
    ttl = options.get("netd.dns.ttl", str(DEFAULT_TTL))
    if not ttl.isdecimal() or int(ttl) > 86400:
        raise ServiceError(f"netd.dns.ttl={ttl!a} is not a number of seconds from 0 to 86400")
    try:
        subnets = tuple(ip_network(subnet, strict=False) for subnet in message.subnets)
    except ValueError as error:
        raise ServiceError(f"a subnet of network {message.network!a}: {error}") from None
    return Options(
        ttl=int(ttl),
        private=_truthy(options, "netd.dns.private", False),
        cache=_truthy(options, "netd.dns.cache", True),
        subnets=subnets,
    )


def _truthy(options: Mapping[str, str], key: str, default: bool) -> bool:
    value = options.get(key, "").lower()
    if value in ("", "1", "true", "yes", "on"):
        return default if value == "" else True
    if value in ("0", "false", "no", "off"):
        return False
    raise ServiceError(f"{key}={value!a} is neither true nor false")
