"""The query log: made only while somebody listens, escaped, and never waited for."""

from __future__ import annotations

import time
from collections.abc import Callable
from ipaddress import IPv4Address

from dnslib import QTYPE, RCODE

from dns import wire
from dns.control import LogEntry, SandboxView
from dns.kernel_layout import Event

Listener = Callable[[LogEntry], None]


class QueryLog:
    """Hands every query to those who listen."""

    def __init__(self, activate: Callable[[bool], None] = lambda active: None) -> None:
        """`activate` is told when the first one listens, and when the last one has gone."""
        self._listeners: dict[Listener, str] = {}
        self._activate = activate

    @property
    def active(self) -> bool:
        return bool(self._listeners)

    def listen(self, listener: Listener, sandbox: str = "") -> None:
        """Call `listener` for each query from now on, of one sandbox or of all."""
        self._listeners[listener] = sandbox
        if len(self._listeners) == 1:
            self._activate(True)

    def forget(self, listener: Listener) -> None:
        if self._listeners.pop(listener, None) is not None and not self._listeners:
            self._activate(False)

    def add(
        self, view: SandboxView, client: str, tcp: bool, query: wire.Query, reply: bytes, source: str, latency: float
    ) -> None:
        """Log one answered query; latency in seconds."""
        if not self._listeners:
            return
        entry = LogEntry(
            time=time.time(),
            sandbox=view.sandbox,
            container=_escaped(view.container),
            client=client,
            transport="tcp" if tcp else "udp",
            name=wire.show_name(query.name),
            type=QTYPE.get(query.type),
            rcode=RCODE.get(reply[3] & 15, str(reply[3] & 15)) if len(reply) > 3 else "none",
            source=source,
            records=int.from_bytes(reply[6:8]),
            latency=latency,
        )
        self._tell(entry)

    def add_event(self, view: SandboxView, event: Event) -> None:
        """Log one query that was answered in the kernel."""
        entry = LogEntry(
            time=time.time() - (time.monotonic_ns() - event.time) / 1e9,
            sandbox=view.sandbox,
            container=_escaped(view.container),
            client=str(IPv4Address(event.client)),
            transport="udp",
            name=wire.show_name(event.name),
            type=QTYPE.get(event.type),
            rcode="NOERROR",
            source="kernel",
            records=event.records,
            latency=event.spent / 1e9,
        )
        self._tell(entry)

    def _tell(self, entry: LogEntry) -> None:
        for listener, sandbox in list(self._listeners.items()):
            if sandbox in ("", entry.sandbox):
                listener(entry)


def _escaped(text: str) -> str:
    return text.encode("unicode_escape").decode("ascii")
